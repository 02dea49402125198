//! What the system chaincodes answer, function by function, whom they refuse, and in which words.

use std::sync::Arc;

use bytes::Bytes;
use consort_crypto::preimage;
use consort_msp::SigningIdentity;
use consort_protos::block::flags;
use consort_protos::consort::privatedata::Status;
use consort_protos::fabric::common::{Block, BlockchainInfo, Config};
use consort_protos::fabric::protos::{
    ChannelQueryResponse, ProcessedTransaction, Response,
    TxValidationCode::{EndorsementPolicyFailure, Valid},
};
use prost::Message;

use super::SystemCall;
use super::cscc::Cscc;
use super::qscc::Qscc;
use crate::endorser::Access;
use crate::registry::Channels;
use crate::testing::configuration::demand;
use crate::testing::{CHANNEL, Network, TestChannel};

/// The system chaincodes of a peer of Org1 in a channel.
struct Bench {
    test: TestChannel,
    qscc: Qscc,
    cscc: Cscc,
}

impl Bench {
    async fn new() -> Self {
        let test = TestChannel::new().await;
        let access = access(&test.network, &test.channels);
        let qscc = Qscc::new(Arc::clone(&test.channels), Arc::clone(&access));
        Self { cscc: Cscc::new(Arc::clone(&test.channels), access), qscc, test }
    }

    fn qscc(&self, signer: &SigningIdentity, arguments: &[&[u8]]) -> Response {
        self.call(signer, arguments, |call| self.qscc.invoke(call))
    }

    fn cscc(&self, signer: &SigningIdentity, arguments: &[&[u8]]) -> Response {
        self.call(signer, arguments, |call| self.cscc.invoke(call))
    }

    fn call(
        &self,
        signer: &SigningIdentity,
        arguments: &[&[u8]],
        invoke: impl FnOnce(&SystemCall<'_>) -> Response,
    ) -> Response {
        let creator = signer.identity(self.test.channel.bundle().msps()).expect("known to the channel");
        let arguments: Vec<Bytes> =
            arguments.iter().map(|argument| Bytes::copy_from_slice(argument)).collect();
        invoke(&SystemCall { creator: &creator, arguments: &arguments })
    }

    /// What `qscc` tells a client of Org1 about the channel.
    fn told<M: Message + Default>(&self, function: &str, argument: &[u8]) -> M {
        let arguments = [function.as_bytes(), CHANNEL.as_bytes(), argument];
        decoded(self.qscc(&self.test.network.org1.client, &arguments))
    }
}

fn access(network: &Network, channels: &Channels) -> Arc<Access> {
    let channel = channels.get(CHANNEL).expect("joined");
    Arc::new(Access::new(Arc::clone(channel.bundle().msps()), network.org1.msp_id.clone()))
}

fn decoded<M: Message + Default>(response: Response) -> M {
    assert_eq!(response.status, 200, "{}", response.message);
    M::decode(response.payload).expect("the function's answer")
}

fn refused(response: Response) -> String {
    assert_eq!((response.status, response.payload), (500, Bytes::new()));
    response.message
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_are_told_by_number_hash_and_transaction() {
    let mut bench = Bench::new().await;
    let (good, bad) = (bench.test.basic(), bench.test.basic().endorsed_by(&[]));
    // The same envelope twice: the first copy is the one that counts.
    let envelopes = vec![good.build(), bad.build(), good.build()];
    bench.test.commit(envelopes).await;
    let last = bench.test.basic();
    bench.test.commit(vec![last.build()]).await;

    let info: BlockchainInfo = bench.told("GetChainInfo", b"");
    assert_eq!(info.height, 4);
    let block: Block = bench.told("GetBlockByNumber", b"2");
    let header = block.header.clone().expect("a header");
    assert_eq!(info.previous_block_hash[..], preimage::block_hash(&header));
    assert_eq!(flags(&block), Some(&[0, 10, 9][..]), "with the codes");
    assert_eq!(bench.told::<Block>("GetBlockByHash", &info.previous_block_hash), block);
    for builder in [&good, &bad] {
        assert_eq!(bench.told::<Block>("GetBlockByTxID", builder.tx_id().as_bytes()), block);
    }
    // As in Fabric the largest number stands for the newest block.
    let newest: Block = bench.told("GetBlockByNumber", u64::MAX.to_string().as_bytes());
    assert_eq!(newest.header.expect("a header").number, 3);
    assert_eq!(bench.told::<Block>("GetBlockByNumber", b"0").header, bench.test.network.genesis.header);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_is_told_by_its_id_with_its_code() {
    let mut bench = Bench::new().await;
    let (good, bad) = (bench.test.basic(), bench.test.basic().endorsed_by(&[]));
    let envelopes = vec![good.build(), bad.build()];
    bench.test.commit(envelopes.clone()).await;
    for (builder, envelope, code) in
        [(&good, &envelopes[0], Valid), (&bad, &envelopes[1], EndorsementPolicyFailure)]
    {
        let found: ProcessedTransaction = bench.told("GetTransactionByID", builder.tx_id().as_bytes());
        assert_eq!(found.validation_code, code as i32);
        assert_eq!(found.transaction_envelope.expect("an envelope").encode_to_vec(), envelope[..]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_is_refused_in_fabrics_words() {
    let bench = Bench::new().await;
    let (client, channel) = (&bench.test.network.org1.client, CHANNEL.as_bytes());
    let cases: [(&[&[u8]], &str); 9] = [
        (
            &[b"GetBlockByNumber", channel, b"99"],
            "Failed to get block number 99, error no such block number [99] in index",
        ),
        (
            &[b"GetBlockByNumber", channel, b"-1"],
            "Failed to parse block number with error invalid digit found in string",
        ),
        (
            &[b"GetBlockByHash", channel, b"\xab"],
            "Failed to get block hash ab, error no such block hash [ab] in index",
        ),
        (
            &[b"GetBlockByTxID", channel, b"x"],
            "Failed to get block for txID x, error no such transaction ID [x] in index",
        ),
        (
            &[b"GetTransactionByID", channel, b"x"],
            "Failed to get transaction with id x, error no such transaction ID [x] in index",
        ),
        (&[b"GetBlockByNumber", channel], "missing 3rd argument for GetBlockByNumber"),
        (&[b"GetChainInfo"], "Incorrect number of arguments, 1"),
        (&[], "Incorrect number of arguments, 0"),
        (&[b"GetChainInfo", b"elsewhere"], "Invalid chain ID, elsewhere"),
    ];
    for (arguments, expected) in cases {
        assert_eq!(refused(bench.qscc(client, arguments)), expected);
    }
    // What has no function has no policy that lets clients in.
    let unknown = refused(bench.qscc(client, &[b"GetAll", channel, b"x"]));
    assert!(unknown.starts_with("access denied for [GetAll][mychannel]: ["), "{unknown}");
    let none = refused(bench.qscc(client, &[b"GetAttestation", channel]));
    assert!(none.contains("no attestation yet"), "{none}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_readers_of_the_channel_are_told_about_it() {
    let bench = Bench::new().await;
    // A member of the channel's ordering organisation, which is none of its application.
    let outsider = &bench.test.network.orderer.client;
    let functions = [
        "GetChainInfo",
        "GetBlockByNumber",
        "GetBlockByHash",
        "GetBlockByTxID",
        "GetTransactionByID",
        "GetAttestation",
    ];
    for function in functions {
        let denied = refused(bench.qscc(outsider, &[function.as_bytes(), CHANNEL.as_bytes(), b"0"]));
        assert!(denied.starts_with(&format!("access denied for [{function}][mychannel]: [")), "{denied}");
    }
    for function in ["GetConfigBlock", "GetChannelConfig"] {
        let denied = refused(bench.cscc(outsider, &[function.as_bytes(), CHANNEL.as_bytes()]));
        assert!(denied.starts_with(&format!("access denied for [{function}][mychannel]: ")), "{denied}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_configuration_is_told_with_its_block() {
    let mut bench = Bench::new().await;
    let client = Arc::clone(&bench.test.network.org1.client);
    let ask = |bench: &Bench, function: &str| bench.cscc(&client, &[function.as_bytes(), CHANNEL.as_bytes()]);
    let first: Block = decoded(ask(&bench, "GetConfigBlock"));
    assert_eq!(first.header, bench.test.network.genesis.header);
    let bundle = bench.test.channel.bundle();
    let envelope = bench.test.network.configuration(&bundle, |root| demand(root, "V2_5"));
    assert_eq!(bench.test.commit(vec![envelope]).await, [Valid]);
    let envelope = bench.test.basic().build();
    bench.test.commit(vec![envelope]).await;
    let newest: Block = decoded(ask(&bench, "GetConfigBlock"));
    assert_eq!(newest.header.expect("a header").number, 2);
    let config: Config = decoded(ask(&bench, "GetChannelConfig"));
    assert_eq!(&config, bench.test.channel.bundle().config());
    assert_eq!(config.sequence, bundle.sequence() + 1);
    let of = |name: &[u8]| refused(bench.cscc(&client, &[b"GetConfigBlock", name]));
    assert_eq!(of(b""), "Chain ID must not be nil.");
    assert_eq!(of(b"elsewhere"), "Invalid chain ID, elsewhere");
    assert_eq!(refused(bench.cscc(&client, &[b"Join"])), "Requested function Join not found.");
    assert_eq!(refused(bench.cscc(&client, &[])), "Incorrect number of arguments, 0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_administrator_lets_the_peer_join_and_members_see_where_it_is() {
    let bench = Bench::new().await;
    let network = &bench.test.network;
    let admin = network.org1.identity("admin");
    // Another peer, which is nowhere yet.
    let folder = tempfile::tempdir().expect("a folder");
    let channels = Channels::open(folder.path()).expect("no channels yet");
    let cscc = Cscc::new(Arc::clone(&channels), access(network, &bench.test.channels));
    let call = |signer: &SigningIdentity, arguments: &[&[u8]]| {
        bench.call(signer, arguments, |call| cscc.invoke(call))
    };
    let joined = |signer| {
        let list: ChannelQueryResponse = decoded(call(signer, &[b"GetChannels"]));
        list.channels.into_iter().map(|channel| channel.channel_id).collect::<Vec<_>>()
    };
    let genesis = network.genesis.encode_to_vec();
    assert_eq!(joined(&network.org1.client), [""; 0]);
    let denied = refused(call(&network.org1.client, &[b"JoinChain", &genesis]));
    assert!(denied.starts_with("access denied for [JoinChain]: ["), "{denied}");
    let denied = refused(call(&network.org2.identity("admin"), &[b"JoinChain", &genesis]));
    assert!(denied.starts_with("access denied for [JoinChain]: ["), "another organisation's: {denied}");
    let nothing = refused(call(&admin, &[b"JoinChain"]));
    assert_eq!(nothing, "Cannot join the channel <nil> configuration block provided");
    let garbage = refused(call(&admin, &[b"JoinChain", b"\xff"]));
    assert!(garbage.starts_with("Failed to reconstruct the genesis block, "), "{garbage}");
    assert_eq!(joined(&network.org1.client), [""; 0], "nothing was joined");
    assert_eq!(call(&admin, &[b"JoinChain", &genesis]).status, 200);
    assert_eq!(joined(&network.org1.client), [CHANNEL]);
    let denied = refused(call(&network.org2.client, &[b"GetChannels"]));
    assert!(denied.starts_with("access denied for [GetChannels]: "), "{denied}");
    let again = refused(call(&admin, &[b"JoinChain", &genesis]));
    assert!(again.contains("ledger [mychannel] already exists"), "{again}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_of_private_data_is_told_to_administrators() {
    let bench = Bench::new().await;
    let ask = |signer: &SigningIdentity| bench.cscc(signer, &[b"GetPrivateDataStatus", CHANNEL.as_bytes()]);
    let status: Status = decoded(ask(&bench.test.network.org1.identity("admin")));
    assert_eq!(status, Status::default(), "nothing is missing");
    let denied = refused(ask(&bench.test.network.org1.client));
    assert!(denied.starts_with("access denied for [GetPrivateDataStatus]: ["), "{denied}");
}
