//! Sealed data over a real channel: endorsed by two organisations, ordered, validated, answered by proxies.

mod attacks;
mod journey;
mod ledger;
mod story;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use consort_crypto::hash::sha256;
use consort_crypto::{pre, preimage};
use consort_msp::SigningIdentity;
use consort_node::ManualClock;
use consort_node::renewal::Current;
use consort_protos::consort::sealed::{
    Commitment, CreateDomain, DepositRequest, NewGrant, NewRequest, Party, ProxyOf, PutRecord, Question,
    RecordName, Revoke, SignedQuestion, Suite, Terms, put_record,
};
use consort_protos::fabric::common::Block;
use consort_protos::fabric::protos::{ProposalResponse, SignedProposal, TxValidationCode};
use consort_protos::ids::BlockNumber;
use consort_protos::proposal::{Proposal, ProposalParts, new_proposal, prepared_envelope};
use consort_protos::sealed::{QUESTION_TAG, domain_context, record_context, share_context, signed_message};
use prost::Message;
use time::OffsetDateTime;

use super::SEALED;
use super::books::party_of;
use super::keys::Keys;
use super::proxy::Proxy;
use super::service::{Proxies, ProxiesSetup};
use crate::chaincode::{Limits, PackageStore, WasmRuntime};
use crate::channel::{ChannelHandle, CommittedBlock};
use crate::committer::feed;
use crate::endorser::{Access, Endorser, EndorserParts};
use crate::gateway::{Directory, Member};
use crate::registry::Channels;
use crate::testing::{CHANNEL, JoinedPeer, Network, Organisation};

/// The time at which all proposals are made and judged.
const NOW: i64 = 1_800_000_000;
/// The record of the stories.
const RECORD: &[u8] = b"the patient is allergic to penicillin";

fn party(signer: &SigningIdentity) -> Party {
    party_of(signer.msp_id(), signer.certificate())
}

fn name(domain: &str, key: &str, version: u64) -> RecordName {
    RecordName { domain: domain.to_owned(), key: key.to_owned(), version }
}

/// A transaction that waits to be ordered.
struct Prepared {
    tx_id: String,
    envelope: Bytes,
}

/// A channel with sealed data, its blocks, and the endorsers of both organisations.
struct Bench {
    network: Network,
    peer: JoinedPeer,
    endorsers: Vec<Endorser>,
    blocks: Vec<Block>,
    owner: Arc<SigningIdentity>,
    reader: Arc<SigningIdentity>,
    stranger: Arc<SigningIdentity>,
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let network = Network::with(&[], &[consort_channel_config::SEALED_DATA]);
        let peer = JoinedPeer::new(&network.genesis);
        let folder = tempfile::tempdir().unwrap();
        let endorsers = [&network.org1, &network.org2]
            .map(|organisation| endorser(organisation, &peer.channels, &peer.channel, folder.path()));
        Self {
            owner: network.org1.member("client", "doctor"),
            reader: network.org2.member("client", "researcher"),
            stranger: network.org2.member("client", "stranger"),
            network,
            peer,
            endorsers: endorsers.into(),
            blocks: Vec::new(),
            folder,
        }
    }

    fn channel(&self) -> &Arc<ChannelHandle> {
        &self.peer.channel
    }

    fn height(&self) -> u64 {
        self.channel().ledger().height()
    }

    fn next_block(&self, envelopes: Vec<Bytes>) -> Block {
        self.network.block_after(self.blocks.last().unwrap_or(&self.network.genesis), envelopes)
    }

    /// Commits one block and returns its codes.
    async fn commit(&mut self, envelopes: Vec<Bytes>) -> Vec<TxValidationCode> {
        let block = self.next_block(envelopes);
        feed(self.channel(), [block.clone()]).await;
        self.blocks.push(block);
        let stored = self.channel().ledger().block(BlockNumber::new(self.height() - 1)).unwrap().unwrap();
        consort_protos::block::flags(&stored)
            .unwrap()
            .iter()
            .map(|flag| TxValidationCode::try_from(i32::from(*flag)).unwrap())
            .collect()
    }

    /// Commits a block that has nothing to do with sealed data.
    async fn pass_a_block(&mut self) {
        let other = self.network.transaction("none").endorsed_by(&[&self.network.org1.peer]).build();
        self.commit(vec![other]).await;
    }

    /// Has a call endorsed by both organisations; a refusal is status and message.
    async fn prepare(
        &self,
        caller: &Arc<SigningIdentity>,
        function: &str,
        argument: &impl Message,
    ) -> Result<Prepared, (i32, String)> {
        self.prepare_at(caller, function, argument, NOW).await
    }

    async fn prepare_at(
        &self,
        caller: &Arc<SigningIdentity>,
        function: &str,
        argument: &impl Message,
        seconds: i64,
    ) -> Result<Prepared, (i32, String)> {
        let (signed, tx_id) = proposal(caller, function, argument, seconds);
        let mut responses: Vec<ProposalResponse> = Vec::new();
        for endorser in &self.endorsers {
            let response = endorser.process(&signed).await.unwrap();
            let outcome = response.response.clone().unwrap();
            if outcome.status >= 400 {
                return Err((outcome.status, outcome.message));
            }
            responses.push(response);
        }
        assert_eq!(responses[0].payload, responses[1].payload, "endorsers answer alike");
        Ok(Prepared { tx_id, envelope: envelope(caller, &signed, &responses) })
    }

    /// Prepares and commits a call; it must be valid. Returns the transaction's id.
    async fn call(
        &mut self,
        caller: &Arc<SigningIdentity>,
        function: &str,
        argument: &impl Message,
    ) -> String {
        let prepared = self.prepare(caller, function, argument).await.unwrap();
        assert_eq!(self.commit(vec![prepared.envelope]).await, [TxValidationCode::Valid], "{function}");
        prepared.tx_id
    }

    /// Asks one endorser.
    async fn ask<A: Message + Default>(
        &self,
        function: &str,
        argument: &impl Message,
    ) -> Result<A, (i32, String)> {
        let (signed, _) = proposal(&self.stranger, function, argument, NOW);
        let answer = self.endorsers[0].process(&signed).await.unwrap().response.unwrap();
        if answer.status >= 400 {
            return Err((answer.status, answer.message));
        }
        Ok(A::decode(answer.payload).unwrap())
    }

    /// Creates a domain of the owner.
    async fn domain(&mut self, domain: &str, suite: pre::Suite) -> pre::SecretKey {
        let secret = pre::SecretKey::generate(suite).unwrap();
        let owner = Arc::clone(&self.owner);
        self.call(&owner, "CreateDomain", &create_domain(&owner, domain, &secret)).await;
        secret
    }

    /// Seals a record into a domain and puts it on the ledger.
    async fn put(&mut self, secret: &pre::SecretKey, record: &RecordName) -> pre::Sealed {
        let sealed = pre::seal(&secret.public_key(), &record_context(CHANNEL, record), RECORD).unwrap();
        let owner = Arc::clone(&self.owner);
        self.call(&owner, "PutRecord", &put_record(record, &sealed)).await;
        sealed
    }

    async fn request(&mut self, grant: &str, record: &RecordName) -> String {
        let reader = Arc::clone(&self.reader);
        self.call(&reader, "Request", &request(grant, record)).await
    }

    async fn revoke(&mut self, grant: &str) {
        let owner = Arc::clone(&self.owner);
        let revoke = Revoke { grant: grant.to_owned(), reason: "discharged".to_owned() };
        self.call(&owner, "Revoke", &revoke).await;
    }

    /// Three proxies of both organisations, which follow this bench's ledger.
    fn proxies(&self) -> Vec<TestProxy> {
        let peers = [
            self.network.org1.member("peer", "peer0"),
            self.network.org2.member("peer", "peer0"),
            self.network.org2.member("peer", "peer1"),
        ];
        let folder = |number: usize| self.folder.path().join(format!("proxy{number}"));
        peers
            .into_iter()
            .enumerate()
            .map(|(number, peer)| TestProxy::open(peer, self.channel(), &folder(number)))
            .collect()
    }

    fn grant_to_reader(
        &self,
        grant: &str,
        domain: &str,
        secret: &pre::SecretKey,
        proxies: &[TestProxy],
    ) -> Offer {
        let reader_secret = pre::SecretKey::generate(secret.suite()).unwrap();
        let proxies =
            proxies.iter().zip(1..).map(|(proxy, index)| proxy.named(index, secret.suite())).collect();
        Offer {
            terms: Terms {
                channel: CHANNEL.to_owned(),
                grant: grant.to_owned(),
                domain: domain.to_owned(),
                owner: Some(party(&self.owner)),
                reader: Some(party(&self.reader)),
                reader_key: reader_secret.public_key().to_bytes().to_vec().into(),
                threshold: 2,
                proxies,
                ..Terms::default()
            },
            owner_secret: pre::SecretKey::from_bytes(secret.suite(), &secret.to_bytes()[..]).unwrap(),
            reader_secret,
        }
    }

    async fn grant(&mut self, offer: &Offer) -> Granted {
        let granted = offer.split();
        let owner = Arc::clone(&self.owner);
        self.call(&owner, "Grant", &granted.message).await;
        granted
    }
}

fn endorser(
    organisation: &Organisation,
    channels: &Arc<Channels>,
    channel: &Arc<ChannelHandle>,
    folder: &Path,
) -> Endorser {
    let folder = folder.join(organisation.msp_id.as_str());
    let packages = Arc::new(PackageStore::open(&folder.join("packages"), 1 << 20).unwrap());
    let limits =
        Limits { instances_max: 1, memory_bytes_max: 1 << 20, fuel_max: 1_000_000, ..Limits::default() };
    let runtime = Arc::new(WasmRuntime::new(packages, &folder.join("compiled"), limits).unwrap());
    let local = Arc::clone(channel.bundle().msps());
    Endorser::new(EndorserParts {
        channels: Arc::clone(channels),
        runtime,
        signer: Current::new(Arc::clone(&organisation.peer)),
        access: Arc::new(Access::new(local, organisation.msp_id.clone())),
        clock: clock(),
        time_window: Duration::from_secs(900),
    })
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(OffsetDateTime::from_unix_timestamp(NOW).unwrap()))
}

fn proposal(
    caller: &SigningIdentity,
    function: &str,
    argument: &impl Message,
    seconds: i64,
) -> (SignedProposal, String) {
    let nonce: [u8; 24] = rand::random();
    let tx_id = preimage::tx_id(&nonce, caller.serialized());
    let parts = ProposalParts {
        channel: CHANNEL.to_owned(),
        creator: caller.serialized().clone(),
        nonce: Bytes::copy_from_slice(&nonce),
        tx_id: tx_id.clone(),
        timestamp: prost_types::Timestamp { seconds, nanos: 0 },
        chaincode: SEALED.to_owned(),
        args: vec![Bytes::copy_from_slice(function.as_bytes()), argument.encode_to_vec().into()],
        transient: BTreeMap::new(),
        is_init: false,
    };
    let proposal_bytes = Bytes::from(new_proposal(parts).encode_to_vec());
    let signature = caller.sign(&proposal_bytes).unwrap().into();
    (SignedProposal { proposal_bytes, signature }, tx_id)
}

fn envelope(caller: &SigningIdentity, signed: &SignedProposal, responses: &[ProposalResponse]) -> Bytes {
    let proposal = Proposal::open(signed).unwrap();
    let endorsements = responses.iter().map(|response| response.endorsement.clone().unwrap()).collect();
    let mut envelope = prepared_envelope(&proposal, responses[0].payload.clone(), endorsements, None);
    envelope.signature = caller.sign(&envelope.payload).unwrap().into();
    envelope.encode_to_vec().into()
}

fn create_domain(owner: &SigningIdentity, domain: &str, secret: &pre::SecretKey) -> CreateDomain {
    let context = domain_context(CHANNEL, domain, &party(owner));
    let suite = match secret.suite() {
        pre::Suite::P256 => Suite::P256,
        pre::Suite::Sm2 => Suite::Sm2,
    };
    CreateDomain {
        domain: domain.to_owned(),
        suite: suite.into(),
        public_key: secret.public_key().to_bytes().to_vec().into(),
        proof: pre::prove_knowledge(secret, &context).unwrap().to_bytes().to_vec().into(),
        description: String::new(),
    }
}

fn put_record(record: &RecordName, sealed: &pre::Sealed) -> PutRecord {
    PutRecord {
        name: Some(record.clone()),
        capsule: sealed.capsule.to_bytes().to_vec().into(),
        content: Some(put_record::Content::Ciphertext(sealed.ciphertext.clone().into())),
    }
}

fn request(grant: &str, record: &RecordName) -> NewRequest {
    NewRequest { grant: grant.to_owned(), record: Some(record.clone()) }
}

/// What an owner offers, before it is split.
struct Offer {
    terms: Terms,
    owner_secret: pre::SecretKey,
    reader_secret: pre::SecretKey,
}

/// A grant with its shares.
struct Granted {
    message: NewGrant,
    split: pre::Split,
    deposits: Vec<DepositRequest>,
}

impl Offer {
    fn split(&self) -> Granted {
        let terms = Bytes::from(self.terms.encode_to_vec());
        let suite = self.owner_secret.suite();
        let count = u16::try_from(self.terms.proxies.len()).unwrap();
        let threshold = u16::try_from(self.terms.threshold).unwrap();
        let reader = pre::PublicKey::from_bytes(suite, &self.terms.reader_key).unwrap();
        let split = pre::split(&self.owner_secret, &reader, threshold, count, &terms).unwrap();
        let mut deposits = Vec::new();
        let mut commitments = Vec::new();
        for (proxy, (share, point)) in
            self.terms.proxies.iter().zip(split.shares.iter().zip(&split.commitments))
        {
            let key = pre::PublicKey::from_bytes(suite, &proxy.encryption_key).unwrap();
            let context = share_context(CHANNEL, &self.terms.grant, proxy.index);
            let sealed_share = Bytes::from(pre::seal_to(&key, &context, &share.to_bytes()[..]).unwrap());
            commitments.push(Commitment {
                point: point.to_bytes().to_vec().into(),
                sealed_share_sha256: sha256(&sealed_share).to_vec().into(),
            });
            deposits.push(DepositRequest {
                channel: CHANNEL.to_owned(),
                grant: self.terms.grant.clone(),
                index: proxy.index,
                sealed_share,
            });
        }
        let ephemeral = split.ephemeral.to_bytes().to_vec().into();
        Granted { message: NewGrant { terms, ephemeral, commitments }, split, deposits }
    }

    /// What the reader gets with some proxies' fragments.
    fn open(
        &self,
        granted: &Granted,
        (tx_id, record): (&str, &RecordName),
        sealed: &pre::Sealed,
        fragments: &[pre::Fragment],
    ) -> Result<Vec<u8>, pre::Error> {
        let bound = consort_protos::sealed::request_context(CHANNEL, &self.terms.grant, tx_id, record);
        pre::open(
            &self.reader_secret,
            &self.owner_secret.public_key(),
            &granted.split.ephemeral,
            u16::try_from(self.terms.threshold).unwrap(),
            &record_context(CHANNEL, record),
            &granted.message.terms,
            &bound,
            &granted.split.commitments,
            &sealed.capsule,
            &sealed.ciphertext,
            fragments,
        )
        .map(|plain| plain.to_vec())
    }
}

/// A proxy on its own folder.
struct TestProxy {
    proxy: Arc<Proxy>,
    keys: Keys,
    peer: Arc<SigningIdentity>,
}

impl TestProxy {
    fn open(peer: Arc<SigningIdentity>, channel: &Arc<ChannelHandle>, folder: &Path) -> Self {
        let keys = || Keys::open(&folder.join("keys")).unwrap();
        let signer = Current::new(Arc::clone(&peer));
        let proxy =
            Proxy::open(Arc::clone(channel), Arc::new(keys()), signer, &folder.join("channel")).unwrap();
        Self { proxy: Arc::new(proxy), keys: keys(), peer }
    }

    fn named(&self, index: u32, suite: pre::Suite) -> ProxyOf {
        ProxyOf {
            index,
            peer: Some(party(&self.peer)),
            encryption_key: self.keys.secret(suite).public_key().to_bytes().to_vec().into(),
            endpoint: String::new(),
        }
    }

    /// Goes through the blocks that the ledger has.
    fn catch_up(&self) {
        let ledger = self.proxy.channel().ledger();
        let first = *self.proxy.watch_progress().borrow();
        for number in first..ledger.height() {
            let block = ledger.block(BlockNumber::new(number)).unwrap().unwrap();
            self.proxy.follow(&CommittedBlock::from_stored(block), number == first).unwrap();
        }
    }

    fn fragment(&self, suite: pre::Suite, tx_id: &str, asker: &SigningIdentity) -> pre::Fragment {
        let answer = self.proxy.answer(tx_id, &party(asker)).unwrap();
        pre::Fragment::from_bytes(suite, &answer.fragment).unwrap()
    }
}

/// Peers of which others have heard.
struct Heard(Vec<(Organisation, u64)>);

#[async_trait]
impl Directory for Heard {
    fn members(&self, _channel: &ChannelHandle) -> Vec<Member> {
        let member = |(organisation, height): &(Organisation, u64)| Member {
            endpoint: format!("peer0.{}:7051", organisation.msp_id),
            msp_id: organisation.msp_id.clone(),
            height: *height,
            chaincodes: Vec::new(),
            local: false,
            identity: organisation.peer.serialized().clone(),
            incarnation_ms: 0,
            sequence: 0,
        };
        self.0.iter().map(member).collect()
    }

    async fn refresh(&self, _channel: &ChannelHandle) {}
}

/// The service of a peer over the bench's channel.
fn service(peer: &Arc<SigningIdentity>, folder: &Path, heard: Heard) -> Proxies {
    let setup = ProxiesSetup {
        folder: folder.to_owned(),
        endpoint: "peer0.org1.example.com:7051".to_owned(),
        signer: Current::new(Arc::clone(peer)),
        directory: Arc::new(heard),
        clock: clock(),
    };
    Proxies::new(setup, Keys::open(&folder.join("keys")).unwrap())
}

fn question(asker: &SigningIdentity, tx_id: &str) -> SignedQuestion {
    let question = Question { channel: CHANNEL.to_owned(), request: tx_id.to_owned() };
    let question = Bytes::from(question.encode_to_vec());
    let signature = asker.sign(&signed_message(QUESTION_TAG, &question)).unwrap().into();
    SignedQuestion { question, identity: asker.serialized().clone(), signature }
}
