//! One organisation's membership provider: who belongs to it, and as what.
//!
//! Source of the rules and of most texts: Fabric `msp/mspimplsetup.go` and `msp/mspimplvalidate.go` (X.509 provider).

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    sync::Arc,
};

use bytes::Bytes;
use consort_crypto::{
    certificate::Certificate, hash::HashAlgorithm, key::KeyAlgorithm, revocation::RevocationList,
};
use consort_protos::{
    fabric::msp::{FabricMspConfig, MspConfig},
    ids::MspId,
};
use prost::Message;
use time::OffsetDateTime;

use crate::{
    CertificatePool, IdentityError, MspError, Role,
    algorithms::Algorithms,
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
    /// Hash over the certificates above it, issuer first.
    pub(crate) certifiers: [u8; 32],
}

/// A membership provider, set up and immutable.
pub struct Msp {
    id: MspId,
    version: MspVersion,
    algorithms: Algorithms,
    authorities: CertificatePool,
    tls_authorities: CertificatePool,
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
        let algorithms = Algorithms::read(config, version)?;
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
        authorities
            .roots()
            .iter()
            .chain(authorities.intermediates())
            .try_for_each(|authority| algorithms.check_authority(authority))?;
        let internal = check_authorities(&authorities, &revocations, algorithms.hash)?;
        let tls_authorities = tls_authorities(config)?;
        check_authorities(&tls_authorities, &[], algorithms.hash)?;
        let units = organizational_unit::allowed(config, &authorities, algorithms.hash)?;
        let node_units = organizational_unit::node_units(config, version, &authorities, algorithms.hash)?;
        let mut msp = Self {
            id,
            version,
            algorithms,
            authorities,
            tls_authorities,
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

    /// The algorithms that keys of its members may have.
    pub fn key_algorithms(&self) -> impl Iterator<Item = KeyAlgorithm> {
        self.algorithms.keys().iter().copied()
    }

    /// The hash that tells its identities and certifiers apart.
    #[must_use]
    pub fn hash_algorithm(&self) -> HashAlgorithm {
        self.algorithms.hash
    }

    /// Its lists of revoked certificates, in PEM or DER, as configured.
    #[must_use]
    pub fn revocation_lists(&self) -> &[Bytes] {
        &self.config.revocation_list
    }

    /// Judges a TLS certificate at a door, by the rules that hold for signing identities there: it chains to the TLS authorities,
    /// no list of this MSP revokes it, and it has not ended.
    ///
    /// # Errors
    /// The rule that it breaks; [`IdentityError::Chain`] when it is of other authorities.
    pub fn admit_tls(
        &self,
        certificate: &Arc<Certificate>,
        now: OffsetDateTime,
    ) -> Result<(), IdentityError> {
        let chains = self.tls_authorities.chains(certificate, chain::Usage::ClientOrServer)?;
        for chain in chains.iter().filter(|_| !self.revocations.is_empty()) {
            if let Some(issuer) = chain.get(1) {
                revocation::check(&self.revocations, certificate, issuer)?;
            }
        }
        check_expiry(certificate, now)
    }

    pub(crate) fn node_units(&self) -> Option<&NodeUnits> {
        self.node_units.as_ref()
    }

    pub(crate) fn is_listed_admin(&self, certificate: &Certificate) -> bool {
        self.admins.contains(&self.hash(certificate))
    }

    /// Reads a certificate that claims to belong here: it must parse and chain to the roots.
    pub(crate) fn read_certificate(&self, pem: &[u8]) -> Result<Arc<Certificate>, IdentityError> {
        let certificate = open_certificate(pem)?;
        self.check_chain(&certificate)?;
        Ok(certificate)
    }

    /// A certificate that claims to belong here must chain to the roots.
    pub(crate) fn check_chain(&self, certificate: &Arc<Certificate>) -> Result<(), IdentityError> {
        if self.authorities.is_root(certificate) && is_self_signed_authority(certificate) {
            return Ok(());
        }
        let chains = self.authorities.chains(certificate, chain::Usage::Server)?;
        match chains.len() {
            1 if chains[0].len() < 2 => Err(IdentityError::Invalid(untraversable(certificate))),
            1 => Ok(()),
            count => Err(crate::ChainError::SeveralChains(count).into()),
        }
    }

    /// Judges a certificate (read with [`Msp::read_certificate`]) by all rules of membership.
    pub(crate) fn validate(&self, certificate: &Arc<Certificate>) -> Result<Validity, IdentityError> {
        self.algorithms.check_member(certificate.public_key())?;
        let chain = self.identity_chain(certificate)?;
        let Some(issuer) = chain.get(1) else {
            return Err(IdentityError::Invalid(untraversable(certificate)));
        };
        revocation::check(&self.revocations, certificate, issuer)?;
        let certifiers = hash_chain(self.algorithms.hash, &chain[1..]);
        let units = certificate.organizational_units();
        organizational_unit::check_allowed(&self.units, &units, &certifiers, &self.id)?;
        if let Some(node_units) = &self.node_units {
            node_units.check(&units, &certifiers, &self.id)?;
        }
        Ok(Validity { certifiers })
    }

    /// Hash of a certificate's DER: what identities and listed certificates are compared by.
    pub(crate) fn hash(&self, certificate: &Certificate) -> [u8; 32] {
        self.algorithms.hash.hash(certificate.der())
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
        if chain.get(1).is_some_and(|issuer| self.internal.contains(&self.hash(issuer))) {
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
            self.admins.insert(self.algorithms.hash.hash(certificate.der()));
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

/// Reads the certificate of an identity, without judging it.
pub(crate) fn open_certificate(pem: &[u8]) -> Result<Arc<Certificate>, IdentityError> {
    Certificate::from_pem(pem).map(Arc::new).map_err(|error| IdentityError::Certificate(error.to_string()))
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
    hash: HashAlgorithm,
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
        internal.extend(chain.iter().skip(1).map(|above| hash.hash(above.der())));
    }
    Ok(internal)
}

fn tls_authorities(config: &FabricMspConfig) -> Result<CertificatePool, MspError> {
    let parse = |list: &[Bytes]| list.iter().map(|pem| parse_certificate(pem)).collect::<Result<Vec<_>, _>>();
    Ok(CertificatePool::new(parse(&config.tls_root_certs)?, parse(&config.tls_intermediate_certs)?))
}

/// Asked at the doors only.
pub(crate) fn check_expiry(certificate: &Certificate, now: OffsetDateTime) -> Result<(), IdentityError> {
    if certificate.not_after() > now {
        return Ok(());
    }
    let name = certificate.subject_common_name().unwrap_or_default().to_owned();
    Err(IdentityError::Expired { name, at: certificate.not_after() })
}

/// Hash over the DER of the certificates, in order.
pub(crate) fn hash_chain(hash: HashAlgorithm, chain: &[Arc<Certificate>]) -> [u8; 32] {
    let parts: Vec<&[u8]> = chain.iter().map(|certificate| certificate.der().as_ref()).collect();
    hash.hash_parts(&parts)
}
