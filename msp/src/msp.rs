//! One organisation's membership provider: who belongs to it, and as what.
//!
//! Source of the rules and of most texts: Fabric `msp/mspimplsetup.go` and `msp/mspimplvalidate.go` (X.509 provider).

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    sync::Arc,
};

use bytes::Bytes;
use consort_crypto::{certificate::Certificate, hash, key::PublicKey, revocation::RevocationList};
use consort_protos::{
    fabric::msp::{FabricMspConfig, MspConfig, SerializedIdentity},
    ids::MspId,
};
use prost::Message;

use crate::{
    CertificatePool, Identity, IdentityError, MspError, Role,
    chain::{self, Chain},
    organizational_unit::{self, NodeUnits},
    revocation,
};

/// Which rules apply; chosen by the channel's capabilities. A node's own MSP always has the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MspVersion {
    /// No organizational-unit roles.
    V1_0,
    /// Roles client and peer, both mandatory under NodeOUs.
    V1_1,
    /// Also anonymity and combined principals.
    V1_3,
    /// Roles client, peer, admin and orderer, each optional.
    V1_4_3,
    /// As 1.4.3, with Ed25519 keys allowed.
    V3_0,
}

/// What validation found out about an identity.
#[derive(Debug, Clone)]
pub(crate) struct Validity {
    /// SHA-256 over the certificates above it, issuer first.
    pub(crate) certifiers: [u8; 32],
}

/// A membership provider, set up and immutable.
pub struct Msp {
    id: MspId,
    version: MspVersion,
    authorities: CertificatePool,
    /// Fingerprints of authorities that have a child authority: these may not issue identities.
    internal: HashSet<[u8; 32]>,
    revocations: Vec<RevocationList>,
    /// Fingerprints of the listed administrators.
    admins: HashSet<[u8; 32]>,
    /// Allowed organizational units with the certifiers that must stand behind them; empty allows all.
    units: BTreeMap<String, Vec<[u8; 32]>>,
    node_units: Option<NodeUnits>,
    config: FabricMspConfig,
}

impl Msp {
    /// Sets a provider up.
    ///
    /// # Errors
    /// [`MspError`] with the first rule that the configuration breaks. Expired authorities are no error.
    pub fn new(config: &FabricMspConfig, version: MspVersion) -> Result<Self, MspError> {
        let id = MspId::parse(&config.name)
            .map_err(|error| MspError::InvalidId { id: config.name.clone(), reason: error.to_string() })?;
        check_hashes(config)?;
        if config.root_certs.is_empty() {
            return Err(MspError::NoRoots);
        }
        let authorities = authorities(&config.root_certs, &config.intermediate_certs)?;
        let mut revocations = Vec::with_capacity(config.revocation_list.len());
        for list in &config.revocation_list {
            revocations.push(
                RevocationList::from_pem_or_der(list)
                    .map_err(|error| MspError::RevocationList(error.to_string()))?,
            );
        }
        let internal = check_authorities(&authorities, &revocations)?;
        check_tls_authorities(config)?;
        let units = organizational_unit::allowed(config, &authorities)?;
        let node_units = organizational_unit::node_units(config, version, &authorities)?;
        let mut msp = Self {
            id,
            version,
            authorities,
            internal,
            revocations,
            admins: HashSet::new(),
            units,
            node_units,
            config: config.clone(),
        };
        msp.set_up_admins()?;
        Ok(msp)
    }

    /// Sets a provider up from the value that a channel configuration holds.
    ///
    /// # Errors
    /// As [`Msp::new`]; also when the bytes do not parse or the type is not X.509.
    pub fn from_proto(config: &MspConfig, version: MspVersion) -> Result<Self, MspError> {
        if config.r#type != 0 {
            return Err(MspError::UnsupportedType(config.r#type));
        }
        let config = FabricMspConfig::decode(config.config.as_ref())
            .map_err(|error| MspError::Malformed(error.to_string()))?;
        Self::new(&config, version)
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &MspId {
        &self.id
    }

    /// The rules it follows.
    #[must_use]
    pub fn version(&self) -> MspVersion {
        self.version
    }

    /// The configuration that it was made from.
    #[must_use]
    pub fn config(&self) -> &FabricMspConfig {
        &self.config
    }

    /// TLS root certificates in PEM, as configured.
    #[must_use]
    pub fn tls_roots(&self) -> &[Bytes] {
        &self.config.tls_root_certs
    }

    /// TLS intermediate certificates in PEM, as configured.
    #[must_use]
    pub fn tls_intermediates(&self) -> &[Bytes] {
        &self.config.tls_intermediate_certs
    }

    pub(crate) fn node_units(&self) -> Option<&NodeUnits> {
        self.node_units.as_ref()
    }

    pub(crate) fn is_listed_admin(&self, certificate: &Certificate) -> bool {
        self.admins.contains(&certificate.fingerprint())
    }

    /// Reads a certificate that claims to belong here: it must parse and chain to the roots.
    pub(crate) fn read_certificate(&self, pem: &[u8]) -> Result<Arc<Certificate>, IdentityError> {
        let certificate =
            Certificate::from_pem(pem).map_err(|error| IdentityError::Certificate(error.to_string()))?;
        let certificate = Arc::new(certificate);
        if is_self_signed_authority(&certificate) && self.authorities.is_root(&certificate) {
            return Ok(certificate);
        }
        let chains = self.authorities.chains(&certificate, chain::Usage::Server)?;
        match chains.len() {
            1 if chains[0].len() < 2 => Err(IdentityError::Invalid(untraversable(&certificate))),
            1 => Ok(certificate),
            count => Err(crate::ChainError::SeveralChains(count).into()),
        }
    }

    /// Judges a certificate (read with [`Msp::read_certificate`]) by all rules of membership.
    pub(crate) fn validate(&self, certificate: &Arc<Certificate>) -> Result<Validity, IdentityError> {
        self.check_key(certificate)?;
        let chain = self.identity_chain(certificate)?;
        let Some(issuer) = chain.get(1) else {
            return Err(IdentityError::Invalid(untraversable(certificate)));
        };
        revocation::check(&self.revocations, certificate, issuer)?;
        let certifiers = hash_chain(&chain[1..]);
        let units = certificate.organizational_units();
        organizational_unit::check_allowed(&self.units, &units, &certifiers, &self.id)?;
        if let Some(node_units) = &self.node_units {
            node_units.check(&units, &certifiers, &self.id)?;
        }
        Ok(Validity { certifiers })
    }

    fn check_key(&self, certificate: &Certificate) -> Result<(), IdentityError> {
        let key = certificate.public_key();
        match key {
            PublicKey::P256(_) | PublicKey::P384(_) => Ok(()),
            PublicKey::Ed25519(_) if self.version >= MspVersion::V3_0 => Ok(()),
            _ => Err(IdentityError::Invalid(format!(
                "could not validate identity's public key algorithm: {} is not supported",
                key.algorithm()
            ))),
        }
    }

    fn identity_chain(&self, certificate: &Arc<Certificate>) -> Result<Chain, IdentityError> {
        const PREFIX: &str = "could not obtain certification chain: ";
        let invalid = |text: &str| IdentityError::Invalid(format!("{PREFIX}{text}"));
        if certificate.is_ca() {
            return Err(invalid(
                "An X509 certificate with Basic Constraint: Certificate Authority equals true cannot be used as an identity",
            ));
        }
        let chain = self.authorities.only_chain(certificate).map_err(|error| {
            invalid(&format!("failed getting validation chain: the supplied identity is not valid: {error}"))
        })?;
        if chain.get(1).is_some_and(|issuer| self.internal.contains(&issuer.fingerprint())) {
            return Err(invalid(
                "invalid validation chain. Parent certificate should be a leaf of the certification tree",
            ));
        }
        Ok(chain)
    }

    /// Administrators: listed ones must belong here; none listed is fine only when a unit makes administrators.
    fn set_up_admins(&mut self) -> Result<(), MspError> {
        let mut certificates = Vec::with_capacity(self.config.admins.len());
        for (index, pem) in self.config.admins.iter().enumerate() {
            let certificate = self
                .read_certificate(pem)
                .map_err(|error| MspError::Administrator { index, reason: error.to_string() })?;
            certificates.push(certificate);
        }
        let by_unit = match (&self.node_units, self.version) {
            (Some(units), MspVersion::V1_4_3 | MspVersion::V3_0) => units.of(Role::Admin).is_some(),
            (_, MspVersion::V1_4_3 | MspVersion::V3_0) => false,
            _ => true,
        };
        if certificates.is_empty() && !by_unit {
            return Err(MspError::NoAdministrators);
        }
        for (index, certificate) in certificates.iter().enumerate() {
            self.check_admin(certificate).map_err(|reason| MspError::Administrator { index, reason })?;
            self.admins.insert(certificate.fingerprint());
        }
        Ok(())
    }

    fn check_admin(&self, certificate: &Arc<Certificate>) -> Result<(), String> {
        let valid = || {
            self.validate(certificate)
                .map(|_| ())
                .map_err(|error| format!("The identity is not valid under this MSP [{}]: {error}", self.id))
        };
        let Some(units) = &self.node_units else { return valid() };
        let carried = certificate.organizational_units();
        let carries = |role: Role| units.of(role).is_some_and(|unit| carried.contains(&unit.name));
        if self.version < MspVersion::V1_4_3 {
            valid()?;
            return if carries(Role::Client) {
                Ok(())
            } else {
                Err(format!("The identity does not contain OU [CLIENT], MSP: [{}]", self.id))
            };
        }
        if carries(Role::Client) || carries(Role::Admin) {
            return Ok(());
        }
        let missing = |name: &str| format!("The identity does not contain OU [{name}], MSP: [{}]", self.id);
        Err(format!("[{},{}]", missing("CLIENT"), missing("ADMIN")))
    }
}

impl fmt::Debug for Msp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Msp({} {:?})", self.id, self.version)
    }
}

/// Makes an identity of a certificate that a message carries.
pub(crate) fn identity(
    msp: &Arc<Msp>,
    message: &SerializedIdentity,
    serialized: Bytes,
) -> Result<Identity, IdentityError> {
    if message.mspid != msp.id.as_str() {
        return Err(IdentityError::Invalid(format!(
            "expected MSP ID {}, received {}",
            msp.id, message.mspid
        )));
    }
    let certificate = msp.read_certificate(&message.id_bytes)?;
    Ok(Identity::new(Arc::clone(msp), certificate, serialized))
}

fn check_hashes(config: &FabricMspConfig) -> Result<(), MspError> {
    let Some(crypto) = &config.crypto_config else { return Ok(()) };
    let check = |setting, name: &str, supported: &'static str| {
        if name.is_empty() || name == supported {
            return Ok(());
        }
        Err(MspError::UnsupportedHash { msp: config.name.clone(), setting, name: name.to_owned(), supported })
    };
    check("signature_hash_family", &crypto.signature_hash_family, "SHA2")?;
    check("identity_identifier_hash_function", &crypto.identity_identifier_hash_function, "SHA256")
}

pub(crate) fn parse_certificate(pem: &[u8]) -> Result<Arc<Certificate>, MspError> {
    Certificate::from_pem(pem).map(Arc::new).map_err(|error| MspError::Certificate(error.to_string()))
}

/// An authority whose own key signed it.
fn is_self_signed_authority(certificate: &Certificate) -> bool {
    certificate.is_ca()
        && chain::may_sign_certificates(certificate)
        && certificate.issuer_bytes() == certificate.subject_bytes()
        && certificate.verify_issued_by(certificate).is_ok()
}

fn untraversable(certificate: &Certificate) -> String {
    let name = certificate.subject_common_name().unwrap_or_default().to_owned();
    format!(
        "failed to traverse certificate verification chain for leaf or intermediate certificate, with subject CN={name}"
    )
}

fn authorities(roots: &[Bytes], intermediates: &[Bytes]) -> Result<CertificatePool, MspError> {
    let parse = |list: &[Bytes]| list.iter().map(|pem| parse_certificate(pem)).collect::<Result<Vec<_>, _>>();
    let pool = CertificatePool::new(parse(roots)?, parse(intermediates)?);
    for root in pool.roots() {
        if !is_self_signed_authority(root) {
            return Err(MspError::Authority(untraversable(root)));
        }
    }
    for authority in pool.roots().iter().chain(pool.intermediates()) {
        if authority.has_name_constraints() {
            return Err(MspError::Authority(format!(
                "CA Certificate restricts names (name constraints), which is not supported, (SN: {})",
                authority.serial_hex()
            )));
        }
    }
    Ok(pool)
}

/// The rules for authorities; answers which of them have authorities below.
fn check_authorities(
    pool: &CertificatePool,
    revocations: &[RevocationList],
) -> Result<HashSet<[u8; 32]>, MspError> {
    let mut internal = HashSet::new();
    for authority in pool.roots().iter().chain(pool.intermediates()) {
        let serial = authority.serial_hex();
        let fail = |text: String| MspError::Authority(text);
        if !authority.is_ca() {
            return Err(fail(format!("CA Certificate did not have the CA attribute, (SN: {serial})")));
        }
        if authority.subject_key_id().is_none() {
            return Err(fail(format!(
                "CA Certificate problem with Subject Key Identifier extension, (SN: {serial}): subjectKeyIdentifier not found in certificate"
            )));
        }
        let invalid = |reason: String| fail(format!("CA Certificate is not valid, (SN: {serial}): {reason}"));
        let chain = pool
            .only_chain(authority)
            .map_err(|error| invalid(format!("the supplied identity is not valid: {error}")))?;
        if let Some(issuer) = chain.get(1) {
            revocation::check(revocations, authority, issuer).map_err(|error| invalid(error.to_string()))?;
        }
        internal.extend(chain.iter().skip(1).map(|above| above.fingerprint()));
    }
    Ok(internal)
}

fn check_tls_authorities(config: &FabricMspConfig) -> Result<(), MspError> {
    let parse = |list: &[Bytes]| list.iter().map(|pem| parse_certificate(pem)).collect::<Result<Vec<_>, _>>();
    let pool = CertificatePool::new(parse(&config.tls_root_certs)?, parse(&config.tls_intermediate_certs)?);
    check_authorities(&pool, &[]).map(|_| ())
}

/// SHA-256 over the DER of the certificates, in order.
pub(crate) fn hash_chain(chain: &[Arc<Certificate>]) -> [u8; 32] {
    let parts: Vec<&[u8]> = chain.iter().map(|certificate| certificate.der().as_ref()).collect();
    hash::sha256_parts(&parts)
}
