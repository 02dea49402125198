//! A consortium whose keys are here: so that what a member sends can be signed by one.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use consort_channel_config::profile::{
    ApplicationProfile, BatchProfile, ConsenterProfile, MspSource, OrdererProfile, OrganisationProfile,
    PemSource, Policies, RaftProfile,
};
use consort_channel_config::{ChannelBundle, Profile, REGISTERED_IDENTITIES, SEALED_DATA};
use consort_crypto::certificate::Certificate;
use consort_crypto::hash::HashAlgorithm;
use consort_crypto::issue::{CertificateAuthority, DistinguishedName, NamePart, Template, Validity};
use consort_crypto::key::PrivateKey;
use consort_msp::SigningIdentity;
use consort_protos::fabric::common::{Block, ChannelHeader, Envelope, Header, Payload, SignatureHeader};
use consort_protos::fabric::msp::{FabricMspConfig, FabricNodeOUs};
use consort_protos::fabric::protos::{Proposal, SignedProposal};
use consort_protos::ids::{ChannelId, MspId};
use consort_protos::proposal::ProposalParts;
use prost::Message;
use prost_types::Timestamp;
use time::OffsetDateTime;
use time::macros::datetime;

/// The time at which everything is judged.
pub(crate) const NOW: OffsetDateTime = datetime!(2026-01-01 00:00 UTC);

/// The channel that exists.
pub(crate) const CHANNEL: &str = "mychannel";

/// The one network of all functions.
pub(crate) static NETWORK: LazyLock<Network> = LazyLock::new(Network::new);

/// Two organisations with peers and one with an orderer.
pub(crate) struct Network {
    /// A client of Org1.
    pub(crate) client: Arc<SigningIdentity>,
    /// An administrator of Org1.
    pub(crate) admin: Arc<SigningIdentity>,
    /// The peer that is asked, of Org1.
    pub(crate) peer: Arc<SigningIdentity>,
    /// A peer of Org2.
    pub(crate) other_peer: Arc<SigningIdentity>,
    /// The orderer.
    pub(crate) orderer: Arc<SigningIdentity>,
    /// First block of the channel.
    pub(crate) genesis: Block,
    /// Its configuration.
    pub(crate) bundle: Arc<ChannelBundle>,
}

/// An organisation's authorities.
struct Organisation {
    id: MspId,
    authority: CertificateAuthority,
    tls_authority: CertificateAuthority,
}

fn validity() -> Validity {
    Validity { not_before: datetime!(2020-01-01 00:00 UTC), not_after: datetime!(2040-01-01 00:00 UTC) }
}

fn key() -> PrivateKey {
    PrivateKey::generate_p256().expect("invariant: the system gives random bytes")
}

fn pem(certificate: &Certificate) -> Bytes {
    certificate.pem().into_bytes().into()
}

impl Organisation {
    fn new(id: &str) -> Self {
        let root = |name: &str| {
            CertificateAuthority::new_root(&DistinguishedName::common_name(name), key(), validity())
                .expect("invariant: the name and the validity can be written")
        };
        let id = MspId::parse(id).expect("invariant: the names here are MSP ids");
        Self { id, authority: root("ca"), tls_authority: root("tlsca") }
    }

    fn signer(&self, unit: &str) -> Arc<SigningIdentity> {
        let key = key();
        let subject = DistinguishedName::new()
            .with(NamePart::OrganizationalUnit, unit)
            .with(NamePart::CommonName, unit);
        let certificate = self.authority.issue(&Template::identity(subject, validity()), key.public_key());
        let certificate = pem(&certificate.expect("invariant: a root issues for any key"));
        let identity = SigningIdentity::new(self.id.clone(), &certificate, key);
        Arc::new(identity.expect("invariant: key and certificate belong together"))
    }

    fn tls_certificate(&self, host: &str) -> Bytes {
        let template = Template::tls(DistinguishedName::common_name(host), validity(), Vec::new());
        let issued = self.tls_authority.issue(&template, key().public_key());
        pem(&issued.expect("invariant: a root issues for any key"))
    }

    fn profile(&self, orderer_endpoints: Vec<String>) -> OrganisationProfile {
        let msp = FabricMspConfig {
            name: self.id.as_str().to_owned(),
            root_certs: vec![pem(self.authority.certificate())],
            tls_root_certs: vec![pem(self.tls_authority.certificate())],
            fabric_node_ous: Some(FabricNodeOUs::named(&Bytes::new())),
            ..FabricMspConfig::default()
        };
        OrganisationProfile {
            name: self.id.as_str().to_owned(),
            msp_id: self.id.clone(),
            msp: MspSource::from(msp),
            policies: Policies::new(),
            orderer_endpoints,
            anchor_peers: Vec::new(),
        }
    }
}

impl Network {
    fn new() -> Self {
        let [org1, org2, orderers] = ["Org1MSP", "Org2MSP", "OrdererMSP"].map(Organisation::new);
        let profile = profile(&org1, &org2, &orderers);
        let channel = ChannelId::parse(CHANNEL).expect("invariant: it is a channel's name");
        let genesis = profile.genesis_block(&channel, [1; 24], NOW);
        let genesis = genesis.expect("invariant: the profile gives a channel");
        let bundle = ChannelBundle::from_block(&genesis).expect("invariant: what was made is readable");
        Self {
            client: org1.signer("client"),
            admin: org1.signer("admin"),
            peer: org1.signer("peer"),
            other_peer: org2.signer("peer"),
            orderer: orderers.signer("orderer"),
            genesis,
            bundle: Arc::new(bundle),
        }
    }
}

fn profile(org1: &Organisation, org2: &Organisation, orderers: &Organisation) -> Profile {
    let certificate = orderers.tls_certificate("orderer.example.com");
    let consenter = ConsenterProfile {
        host: "orderer.example.com".to_owned(),
        port: 7050,
        client_tls_cert: PemSource::Pem(certificate.clone()),
        server_tls_cert: PemSource::Pem(certificate),
    };
    Profile {
        hashing: HashAlgorithm::default(),
        key_algorithms: Vec::new(),
        capabilities: vec!["V3_0".to_owned()],
        policies: Policies::new(),
        orderer: OrdererProfile {
            capabilities: vec!["V2_0".to_owned()],
            batch: BatchProfile::default(),
            raft: RaftProfile::default(),
            channels_max: 0,
            consenters: vec![consenter],
            organisations: vec![orderers.profile(vec!["orderer.example.com:7050".to_owned()])],
            policies: Policies::new(),
        },
        application: ApplicationProfile {
            capabilities: ["V2_5", REGISTERED_IDENTITIES, SEALED_DATA].map(str::to_owned).to_vec(),
            organisations: vec![org1.profile(Vec::new()), org2.profile(Vec::new())],
            policies: Policies::new(),
            acls: BTreeMap::new(),
        },
    }
}

/// [`NOW`] as messages carry it.
pub(crate) fn timestamp() -> Timestamp {
    Timestamp { seconds: NOW.unix_timestamp(), nanos: 0 }
}

/// Signs as a member.
pub(crate) fn signature(by: &SigningIdentity, message: &[u8]) -> Bytes {
    by.sign(message).expect("invariant: the key is a good one").into()
}

/// What a member asks a chaincode, without transient data.
pub(crate) fn parts(by: &SigningIdentity, chaincode: &str, channel: &str, args: Vec<Bytes>) -> ProposalParts {
    let (nonce, creator) = (Bytes::from_static(b"a nonce of 24 bytes, yes"), by.serialized().clone());
    ProposalParts {
        channel: channel.to_owned(),
        tx_id: HashAlgorithm::Sha256.tx_id(&nonce, &creator),
        creator,
        nonce,
        timestamp: timestamp(),
        chaincode: chaincode.to_owned(),
        args,
        transient: BTreeMap::new(),
        is_init: false,
    }
}

/// A proposal with a member's signature over it.
pub(crate) fn signed_proposal(by: &SigningIdentity, proposal: &Proposal) -> SignedProposal {
    let proposal_bytes = Bytes::from(proposal.encode_to_vec());
    SignedProposal { signature: signature(by, &proposal_bytes), proposal_bytes }
}

/// The headers with another author: time, transaction id and creator are right, the rest is as it was.
fn authored(header: &Header, by: &SigningIdentity) -> Option<Header> {
    let channel_header = ChannelHeader::decode(header.channel_header.clone()).ok()?;
    let signature_header = SignatureHeader::decode(header.signature_header.clone()).ok()?;
    let tx_id = HashAlgorithm::Sha256.tx_id(&signature_header.nonce, by.serialized());
    let channel_header = ChannelHeader { tx_id, timestamp: Some(timestamp()), ..channel_header };
    let signature_header = SignatureHeader { creator: by.serialized().clone(), ..signature_header };
    Some(Header {
        channel_header: channel_header.encode_to_vec().into(),
        signature_header: signature_header.encode_to_vec().into(),
    })
}

/// A proposal as a member makes it, that is otherwise what a stranger sent; none when its headers cannot be read.
pub(crate) fn proposal_by(by: &SigningIdentity, signed: &SignedProposal) -> Option<SignedProposal> {
    let proposal = Proposal::decode(signed.proposal_bytes.clone()).ok()?;
    let header = authored(&Header::decode(proposal.header.clone()).ok()?, by)?;
    Some(signed_proposal(by, &Proposal { header: header.encode_to_vec().into(), ..proposal }))
}

/// The same for an envelope.
pub(crate) fn envelope_by(by: &SigningIdentity, envelope: &Envelope) -> Option<Envelope> {
    let payload = Payload::decode(envelope.payload.clone()).ok()?;
    let header = authored(payload.header.as_ref()?, by)?;
    let payload = Bytes::from(Payload { header: Some(header), ..payload }.encode_to_vec());
    Some(Envelope { signature: signature(by, &payload), payload, ..envelope.clone() })
}
