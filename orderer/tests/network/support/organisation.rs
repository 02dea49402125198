//! An organisation whose certificates are made here.

use std::path::Path;

use bytes::Bytes;
use consort_channel_config::profile::OrganisationProfile;
use consort_crypto::{
    certificate::{Certificate, SubjectAlternativeName},
    issue::{CertificateAuthority, Template, Validity},
    key::{PrivateKey, PublicKey},
    name::{DistinguishedName, NamePart},
    revocation::RevokedCertificate,
};
use consort_msp::SigningIdentity;
use consort_node::{Clock as _, SystemClock};
use consort_protos::{
    fabric::msp::{FabricMspConfig, FabricNodeOUs},
    ids::MspId,
};
use time::OffsetDateTime;

use super::write;

pub(crate) fn now() -> OffsetDateTime {
    SystemClock.now()
}

pub(super) fn validity() -> Validity {
    Validity { not_before: now() - time::Duration::hours(1), not_after: now() + time::Duration::days(30) }
}

/// An organisation: its two authorities.
pub(crate) struct Organisation {
    pub(crate) msp_id: MspId,
    pub(super) ca: CertificateAuthority,
    pub(crate) tls_ca: CertificateAuthority,
}

impl Organisation {
    pub(crate) fn new(msp_id: &str) -> Self {
        let root = |name: String| {
            let key = PrivateKey::generate_p256().unwrap();
            CertificateAuthority::new_root(&DistinguishedName::common_name(&name), key, validity()).unwrap()
        };
        Self {
            msp_id: MspId::parse(msp_id).unwrap(),
            ca: root(format!("ca.{msp_id}")),
            tls_ca: root(format!("tlsca.{msp_id}")),
        }
    }

    /// An identity with an organisational unit (`client`, `admin`, `orderer`).
    pub(crate) fn identity(&self, unit: &str) -> SigningIdentity {
        self.identity_until(unit, validity().not_after)
    }

    pub(crate) fn identity_until(&self, unit: &str, not_after: OffsetDateTime) -> SigningIdentity {
        let (certificate, key) = self.enrol(unit, not_after);
        SigningIdentity::new(self.msp_id.clone(), certificate.pem().as_bytes(), key).unwrap()
    }

    pub(super) fn enrol(&self, unit: &str, not_after: OffsetDateTime) -> (Certificate, PrivateKey) {
        let mut subject = DistinguishedName::new();
        subject.push(NamePart::OrganizationalUnit, unit);
        let subject = subject.with(NamePart::CommonName, &format!("{unit}.{}", self.msp_id));
        let key = PrivateKey::generate_p256().unwrap();
        let validity = Validity { not_after, ..validity() };
        let certificate = self.ca.issue(&Template::identity(subject, validity), key.public_key()).unwrap();
        (certificate, key)
    }

    pub(super) fn tls(&self, host: &str) -> (Certificate, PrivateKey) {
        self.tls_until(host, validity().not_after)
    }

    pub(super) fn tls_until(&self, host: &str, not_after: OffsetDateTime) -> (Certificate, PrivateKey) {
        let key = PrivateKey::generate_p256().unwrap();
        (self.tls_for(host, key.public_key(), not_after), key)
    }

    pub(super) fn tls_for(&self, host: &str, key: &PublicKey, not_after: OffsetDateTime) -> Certificate {
        let sans = vec![SubjectAlternativeName::from_text(host)];
        let validity = Validity { not_after, ..validity() };
        let template = Template::tls(DistinguishedName::common_name(host), validity, sans);
        self.tls_ca.issue(&template, key).unwrap()
    }

    pub(super) fn msp(&self) -> FabricMspConfig {
        let pem = |authority: &CertificateAuthority| Bytes::from(authority.certificate().pem());
        FabricMspConfig {
            name: self.msp_id.as_str().to_owned(),
            root_certs: vec![pem(&self.ca)],
            tls_root_certs: vec![pem(&self.tls_ca)],
            fabric_node_ous: Some(FabricNodeOUs::named(&Bytes::new())),
            ..FabricMspConfig::default()
        }
    }

    /// The same as a folder.
    pub(super) fn write_msp(&self, folder: &Path) {
        write(&folder.join("cacerts/ca.pem"), self.ca.certificate().pem());
        write(&folder.join("tlscacerts/tlsca.pem"), self.tls_ca.certificate().pem());
        let units = "NodeOUs:\n  Enable: true\n  AdminOUIdentifier: { OrganizationalUnitIdentifier: admin }\n  \
                     OrdererOUIdentifier: { OrganizationalUnitIdentifier: orderer }\n";
        write(&folder.join("config.yaml"), units);
    }

    /// A list that revokes TLS certificates.
    pub(crate) fn revoke_tls(&self, certificates: &[Certificate]) -> Bytes {
        let entry = |one: &Certificate| RevokedCertificate {
            serial: one.serial().to_vec(),
            revoked_at: now(),
            reason: 1,
        };
        let entries: Vec<RevokedCertificate> = certificates.iter().map(entry).collect();
        let list = self.tls_ca.issue_crl(&entries, 1, now(), now() + time::Duration::days(1)).unwrap();
        list.pem().into_bytes().into()
    }

    pub(super) fn profile(&self, orderer_endpoints: Vec<String>) -> OrganisationProfile {
        OrganisationProfile {
            name: self.msp_id.as_str().to_owned(),
            msp_id: self.msp_id.clone(),
            msp: self.msp().into(),
            policies: Default::default(),
            orderer_endpoints,
            anchor_peers: Vec::new(),
        }
    }
}
