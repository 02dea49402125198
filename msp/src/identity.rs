//! An identity: a certificate under its MSP.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use consort_crypto::certificate::Certificate;
use consort_crypto::key::SignatureCheck;
use consort_protos::{fabric::msp::SerializedIdentity, ids::MspId};
use prost::Message;
use time::OffsetDateTime;

use crate::{IdentityError, Msp, Role, msp::Validity};

/// What tells identities apart: the MSP and the hash of the certificate's DER after low-S repair (SHA-256, or SM3 under an MSP
/// of that family). Two serialised forms of one certificate have the same id, so that they count once.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdentityId {
    msp: MspId,
    certificate_hash: [u8; 32],
}

impl IdentityId {
    /// The MSP.
    #[must_use]
    pub fn msp_id(&self) -> &MspId {
        &self.msp
    }

    /// Hash of the certificate's DER.
    #[must_use]
    pub fn certificate_hash(&self) -> &[u8; 32] {
        &self.certificate_hash
    }
}

impl fmt::Display for IdentityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.msp, hex::encode(self.certificate_hash))
    }
}

impl fmt::Debug for IdentityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A certificate that chains to its MSP's roots. Whether it is also *valid* there (issuer, revocation, organizational units)
/// is asked with [`Identity::validate`], once, and remembered: an MSP never changes.
pub struct Identity {
    holder: Arc<Holder>,
    serialized: Bytes,
}

/// What all serialised forms of one certificate share under its MSP: the parsed certificate with its key, the verdict and the
/// roles, each found once.
pub(crate) struct Holder {
    msp: Arc<Msp>,
    certificate: Arc<Certificate>,
    units: Vec<String>,
    id: IdentityId,
    validity: OnceLock<Result<Validity, IdentityError>>,
    /// A bit per role, in the order of [`Role::ALL`].
    roles: OnceLock<u8>,
}

impl Holder {
    pub(crate) fn new(msp: Arc<Msp>, certificate: Arc<Certificate>) -> Self {
        let id = IdentityId { msp: msp.id().clone(), certificate_hash: msp.hash(&certificate) };
        let units = certificate.organizational_units();
        Self { msp, certificate, units, id, validity: OnceLock::new(), roles: OnceLock::new() }
    }

    pub(crate) fn id(&self) -> &IdentityId {
        &self.id
    }
}

impl Identity {
    pub(crate) fn new(holder: Arc<Holder>, serialized: Bytes) -> Self {
        Self { holder, serialized }
    }

    pub(crate) fn msp(&self) -> &Arc<Msp> {
        &self.holder.msp
    }

    /// The MSP it claims and chains to.
    #[must_use]
    pub fn msp_id(&self) -> &MspId {
        &self.holder.id.msp
    }

    /// Its certificate, low-S repaired.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.holder.certificate
    }

    /// What tells it apart.
    #[must_use]
    pub fn id(&self) -> &IdentityId {
        &self.holder.id
    }

    /// The `SerializedIdentity` that it was read from, as received.
    #[must_use]
    pub fn serialized(&self) -> &Bytes {
        &self.serialized
    }

    /// The organizational units of its subject, in certificate order.
    #[must_use]
    pub fn organizational_units(&self) -> &[String] {
        &self.holder.units
    }

    /// Common name of the subject, for people.
    #[must_use]
    pub fn name(&self) -> &str {
        self.holder.certificate.subject_common_name().unwrap_or_default()
    }

    /// When the certificate ends. Validation never looks at it (a committed signature stays good); doors do: broadcast, deliver,
    /// gateway and a node's own start.
    #[must_use]
    pub fn expires_at(&self) -> OffsetDateTime {
        self.holder.certificate.not_after()
    }

    /// Checks a signature over `message` by this identity's key (see [`consort_crypto::key::PublicKey::verify_remembered`]).
    ///
    /// # Errors
    /// When the signature is empty, malformed, high-S or of another key or message.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), IdentityError> {
        self.begin_check(message, signature).verdict().map_err(|_| IdentityError::Signature)
    }

    /// Begins what [`Identity::verify`] does, so that it can be calculated together with others.
    #[must_use]
    pub fn begin_check(&self, message: &[u8], signature: &[u8]) -> SignatureCheck {
        self.holder.certificate.public_key().begin_remembered_check(message, signature)
    }

    /// Whether it is valid under its MSP: single chain, issued by a leaf of the authorities' tree, not revoked, organizational
    /// units as the MSP demands. The wall clock plays no part (Fabric `msp/mspimplvalidate.go`).
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn validate(&self) -> Result<(), IdentityError> {
        self.validity().map(|_| ())
    }

    /// What a door asks: valid, and not past its end. What was committed is judged by [`Identity::validate`] alone.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn admit(&self, now: OffsetDateTime) -> Result<(), IdentityError> {
        self.validate()?;
        crate::msp::check_expiry(&self.holder.certificate, now)
    }

    fn validity(&self) -> Result<&Validity, IdentityError> {
        let holder = &self.holder;
        holder
            .validity
            .get_or_init(|| holder.msp.validate(&holder.certificate))
            .as_ref()
            .map_err(Clone::clone)
    }

    /// Hash over the certificates above it, issuer first: what binds an organizational unit to its issuer.
    ///
    /// # Errors
    /// When the identity is not valid.
    pub fn certifiers_identifier(&self) -> Result<[u8; 32], IdentityError> {
        self.validity().map(|validity| validity.certifiers)
    }

    /// The roles that it has under its MSP; none if it is not valid and not a listed admin.
    #[must_use]
    pub fn roles(&self) -> Vec<Role> {
        Role::ALL.into_iter().filter(|role| self.has_role(*role)).collect()
    }

    /// Whether it has a role under its MSP; found out once.
    #[must_use]
    pub fn has_role(&self, role: Role) -> bool {
        let roles = self.holder.roles.get_or_init(|| {
            let satisfied = Role::ALL.map(|role| crate::principal::check_role(self, role).is_ok());
            satisfied.into_iter().enumerate().fold(0, |roles, (bit, has)| roles | (u8::from(has) << bit))
        });
        roles & (1 << role as u8) != 0
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({} {})", self.name(), self.id())
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.msp_id())
    }
}

/// The `SerializedIdentity` bytes of a certificate under an MSP, as all nodes and clients write it.
#[must_use]
pub fn serialize(msp_id: &MspId, certificate: &Certificate) -> Bytes {
    let message = SerializedIdentity {
        mspid: msp_id.as_str().to_owned(),
        id_bytes: Bytes::from(certificate.pem().into_bytes()),
        ..SerializedIdentity::default()
    };
    message.encode_to_vec().into()
}
