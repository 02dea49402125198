//! Organisations with keys and certificates.

use std::sync::Arc;

use bytes::Bytes;
use consort_crypto::bls;
use consort_crypto::key::PrivateKey;
use consort_msp::SigningIdentity;
use consort_protos::ids::MspId;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SerialNumber,
};

/// The extension of [`bls::EXTENSION_OID`].
const BLS_EXTENSION: [u64; 9] = [1, 2, 3, 4, 5, 6, 7, 8, 1000];

/// One organisation with an identity of each kind that tests need.
pub(crate) struct Organisation {
    pub(crate) msp_id: MspId,
    pub(crate) root_pem: String,
    pub(crate) peer: Arc<SigningIdentity>,
    pub(crate) client: Arc<SigningIdentity>,
    pub(crate) orderer: Arc<SigningIdentity>,
    authority: Issuer<'static, KeyPair>,
}

/// Key and certificate of a TLS server or client.
pub(crate) struct TlsPair {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Organisation {
    pub(crate) fn new(msp_id: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("ca.{msp_id}"));
        params.distinguished_name.push(DnType::OrganizationName, msp_id);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().expect("a key");
        let root_pem = params.self_signed(&key).expect("a root").pem();
        let authority = Issuer::new(params, key);
        let msp_id = MspId::parse(msp_id).expect("an MSP id");
        let identity = |role: &str| issue(&authority, &msp_id, role, role);
        Self {
            peer: identity("peer"),
            client: identity("client"),
            orderer: identity("orderer"),
            root_pem,
            authority,
            msp_id,
        }
    }

    /// Another identity of this organisation.
    pub(crate) fn identity(&self, role: &str) -> Arc<SigningIdentity> {
        issue(&self.authority, &self.msp_id, role, role)
    }

    /// An identity with a name of its own.
    pub(crate) fn member(&self, role: &str, name: &str) -> Arc<SigningIdentity> {
        issue(&self.authority, &self.msp_id, role, name)
    }

    /// A client whose certificate counts from a year on.
    pub(crate) fn client_from(&self, year: i32) -> Arc<SigningIdentity> {
        let key = KeyPair::generate().expect("a key");
        let mut params = params(&self.msp_id, "client", "client");
        params.not_before = rcgen::date_time_ymd(year, 1, 1);
        let cert = params.signed_by(&key, &self.authority).expect("a certificate").pem();
        let key = PrivateKey::from_pem(&key.serialize_pem()).expect("a P-256 key");
        Arc::new(SigningIdentity::new(self.msp_id.clone(), cert.as_bytes(), key).expect("an identity"))
    }

    /// A peer of this organisation whose certificate carries a BLS key.
    pub(crate) fn attesting_peer(&self) -> Arc<SigningIdentity> {
        let secret = bls::SecretKey::generate().expect("a key");
        let key = KeyPair::generate().expect("a key");
        let holder = PrivateKey::from_pem(&key.serialize_pem()).expect("a P-256 key");
        let certified = bls::CertifiedKey::prove(&secret, self.msp_id.as_str(), holder.public_key());
        let extension = CustomExtension::from_oid_content(&BLS_EXTENSION, certified.to_der());
        let mut params = params(&self.msp_id, "peer", "peer");
        params.custom_extensions.push(extension);
        let cert = params.signed_by(&key, &self.authority).expect("a certificate").pem();
        let identity =
            SigningIdentity::new(self.msp_id.clone(), cert.as_bytes(), holder).expect("an identity");
        Arc::new(identity.with_bls_keys(vec![secret]))
    }

    /// A list on which this organisation's authority revokes an identity, in PEM.
    pub(crate) fn revocation(&self, identity: &SigningIdentity) -> Bytes {
        let begin = time::macros::datetime!(2020-01-01 00:00 UTC);
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from_slice(identity.certificate().serial()),
            revocation_time: begin,
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: begin,
            next_update: begin + time::Duration::days(1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.authority).expect("a list").pem().expect("PEM").into_bytes().into()
    }

    /// Writes the MSP folder of a peer, with roles by organisational unit.
    pub(crate) fn write_msp(&self, folder: &std::path::Path) {
        let (cert, key) = certify(&self.authority, &self.msp_id, "peer", "peer");
        let unit = |role: &str| {
            format!(
                "  {role}OUIdentifier:\n    Certificate: cacerts/ca.pem\n    OrganizationalUnitIdentifier: {}\n",
                role.to_lowercase()
            )
        };
        let units: String = ["Client", "Peer", "Admin", "Orderer"].map(unit).concat();
        let files = [
            ("signcerts/cert.pem", cert),
            ("keystore/key.pem", key),
            ("cacerts/ca.pem", self.root_pem.clone()),
            ("tlscacerts/ca.pem", self.root_pem.clone()),
            ("config.yaml", format!("NodeOUs:\n  Enable: true\n{units}")),
        ];
        for (name, content) in files {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, content).expect("written");
        }
    }

    /// A TLS certificate for a host name.
    pub(crate) fn tls(&self, host: &str) -> TlsPair {
        let mut params = CertificateParams::new(vec![host.to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, host);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.authority).expect("a certificate").pem();
        TlsPair { cert, key: key.serialize_pem() }
    }
}

fn issue(
    authority: &Issuer<'static, KeyPair>,
    msp_id: &MspId,
    role: &str,
    name: &str,
) -> Arc<SigningIdentity> {
    let (cert, key) = certify(authority, msp_id, role, name);
    let key = PrivateKey::from_pem(&key).expect("a P-256 key");
    Arc::new(SigningIdentity::new(msp_id.clone(), cert.as_bytes(), key).expect("an identity"))
}

/// Certificate and key of a new identity, in PEM.
fn certify(authority: &Issuer<'static, KeyPair>, msp_id: &MspId, role: &str, name: &str) -> (String, String) {
    let key = KeyPair::generate().expect("a key");
    let cert = params(msp_id, role, name).signed_by(&key, authority).expect("a certificate").pem();
    (cert, key.serialize_pem())
}

/// What a member's certificate says.
fn params(msp_id: &MspId, role: &str, name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::OrganizationalUnitName, role);
    params.distinguished_name.push(DnType::CommonName, format!("{name}.{msp_id}"));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params
}
