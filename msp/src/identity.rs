//! An identity: a certificate under its MSP.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use consort_crypto::certificate::Certificate;
use consort_protos::{fabric::msp::SerializedIdentity, ids::MspId};
use prost::Message;
use time::OffsetDateTime;

use crate::{IdentityError, Msp, Role, msp::Validity};

/// What tells identities apart: the MSP and the SHA-256 of the certificate's DER after low-S repair. Two serialised forms of
/// one certificate have the same id, so that they count once.
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

    /// SHA-256 of the certificate's DER.
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
    msp: Arc<Msp>,
    certificate: Arc<Certificate>,
    units: Vec<String>,
    id: IdentityId,
    serialized: Bytes,
    validity: OnceLock<Result<Validity, IdentityError>>,
}

impl Identity {
    pub(crate) fn new(msp: Arc<Msp>, certificate: Arc<Certificate>, serialized: Bytes) -> Self {
        let id = IdentityId { msp: msp.id().clone(), certificate_hash: certificate.fingerprint() };
        let units = certificate.organizational_units();
        Self { msp, certificate, units, id, serialized, validity: OnceLock::new() }
    }

    pub(crate) fn msp(&self) -> &Arc<Msp> {
        &self.msp
    }

    /// The MSP it claims and chains to.
    #[must_use]
    pub fn msp_id(&self) -> &MspId {
        &self.id.msp
    }

    /// Its certificate, low-S repaired.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// What tells it apart.
    #[must_use]
    pub fn id(&self) -> &IdentityId {
        &self.id
    }

    /// The `SerializedIdentity` that it was read from, as received.
    #[must_use]
    pub fn serialized(&self) -> &Bytes {
        &self.serialized
    }

    /// The organizational units of its subject, in certificate order.
    #[must_use]
    pub fn organizational_units(&self) -> &[String] {
        &self.units
    }

    /// Common name of the subject, for people.
    #[must_use]
    pub fn name(&self) -> &str {
        self.certificate.subject_common_name().unwrap_or_default()
    }

    /// When the certificate ends. Validation never looks at it (a committed signature stays good); doors do: broadcast, deliver,
    /// gateway and a node's own start.
    #[must_use]
    pub fn expires_at(&self) -> OffsetDateTime {
        self.certificate.not_after()
    }

    /// Checks a signature over `message` by this identity's key (SHA-256, ECDSA with low S).
    ///
    /// # Errors
    /// When the signature is empty, malformed, high-S or of another key or message.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), IdentityError> {
        self.certificate.public_key().verify(message, signature).map_err(|_| IdentityError::Signature)
    }

    /// Whether it is valid under its MSP: single chain, issued by a leaf of the authorities' tree, not revoked, organizational
    /// units as the MSP demands. The wall clock plays no part (Fabric `msp/mspimplvalidate.go`).
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn validate(&self) -> Result<(), IdentityError> {
        self.validity().map(|_| ())
    }

    fn validity(&self) -> Result<&Validity, IdentityError> {
        self.validity.get_or_init(|| self.msp.validate(&self.certificate)).as_ref().map_err(Clone::clone)
    }

    /// SHA-256 over the certificates above it, issuer first: what binds an organizational unit to its issuer.
    ///
    /// # Errors
    /// When the identity is not valid.
    pub fn certifiers_identifier(&self) -> Result<[u8; 32], IdentityError> {
        self.validity().map(|validity| validity.certifiers)
    }

    /// The roles that it has under its MSP; none if it is not valid and not a listed admin.
    #[must_use]
    pub fn roles(&self) -> Vec<Role> {
        let satisfied = |role: &Role| {
            crate::principal::satisfies(self, &crate::principal::role(self.msp_id().as_str(), *role)).is_ok()
        };
        [Role::Member, Role::Admin, Role::Client, Role::Peer, Role::Orderer]
            .into_iter()
            .filter(satisfied)
            .collect()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({} {})", self.name(), self.id)
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
    };
    message.encode_to_vec().into()
}
