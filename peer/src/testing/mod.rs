//! A small consortium in memory, for tests: two organisations and an orderer with keys, certificates and a channel, and a
//! builder of transactions whose every part can be broken.

pub(crate) mod configuration;
mod definition;
mod organisation;
mod transaction;

use std::sync::Arc;

use bytes::Bytes;
use consort_crypto::preimage;
use consort_protos::fabric::common::{
    Block, BlockData, BlockHeader, BlockMetadata, BlockMetadataIndex, ConfigEnvelope, ConfigGroup, Envelope,
    LastConfig, Metadata, MetadataSignature, OrdererBlockMetadata, Payload, SignatureHeader,
};
use consort_protos::fabric::msp::{FabricMspConfig, MspConfig};
use consort_protos::fabric::protos::{ApplicationPolicy, CollectionConfigPackage, TxValidationCode};
use consort_protos::ids::BlockNumber;
use proptest::prelude::{ProptestConfig, Strategy};
use proptest::test_runner::{TestCaseResult, TestRunner};
use prost::Message;

use crate::channel::ChannelHandle;
use crate::committer::block::header_hash;
use crate::registry::Channels;

pub(crate) use definition::{channel_policy, collections, spelled_policy};
pub(crate) use organisation::{Organisation, TlsPair};
pub(crate) use transaction::{TransactionBuilder, write, writes};

use definition::definition_set;

/// A property of many inputs, as `proptest!` checks it, but of something that is set up once and dropped at the end: what a
/// static holds leaves its folders behind.
pub(crate) fn for_all<S: Strategy>(cases: u32, inputs: &S, check: impl Fn(S::Value) -> TestCaseResult) {
    let outcome = TestRunner::new(ProptestConfig::with_cases(cases)).run(inputs, check);
    assert!(outcome.is_ok(), "{}", outcome.err().map(|found| found.to_string()).unwrap_or_default());
}

/// Two organisations, an orderer, and the genesis block of their channel.
pub(crate) struct Network {
    pub(crate) org1: Organisation,
    pub(crate) org2: Organisation,
    pub(crate) orderer: Organisation,
    pub(crate) genesis: Block,
}

/// Name of the test network's channel.
pub(crate) const CHANNEL: &str = "mychannel";

impl Network {
    /// A network whose orderers are at the given endpoints. The configuration is that of the golden channel with other
    /// certificates: endorsement and lifecycle endorsement need a peer of both organisations.
    pub(crate) fn new(orderer_endpoints: &[String]) -> Self {
        Self::with(orderer_endpoints, &[])
    }

    /// The same with more capabilities of the application.
    pub(crate) fn with(orderer_endpoints: &[String], capabilities: &[&str]) -> Self {
        Self::altered(orderer_endpoints, |root| {
            capabilities.iter().for_each(|name| configuration::demand(root, name));
        })
    }

    /// The same with another configuration.
    pub(crate) fn altered(orderer_endpoints: &[String], alter: impl FnOnce(&mut ConfigGroup)) -> Self {
        let org1 = Organisation::new("Org1MSP");
        let org2 = Organisation::new("Org2MSP");
        let orderer = Organisation::new("OrdererMSP");
        let mut genesis = crate::committer::golden_block(0);
        let envelope = genesis.data.as_ref().expect("data").data[0].clone();
        let mut envelope = Envelope::decode(envelope).expect("an envelope");
        let mut payload = Payload::decode(envelope.payload).expect("a payload");
        let mut config = ConfigEnvelope::decode(payload.data).expect("a configuration");
        let root =
            config.config.as_mut().and_then(|config| config.channel_group.as_mut()).expect("a channel group");
        for organisation in [&org1, &org2, &orderer] {
            replace_msp(root, organisation);
        }
        replace_endpoints(root, orderer_endpoints);
        alter(root);
        payload.data = config.encode_to_vec().into();
        envelope.payload = payload.encode_to_vec().into();
        let data = BlockData { data: vec![envelope.encode_to_vec().into()] };
        genesis.header.as_mut().expect("a header").data_hash =
            Bytes::copy_from_slice(&preimage::block_data_hash(&data));
        genesis.data = Some(data);
        Self { org1, org2, orderer, genesis }
    }

    /// The next block with these envelopes, signed by the orderer.
    pub(crate) fn block_after(&self, previous: &Block, envelopes: Vec<Bytes>) -> Block {
        let data = BlockData { data: envelopes };
        let header = BlockHeader {
            number: previous.header.as_ref().expect("a header").number + 1,
            previous_hash: Bytes::copy_from_slice(&header_hash(
                previous,
                consort_crypto::hash::HashAlgorithm::Sha256,
            )),
            data_hash: Bytes::copy_from_slice(&preimage::block_data_hash(&data)),
        };
        let value = Bytes::from(
            OrdererBlockMetadata {
                last_config: Some(LastConfig { index: 0 }),
                ..OrdererBlockMetadata::default()
            }
            .encode_to_vec(),
        );
        let signature_header = Bytes::from(
            SignatureHeader {
                creator: self.orderer.orderer.serialized().clone(),
                nonce: Bytes::from_static(b"a nonce of 24 bytes, yes"),
            }
            .encode_to_vec(),
        );
        let message = preimage::block_signature(&value, &signature_header, &header);
        let signature = self.orderer.orderer.sign(&message).expect("a signature").into();
        let signatures = Metadata {
            value,
            signatures: vec![MetadataSignature {
                signature_header,
                signature,
                ..MetadataSignature::default()
            }],
        };
        let mut metadata = vec![Bytes::new(); 5];
        metadata[BlockMetadataIndex::Signatures as usize] = signatures.encode_to_vec().into();
        Block { header: Some(header), data: Some(data), metadata: Some(BlockMetadata { metadata }) }
    }

    /// A builder of a transaction of Org1's client.
    pub(crate) fn transaction(&self, chaincode: &str) -> TransactionBuilder {
        TransactionBuilder::new(Arc::clone(&self.org1.client), chaincode)
    }

    /// The transaction that defines a chaincode, endorsed by both organisations. `policy` is its `ApplicationPolicy`.
    pub(crate) fn definition(
        &self,
        chaincode: &str,
        policy: &ApplicationPolicy,
        collections: &CollectionConfigPackage,
    ) -> TransactionBuilder {
        let mut builder = self.transaction("_lifecycle");
        builder.version = "syscc".to_owned();
        builder.set = definition_set(chaincode, policy, collections);
        builder.endorsers = vec![Arc::clone(&self.org1.peer), Arc::clone(&self.org2.peer)];
        builder
    }
}

/// A joined channel on which chaincode `basic` is defined: endorsement by both organisations, collection `own` by Org1.
pub(crate) struct TestChannel {
    pub(crate) network: Network,
    pub(crate) channels: Arc<Channels>,
    pub(crate) channel: Arc<ChannelHandle>,
    last: Block,
    _folder: tempfile::TempDir,
}

impl TestChannel {
    pub(crate) async fn new() -> Self {
        Self::with_orderers(&[]).await
    }

    pub(crate) async fn with_orderers(endpoints: &[String]) -> Self {
        Self::of(Network::new(endpoints)).await
    }

    /// The channel of a network.
    pub(crate) async fn of(network: Network) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let channels = Channels::open(folder.path()).expect("no channels yet");
        let channel = channels.join(&network.genesis).expect("joined");
        let last = network.genesis.clone();
        let mut bench = Self { network, channels, channel, last, _folder: folder };
        let definition = bench
            .network
            .definition("basic", &channel_policy("/Channel/Application/Endorsement"), &collections())
            .build();
        assert_eq!(bench.commit(vec![definition]).await, [TxValidationCode::Valid]);
        bench
    }

    /// A transaction of `basic` that both organisations endorse.
    pub(crate) fn basic(&self) -> TransactionBuilder {
        self.network.transaction("basic").endorsed_by(&[&self.network.org1.peer, &self.network.org2.peer])
    }

    /// Notes a block that reaches the channel by another way as its last one.
    pub(crate) fn advance(&mut self, block: Block) {
        self.last = block;
    }

    /// The next block.
    pub(crate) fn next_block(&self, envelopes: Vec<Bytes>) -> Block {
        self.network.block_after(&self.last, envelopes)
    }

    /// Commits one block and returns its codes.
    pub(crate) async fn commit(&mut self, envelopes: Vec<Bytes>) -> Vec<TxValidationCode> {
        let next = self.next_block(envelopes);
        crate::committer::feed(&self.channel, [next.clone()]).await;
        self.last = next;
        let number = BlockNumber::new(self.last.header.as_ref().expect("a header").number);
        let stored = self.channel.ledger().block(number).expect("readable").expect("stored");
        consort_protos::block::flags(&stored)
            .expect("codes")
            .iter()
            .map(|flag| TxValidationCode::try_from(i32::from(*flag)).expect("a code"))
            .collect()
    }
}

/// A peer of its own that has joined a channel.
pub(crate) struct JoinedPeer {
    pub(crate) channels: Arc<Channels>,
    pub(crate) channel: Arc<ChannelHandle>,
    folder: tempfile::TempDir,
}

impl JoinedPeer {
    pub(crate) fn new(genesis: &Block) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let channels = Channels::open(folder.path()).expect("no channels yet");
        let channel = channels.join(genesis).expect("joined");
        Self { channels, channel, folder }
    }

    /// Where its books are.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }
}

/// Puts the organisation's own root into every group that has an MSP of its id.
fn replace_msp(group: &mut ConfigGroup, organisation: &Organisation) {
    for child in group.groups.values_mut() {
        replace_msp(child, organisation);
    }
    let Some(value) = group.values.get_mut("MSP") else { return };
    let mut msp = MspConfig::decode(value.value.clone()).expect("an MSP");
    let mut fabric = FabricMspConfig::decode(msp.config).expect("an MSP configuration");
    if fabric.name == organisation.msp_id.as_str() {
        let root = Bytes::from(organisation.root_pem.clone());
        fabric.root_certs = vec![root.clone()];
        fabric.tls_root_certs = vec![root.clone()];
        fabric.admins.clear();
        if let Some(units) = &mut fabric.fabric_node_ous {
            for unit in [
                &mut units.client_ou_identifier,
                &mut units.peer_ou_identifier,
                &mut units.admin_ou_identifier,
                &mut units.orderer_ou_identifier,
            ] {
                unit.iter_mut().for_each(|unit| unit.certificate = root.clone());
            }
        }
    }
    msp.config = fabric.encode_to_vec().into();
    value.value = msp.encode_to_vec().into();
}

fn replace_endpoints(root: &mut ConfigGroup, endpoints: &[String]) {
    use consort_protos::fabric::common::{ConfigValue, OrdererAddresses};
    root.values.remove("OrdererAddresses");
    let orderer = root.groups.get_mut("Orderer").expect("an orderer group");
    for organisation in orderer.groups.values_mut() {
        let value = OrdererAddresses { addresses: endpoints.to_vec() }.encode_to_vec().into();
        let entry = ConfigValue { version: 0, value, mod_policy: "Admins".to_owned() };
        organisation.values.insert("Endpoints".to_owned(), entry);
    }
}
