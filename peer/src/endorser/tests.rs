//! The endorser over real channels: what it refuses, what it signs, and the whole way of a chaincode from its package to a committed
//! transaction.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use consort_crypto::preimage;
use consort_msp::SigningIdentity;
use consort_node::ManualClock;
use consort_protos::fabric::common::Block;
use consort_protos::fabric::lifecycle::{
    ApproveChaincodeDefinitionForMyOrgArgs, ChaincodeSource, CheckCommitReadinessArgs,
    CheckCommitReadinessResult, CommitChaincodeDefinitionArgs, InstallChaincodeArgs, InstallChaincodeResult,
    QueryChaincodeDefinitionArgs, QueryInstalledChaincodesResult, chaincode_source,
};
use consort_protos::fabric::protos::{
    ChaincodeAction, ChaincodeEvent, ChaincodeInterest, ChannelQueryResponse, ProposalResponse,
    ProposalResponsePayload, SignedProposal, TxValidationCode,
};
use consort_protos::proposal::{Proposal, ProposalParts, new_proposal, prepared_envelope};
use consort_protos::rwset::TxReadWriteSet;
use prost::Message;
use time::OffsetDateTime;

use super::{Access, Endorser, EndorserError, EndorserParts};
use crate::chaincode::{Limits, PackageStore, WasmRuntime};
use crate::channel::ChannelHandle;
use crate::committer::feed;
use crate::registry::Channels;
use crate::testing::{CHANNEL, Network, Organisation};

/// The time at which all proposals are made and judged.
const NOW: i64 = 1_800_000_000;

/// One peer of an organisation with its own books.
struct Peer {
    endorser: Endorser,
    clock: Arc<ManualClock>,
    channels: Arc<Channels>,
    channel: Arc<ChannelHandle>,
    admin: Arc<SigningIdentity>,
    client: Arc<SigningIdentity>,
    _folder: tempfile::TempDir,
}

impl Peer {
    fn new(network: &Network, organisation: &Organisation) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let channels = Channels::open(folder.path()).unwrap();
        let channel = channels.join(&network.genesis).unwrap();
        let packages = Arc::new(PackageStore::open(&folder.path().join("packages"), 16 << 20).unwrap());
        let limits =
            Limits { instances_max: 2, memory_bytes_max: 8 << 20, fuel_max: 10_000_000, ..Limits::default() };
        let runtime = Arc::new(WasmRuntime::new(packages, &folder.path().join("compiled"), limits).unwrap());
        let local = Arc::clone(channel.bundle().msps());
        let clock = Arc::new(ManualClock::new(OffsetDateTime::from_unix_timestamp(NOW).unwrap()));
        let endorser = Endorser::new(EndorserParts {
            channels: Arc::clone(&channels),
            runtime,
            signer: consort_node::renewal::Current::new(Arc::clone(&organisation.peer)),
            access: Arc::new(Access::new(local, organisation.msp_id.clone())),
            clock: Arc::clone(&clock) as Arc<dyn consort_node::Clock>,
            time_window: Duration::from_secs(900),
        });
        Self {
            endorser,
            clock,
            channels,
            channel,
            admin: organisation.identity("admin"),
            client: Arc::clone(&organisation.client),
            _folder: folder,
        }
    }

    async fn call(&self, signed: &Signed) -> ProposalResponse {
        self.endorser.process(&signed.message).await.unwrap()
    }
}

/// A proposal with its signature, and the key to sign the transaction with.
struct Signed {
    message: SignedProposal,
    signer: Arc<SigningIdentity>,
}

fn parts(signer: &SigningIdentity, channel: &str, chaincode: &str, args: Vec<Bytes>) -> ProposalParts {
    let nonce: [u8; 24] = rand::random();
    ProposalParts {
        channel: channel.to_owned(),
        creator: signer.serialized().clone(),
        nonce: Bytes::copy_from_slice(&nonce),
        tx_id: preimage::tx_id(&nonce, signer.serialized()),
        timestamp: prost_types::Timestamp { seconds: NOW, nanos: 0 },
        chaincode: chaincode.to_owned(),
        args,
        transient: BTreeMap::new(),
        is_init: false,
    }
}

fn sign(signer: &Arc<SigningIdentity>, parts: ProposalParts) -> Signed {
    let proposal_bytes = Bytes::from(new_proposal(parts).encode_to_vec());
    let signature = signer.sign(&proposal_bytes).unwrap().into();
    Signed { message: SignedProposal { proposal_bytes, signature }, signer: Arc::clone(signer) }
}

fn proposal(signer: &Arc<SigningIdentity>, channel: &str, chaincode: &str, args: &[&[u8]]) -> Signed {
    let args = args.iter().map(|argument| Bytes::copy_from_slice(argument)).collect();
    sign(signer, parts(signer, channel, chaincode, args))
}

fn lifecycle(signer: &Arc<SigningIdentity>, function: &str, argument: &impl Message) -> Signed {
    proposal(signer, CHANNEL, "_lifecycle", &[function.as_bytes(), &argument.encode_to_vec()])
}

/// The ordered transaction of a proposal and its endorsements.
fn envelope(signed: &Signed, responses: &[ProposalResponse]) -> Bytes {
    let proposal = Proposal::open(&signed.message).unwrap();
    let endorsements = responses.iter().map(|response| response.endorsement.clone().unwrap()).collect();
    for response in responses {
        assert_eq!(response.payload, responses[0].payload, "endorsers must answer alike");
    }
    let mut envelope = prepared_envelope(&proposal, responses[0].payload.clone(), endorsements, None);
    envelope.signature = signed.signer.sign(&envelope.payload).unwrap().into();
    envelope.encode_to_vec().into()
}

/// Two organisations with a peer each, and the chain that both follow.
struct Consortium {
    network: Network,
    one: Peer,
    two: Peer,
    last: Block,
}

impl Consortium {
    fn new() -> Self {
        Self::of(Network::new(&[]))
    }

    fn of(network: Network) -> Self {
        let (one, two) = (Peer::new(&network, &network.org1), Peer::new(&network, &network.org2));
        let last = network.genesis.clone();
        Self { network, one, two, last }
    }

    /// Commits a transaction at both peers and returns its code.
    async fn commit(&mut self, envelope: Bytes) -> TxValidationCode {
        self.last = self.network.block_after(&self.last, vec![envelope.clone()]);
        feed(&self.one.channel, [self.last.clone()]).await;
        feed(&self.two.channel, [self.last.clone()]).await;
        let tx_id = consort_protos::transaction::Transaction::open(envelope).unwrap().tx_id;
        let code = |peer: &Peer| peer.channel.ledger().transaction(&tx_id).unwrap().unwrap().1;
        assert_eq!(code(&self.one), code(&self.two));
        code(&self.one)
    }

    /// Endorses at one peer or both, and commits.
    async fn submit(&mut self, signed: &Signed, both: bool) -> TxValidationCode {
        let mut responses = vec![self.one.call(signed).await];
        if both {
            responses.push(self.two.call(signed).await);
        }
        for response in &responses {
            let answer = response.response.as_ref().unwrap();
            assert_eq!((answer.status, answer.message.as_str()), (200, ""));
        }
        self.commit(envelope(signed, &responses)).await
    }

    /// Installs a chaincode at both peers and returns the package's id.
    async fn install(&self, name: &str, component: &[u8]) -> String {
        let package = Bytes::from(crate::chaincode::package::pack(name, component).unwrap());
        let mut id = String::new();
        for peer in [&self.one, &self.two] {
            let args = InstallChaincodeArgs { chaincode_install_package: package.clone() }.encode_to_vec();
            let install = proposal(&peer.admin, "", "_lifecycle", &[b"InstallChaincode", &args]);
            let answer = peer.call(&install).await.response.unwrap();
            assert_eq!((answer.status, answer.message.as_str()), (200, ""));
            id = InstallChaincodeResult::decode(answer.payload).unwrap().package_id;
        }
        id
    }

    /// Installs a chaincode at both peers, approves it for both organisations and commits its definition.
    async fn deploy(&mut self, name: &str, component: &[u8]) {
        self.approve(name, component).await;
        let commit = lifecycle(&self.one.admin, "CommitChaincodeDefinition", &commit_arguments(name));
        assert_eq!(self.submit(&commit, true).await, TxValidationCode::Valid);
    }

    /// Installs a chaincode at both peers and approves it for both organisations.
    async fn approve(&mut self, name: &str, component: &[u8]) {
        let id = self.install(name, component).await;
        for first in [true, false] {
            let approval = approval(name, Some(local(&id)));
            let peer = if first { &self.one } else { &self.two };
            let signed = lifecycle(&peer.admin, "ApproveChaincodeDefinitionForMyOrg", &approval);
            let response = peer.call(&signed).await;
            assert_eq!(response.response.as_ref().unwrap().status, 200, "{response:?}");
            assert_eq!(self.commit(envelope(&signed, &[response])).await, TxValidationCode::Valid);
        }
    }
}

/// The source of an approval that chooses an installed package.
fn local(package_id: &str) -> ChaincodeSource {
    let local = chaincode_source::Local { package_id: package_id.to_owned() };
    ChaincodeSource { r#type: Some(chaincode_source::Type::LocalPackage(local)) }
}

fn approval(name: &str, source: Option<ChaincodeSource>) -> ApproveChaincodeDefinitionForMyOrgArgs {
    ApproveChaincodeDefinitionForMyOrgArgs {
        sequence: 1,
        name: name.to_owned(),
        version: "1.0".to_owned(),
        source,
        ..ApproveChaincodeDefinitionForMyOrgArgs::default()
    }
}

fn commit_arguments(name: &str) -> CommitChaincodeDefinitionArgs {
    CommitChaincodeDefinitionArgs {
        sequence: 1,
        name: name.to_owned(),
        version: "1.0".to_owned(),
        ..CommitChaincodeDefinitionArgs::default()
    }
}

/// A chaincode in WebAssembly text that writes `key` = `value`, sets event `Written` and answers `done`; with a second argument (any)
/// it refuses with status 500 after the write.
fn writer() -> Vec<u8> {
    let text = r#"(component
        (type $types (instance
            (type $response (record (field "status" u32) (field "message" string) (field "payload" (list u8))))
            (export "response" (type (eq $response)))
            (type $invocation (record (field "arguments" (list (list u8))) (field "is-init" bool)))
            (export "invocation" (type (eq $invocation)))
        ))
        (import "consort:chaincode/types@1.0.0" (instance $t (type $types)))
        (alias export $t "response" (type $response))
        (alias export $t "invocation" (type $invocation))
        (type $state (instance
            (export "put" (func (param "key" string) (param "value" (list u8)) (result (result (error string)))))
        ))
        (import "consort:chaincode/state@1.0.0" (instance $s (type $state)))
        (type $transaction (instance
            (export "set-event" (func (param "name" string) (param "payload" (list u8)) (result (result (error string)))))
        ))
        (import "consort:chaincode/transaction@1.0.0" (instance $x (type $transaction)))
        (core module $memory
            (memory (export "memory") 1)
            (global $next (mut i32) (i32.const 4096))
            (func (export "realloc") (param i32 i32 i32 i32) (result i32)
                (local $at i32)
                global.get $next local.set $at
                global.get $next local.get 3 i32.add i32.const 15 i32.add i32.const -16 i32.and global.set $next
                local.get $at))
        (core instance $mem (instantiate $memory))
        (core func $put (canon lower (func $s "put") (memory (core memory $mem "memory")) (realloc (core func $mem "realloc"))))
        (core func $event (canon lower (func $x "set-event") (memory (core memory $mem "memory")) (realloc (core func $mem "realloc"))))
        (core module $code
            (import "mem" "memory" (memory 1))
            (import "host" "put" (func $put (param i32 i32 i32 i32 i32)))
            (import "host" "event" (func $event (param i32 i32 i32 i32 i32)))
            (data (i32.const 16) "key")
            (data (i32.const 32) "value")
            (data (i32.const 48) "Written")
            (data (i32.const 80) "done")
            (data (i32.const 96) "not today")
            (func (export "invoke") (param $arguments i32) (param $count i32) (param $init i32) (result i32)
                (call $put (i32.const 16) (i32.const 3) (i32.const 32) (i32.const 5) (i32.const 128))
                (call $event (i32.const 48) (i32.const 7) (i32.const 32) (i32.const 5) (i32.const 128))
                (i32.store (i32.const 160) (i32.const 200))
                (i32.store (i32.const 164) (i32.const 96))
                (i32.store (i32.const 172) (i32.const 80))
                (i32.store (i32.const 176) (i32.const 4))
                (if (i32.gt_u (local.get $count) (i32.const 1)) (then
                    (i32.store (i32.const 160) (i32.const 500))
                    (i32.store (i32.const 168) (i32.const 9))))
                i32.const 160))
        (core instance $run (instantiate $code
            (with "mem" (instance $mem))
            (with "host" (instance (export "put" (func $put)) (export "event" (func $event))))))
        (func (export "invoke") (param "invocation" $invocation) (result $response)
            (canon lift (core func $run "invoke") (memory (core memory $mem "memory")) (realloc (core func $mem "realloc"))))
    )"#;
    wat::parse_str(text).unwrap()
}

fn action(response: &ProposalResponse) -> (ProposalResponsePayload, ChaincodeAction) {
    let payload = ProposalResponsePayload::decode(response.payload.clone()).unwrap();
    let action = ChaincodeAction::decode(payload.extension.clone()).unwrap();
    (payload, action)
}

#[tokio::test]
async fn an_evaluation_is_answered_without_a_signature_and_its_failures_like_those_of_a_transaction() {
    let mut consortium = Consortium::new();
    consortium.deploy("writer", &writer()).await;
    let Peer { endorser, client, .. } = &consortium.one;
    let answer = endorser.evaluate(&proposal(client, CHANNEL, "writer", &[b"Write"]).message).await.unwrap();
    assert_eq!(answer.response.as_ref().unwrap().payload, "done");
    assert!(answer.endorsement.is_none() && answer.payload.is_empty() && answer.interest.is_none());

    let fails = proposal(client, CHANNEL, "writer", &[b"Write", b"badly"]);
    let answer = endorser.evaluate(&fails.message).await.unwrap();
    assert_eq!(answer.response.as_ref().unwrap().status, 500);
    assert_eq!(answer, endorser.process(&fails.message).await.unwrap());

    let mut forged = proposal(client, CHANNEL, "writer", &[b"Write"]).message;
    forged.signature = fails.message.signature.clone();
    assert!(matches!(endorser.evaluate(&forged).await, Err(EndorserError::Invalid(_))));
}

#[tokio::test]
async fn a_chaincode_goes_from_its_package_to_a_committed_transaction() {
    let mut consortium = Consortium::new();
    consortium.deploy("writer", &writer()).await;
    assert_eq!(
        consortium.one.endorser.chaincodes(&consortium.one.channel),
        [("writer".to_owned(), "1.0".to_owned())]
    );

    let signed = proposal(&consortium.one.client, CHANNEL, "writer", &[b"Write"]);
    let responses = [consortium.one.call(&signed).await, consortium.two.call(&signed).await];
    assert_eq!(responses[0].payload, responses[1].payload);
    let response = &responses[0];
    assert_eq!(response.version, 1);
    assert_eq!(response.response.as_ref().unwrap().payload, "done");

    let opened = Proposal::open(&signed.message).unwrap();
    let (payload, action) = action(response);
    let hash = preimage::proposal_hash(
        &opened.channel_header_bytes,
        &opened.signature_header_bytes,
        &opened.payload_without_transient(),
    );
    assert_eq!(payload.proposal_hash[..], hash);
    let id = action.chaincode_id.unwrap();
    assert_eq!((id.name.as_str(), id.version.as_str()), ("writer", "1.0"));
    assert_eq!(action.response, response.response);
    let event = ChaincodeEvent::decode(action.events).unwrap();
    assert_eq!((event.chaincode_id.as_str(), event.tx_id.as_str()), ("writer", opened.tx_id.as_str()));
    assert_eq!((event.event_name.as_str(), &event.payload[..]), ("Written", &b"value"[..]));

    let results = TxReadWriteSet::decode(&action.results).unwrap();
    let names: Vec<&str> = results.namespaces.iter().map(|namespace| namespace.namespace.as_str()).collect();
    assert_eq!(names, ["_lifecycle", "writer"]);
    assert_eq!(results.namespaces[0].reads[0].key, "namespaces/fields/writer/Sequence");
    assert_eq!(results.namespaces[1].writes[0].key, "key");

    let endorsement = response.endorsement.as_ref().unwrap();
    let endorser = consortium.one.channel.bundle().msps().deserialize(&endorsement.endorser).unwrap();
    let message = preimage::endorsement(&response.payload, &endorsement.endorser);
    endorser.verify(&message, &endorsement.signature).unwrap();
    let interest = response.interest.as_ref().unwrap();
    assert_eq!(interest.chaincodes.len(), 1);
    assert_eq!(interest.chaincodes[0].name, "writer");

    let ordered = envelope(&signed, &responses);
    assert_eq!(consortium.commit(ordered).await, TxValidationCode::Valid);
    let value = consortium.two.channel.ledger().snapshot().get("writer", "key").unwrap().unwrap();
    assert_eq!(value.value, "value");

    let error = consortium.one.endorser.process(&signed.message).await.unwrap_err();
    assert!(
        error.to_string().starts_with(&format!("duplicate transaction found [{}]. Creator [", opened.tx_id))
    );
}

#[tokio::test]
async fn a_failed_execution_shows_its_payload_and_is_not_endorsed() {
    let mut consortium = Consortium::new();
    consortium.deploy("writer", &writer()).await;
    let response =
        consortium.one.call(&proposal(&consortium.one.client, CHANNEL, "writer", &[b"Write", b"no"])).await;
    let answer = response.response.as_ref().unwrap();
    assert_eq!((answer.status, answer.message.as_str()), (500, "not today"));
    assert!(response.endorsement.is_none());
    assert!(!response.payload.is_empty());
    assert_ne!(response.interest, None::<ChaincodeInterest>);
}

#[tokio::test]
async fn what_is_not_defined_or_not_installed_is_a_failure_of_this_peer() {
    let mut consortium = Consortium::new();
    let response = consortium.one.call(&proposal(&consortium.one.client, CHANNEL, "absent", &[b"Run"])).await;
    let answer = response.response.unwrap();
    assert_eq!(answer.status, 500);
    assert_eq!(
        answer.message,
        "make sure the chaincode absent has been successfully defined on channel mychannel and try again: chaincode \
         absent not found"
    );
    assert!(response.payload.is_empty());

    for first in [true, false] {
        let peer = if first { &consortium.one } else { &consortium.two };
        let signed =
            lifecycle(&peer.admin, "ApproveChaincodeDefinitionForMyOrg", &approval("elsewhere", None));
        let response = peer.call(&signed).await;
        assert_eq!(consortium.commit(envelope(&signed, &[response])).await, TxValidationCode::Valid);
    }
    let commit =
        lifecycle(&consortium.one.admin, "CommitChaincodeDefinition", &commit_arguments("elsewhere"));
    assert_eq!(consortium.submit(&commit, true).await, TxValidationCode::Valid);
    let response =
        consortium.one.call(&proposal(&consortium.one.client, CHANNEL, "elsewhere", &[b"Run"])).await;
    let answer = response.response.unwrap();
    assert!(
        answer.message.starts_with("error in simulation: failed to execute transaction ")
            && answer
                .message
                .ends_with("chaincode definition for 'elsewhere' exists, but chaincode is not installed"),
        "{}",
        answer.message
    );
}

#[tokio::test]
async fn a_definition_needs_the_next_sequence_and_the_organisations_own_agreement() {
    let mut consortium = Consortium::new();
    let commit = lifecycle(&consortium.one.admin, "CommitChaincodeDefinition", &commit_arguments("basic"));
    let answer = consortium.one.call(&commit).await.response.unwrap();
    assert_eq!(
        answer.message,
        "failed to invoke backing implementation of 'CommitChaincodeDefinition': chaincode definition not agreed to by \
         this org (Org1MSP)"
    );

    let signed =
        lifecycle(&consortium.one.admin, "ApproveChaincodeDefinitionForMyOrg", &approval("basic", None));
    let response = consortium.one.call(&signed).await;
    assert_eq!(consortium.commit(envelope(&signed, &[response])).await, TxValidationCode::Valid);
    let again =
        lifecycle(&consortium.one.admin, "ApproveChaincodeDefinitionForMyOrg", &approval("basic", None));
    let answer = consortium.one.call(&again).await.response.unwrap();
    assert!(
        answer.message.ends_with(
            "attempted to redefine uncommitted sequence (1) for namespace basic with unchanged content"
        ),
        "{}",
        answer.message
    );

    let readiness = CheckCommitReadinessArgs {
        sequence: 1,
        name: "basic".to_owned(),
        version: "1.0".to_owned(),
        ..CheckCommitReadinessArgs::default()
    };
    let check = lifecycle(&consortium.one.client, "CheckCommitReadiness", &readiness);
    let result =
        CheckCommitReadinessResult::decode(consortium.one.call(&check).await.response.unwrap().payload)
            .unwrap();
    assert_eq!(
        result.approvals,
        BTreeMap::from([("Org1MSP".to_owned(), true), ("Org2MSP".to_owned(), false)])
    );
    assert_eq!(result.mismatches["Org2MSP"].items, ["ChaincodeParameters"]);

    for (sequence, text) in [
        (0, "requested sequence is 0, but first definable sequence number is 1"),
        (5, "requested sequence 5 is larger than the next available sequence number 1"),
    ] {
        let arguments = ApproveChaincodeDefinitionForMyOrgArgs { sequence, ..approval("basic", None) };
        let signed = lifecycle(&consortium.one.admin, "ApproveChaincodeDefinitionForMyOrg", &arguments);
        let answer = consortium.one.call(&signed).await.response.unwrap();
        assert!(answer.message.ends_with(text), "{}", answer.message);
    }
    let query = QueryChaincodeDefinitionArgs { name: "basic".to_owned() };
    let answer = consortium
        .one
        .call(&lifecycle(&consortium.one.client, "QueryChaincodeDefinition", &query))
        .await
        .response
        .unwrap();
    assert_eq!(answer.status, 404);
    assert!(answer.message.ends_with("namespace basic is not defined"), "{}", answer.message);
}

#[tokio::test]
async fn installed_packages_name_the_channels_that_use_them_and_are_for_administrators() {
    let mut consortium = Consortium::new();
    consortium.deploy("writer", &writer()).await;
    let peer = &consortium.one;
    let query = |signer| proposal(signer, "", "_lifecycle", &[b"QueryInstalledChaincodes", b""]);
    let response = peer.call(&query(&peer.admin)).await;
    assert!(response.endorsement.is_none());
    let result = QueryInstalledChaincodesResult::decode(response.response.unwrap().payload).unwrap();
    let used = &result.installed_chaincodes[0].references[CHANNEL].chaincodes[0];
    assert_eq!((used.name.as_str(), used.version.as_str()), ("writer", "1.0"));

    let answer = peer.call(&query(&peer.client)).await.response.unwrap();
    assert_eq!(answer.status, 500);
    assert!(
        answer.message.starts_with("Failed to authorize invocation due to failed ACL check: "),
        "{}",
        answer.message
    );
}

#[tokio::test]
async fn the_peer_tells_its_channels_and_blocks() {
    let network = Network::new(&[]);
    let peer = Peer::new(&network, &network.org1);
    let answer = peer.call(&proposal(&peer.client, "", "cscc", &[b"GetChannels"])).await.response.unwrap();
    let channels = ChannelQueryResponse::decode(answer.payload).unwrap().channels;
    assert_eq!(channels.iter().map(|channel| channel.channel_id.as_str()).collect::<Vec<_>>(), [CHANNEL]);

    let block = proposal(&peer.client, "", "qscc", &[b"GetBlockByNumber", CHANNEL.as_bytes(), b"0"]);
    let answer = peer.call(&block).await.response.unwrap();
    assert_eq!(Block::decode(answer.payload).unwrap().header, network.genesis.header);
    let info = proposal(&peer.client, CHANNEL, "qscc", &[b"GetChainInfo", CHANNEL.as_bytes()]);
    let response = peer.call(&info).await;
    assert!(response.endorsement.is_some());
    let (_, action) = action(&response);
    assert_eq!(action.chaincode_id.unwrap().version, "syscc");
    let unknown = proposal(&peer.client, "", "qscc", &[b"GetChainInfo", b"other"]);
    assert_eq!(peer.call(&unknown).await.response.unwrap().message, "Invalid chain ID, other");

    let again = proposal(&peer.admin, "", "cscc", &[b"JoinChain", &network.genesis.encode_to_vec()]);
    let answer = peer.call(&again).await.response.unwrap();
    assert_eq!(
        answer.message,
        "cannot create ledger from genesis block: ledger [mychannel] already exists with state [ACTIVE]"
    );
    let foreign = proposal(&peer.client, "", "cscc", &[b"JoinChain", &network.genesis.encode_to_vec()]);
    assert!(peer.call(&foreign).await.response.unwrap().message.starts_with("access denied for [JoinChain]"));
    assert_eq!(peer.channels.list().len(), 1);
}

#[tokio::test]
async fn proposals_that_are_not_in_order_are_refused_in_fabrics_words() {
    let network = Network::new(&[]);
    let peer = Peer::new(&network, &network.org1);
    let fine = || parts(&peer.client, CHANNEL, "basic", vec![Bytes::from_static(b"Run")]);
    let refusal = async |signed: Signed| peer.endorser.process(&signed.message).await.unwrap_err();

    let mut wrong = fine();
    wrong.tx_id = "00".to_owned();
    let text = refusal(sign(&peer.client, wrong)).await.to_string();
    assert!(
        text.starts_with("error validating proposal: incorrectly computed txid '00' -- expected '"),
        "{text}"
    );

    let mut signed = sign(&peer.client, fine());
    signed.message.signature = peer.client.sign(b"something else").unwrap().into();
    let text = refusal(signed).await.to_string();
    assert_eq!(text, "error validating proposal: access denied: channel [mychannel] creator org [Org1MSP]");

    let stranger = Organisation::new("Org3MSP").client;
    let text = refusal(proposal(&stranger, CHANNEL, "basic", &[b"Run"])).await.to_string();
    assert_eq!(
        text,
        "error validating proposal: access denied: channel [mychannel] creator org unknown, creator is malformed"
    );

    let mut late = fine();
    late.timestamp.seconds -= 901;
    let error = refusal(sign(&peer.client, late)).await;
    assert!(
        matches!(&error, EndorserError::Unavailable(text) if text.starts_with("request unauthorized due to incorrect timestamp"))
    );

    let garbage = SignedProposal { proposal_bytes: Bytes::from_static(b"\xff"), signature: Bytes::new() };
    assert!(matches!(peer.endorser.process(&garbage).await.unwrap_err(), EndorserError::Invalid(_)));

    let other = proposal(&peer.client, "other", "basic", &[b"Run"]);
    let response = peer.call(&other).await;
    let answer = response.response.unwrap();
    assert_eq!((answer.status, answer.message.as_str()), (500, "channel 'other' not found"));
}

mod agreement;
mod evaluate;
mod garbage;
mod refusals;
mod resources;
mod upgrade;
