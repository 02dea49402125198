//! Five organisations with a peer each, and a policy that three of them satisfy; also used by the counter of instructions.

use std::sync::Arc;

use bytes::Bytes;
use consort_crypto::{
    issue::{CertificateAuthority, Template, Validity},
    key::PrivateKey,
    name::{DistinguishedName, NamePart},
};
use consort_msp::{
    Identity, Msp, MspManager, MspVersion,
    policy::{Policy, SignaturePolicy, parse},
    serialize,
};
use consort_protos::{
    fabric::msp::{FabricMspConfig, FabricNodeOUs},
    ids::MspId,
};
use time::macros::datetime;

const VALIDITY: Validity =
    Validity { not_before: datetime!(2020-01-01 00:00 UTC), not_after: datetime!(2040-01-01 00:00 UTC) };

fn organisation(number: usize) -> (Msp, Bytes) {
    let name = format!("Org{number}MSP");
    let key = PrivateKey::generate_p256().expect("a key");
    let authority = CertificateAuthority::new_root(&DistinguishedName::common_name(&name), key, VALIDITY)
        .expect("a root");
    let config = FabricMspConfig {
        name: name.clone(),
        root_certs: vec![authority.certificate().pem().into_bytes().into()],
        fabric_node_ous: Some(FabricNodeOUs::named(&Bytes::new())),
        ..FabricMspConfig::default()
    };
    let key = PrivateKey::generate_p256().expect("a key");
    let subject = DistinguishedName::common_name("peer0").with(NamePart::OrganizationalUnit, "peer");
    let certificate =
        authority.issue(&Template::identity(subject, VALIDITY), key.public_key()).expect("a certificate");
    let id = MspId::parse(&name).expect("an id");
    (Msp::new(&config, MspVersion::V1_4_3).expect("an MSP"), serialize(&id, &certificate))
}

/// The organisations' peers, and the policy over them.
pub(crate) struct Organisations {
    pub(crate) msps: Arc<MspManager>,
    pub(crate) signers: Vec<Bytes>,
    pub(crate) policy: Policy,
}

impl Organisations {
    pub(crate) fn five() -> Self {
        let (msps, signers): (Vec<Msp>, Vec<Bytes>) = (1..=5).map(organisation).unzip();
        let msps = Arc::new(MspManager::new(msps));
        let text = "OutOf(3, 'Org1MSP.peer', 'Org2MSP.peer', 'Org3MSP.peer', 'Org4MSP.peer', 'Org5MSP.peer')";
        let rule = SignaturePolicy::from_proto(&parse(text).expect("a policy")).expect("a policy");
        let policy = Policy::signature("endorsement", rule, Arc::clone(&msps));
        Self { msps, signers, policy }
    }
}

/// The identities of signers.
pub(crate) fn read(msps: &MspManager, signers: &[Bytes]) -> Vec<Arc<Identity>> {
    signers.iter().map(|signer| msps.deserialize(signer).expect("an identity")).collect()
}
