//! A small consortium in memory, for tests: two organisations and an orderer with keys, certificates and a channel, and a
//! builder of transactions whose every part can be broken.

pub(crate) mod configuration;

use std::sync::Arc;

use bytes::Bytes;
use consort_crypto::bls;
use consort_crypto::key::PrivateKey;
use consort_crypto::preimage;
use consort_msp::SigningIdentity;
use consort_protos::fabric::common::{
    Block, BlockData, BlockHeader, BlockMetadata, BlockMetadataIndex, ChannelHeader, ConfigEnvelope,
    ConfigGroup, Envelope, Header, HeaderType, LastConfig, Metadata, MetadataSignature, OrdererBlockMetadata,
    Payload, SignatureHeader,
};
use consort_protos::fabric::lifecycle::{
    ChaincodeEndorsementInfo, ChaincodeValidationInfo, StateData, StateMetadata, state_data,
};
use consort_protos::fabric::msp::{FabricMspConfig, MspConfig};
use consort_protos::fabric::protos::{
    ApplicationPolicy, ChaincodeAction, ChaincodeActionPayload, ChaincodeEndorsedAction, ChaincodeEvent,
    ChaincodeHeaderExtension, ChaincodeId, ChaincodeInput, ChaincodeInvocationSpec, ChaincodeSpec,
    CollectionConfig, CollectionConfigPackage, CollectionPolicyConfig, Endorsement, ProposalResponsePayload,
    Response, StaticCollectionConfig, Transaction as TransactionMessage, TransactionAction, TxValidationCode,
    application_policy, collection_config, collection_policy_config,
};
use consort_protos::ids::{BlockNumber, MspId};
use consort_protos::proposal::chaincode_proposal_payload_without_transient;
use consort_protos::rwset::{NamespaceReadWriteSet, TxReadWriteSet, Write};
use proptest::prelude::{ProptestConfig, Strategy};
use proptest::test_runner::{TestCaseResult, TestRunner};
use prost::Message;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SerialNumber,
};

use crate::channel::ChannelHandle;
use crate::committer::block::header_hash;
use crate::registry::Channels;

/// A property of many inputs, as `proptest!` checks it, but of something that is set up once and dropped at the end: what a
/// static holds leaves its folders behind.
pub(crate) fn for_all<S: Strategy>(cases: u32, inputs: &S, check: impl Fn(S::Value) -> TestCaseResult) {
    let outcome = TestRunner::new(ProptestConfig::with_cases(cases)).run(inputs, check);
    assert!(outcome.is_ok(), "{}", outcome.err().map(|found| found.to_string()).unwrap_or_default());
}

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

/// Two organisations, an orderer, and the genesis block of their channel.
pub(crate) struct Network {
    pub(crate) org1: Organisation,
    pub(crate) org2: Organisation,
    pub(crate) orderer: Organisation,
    pub(crate) genesis: Block,
}

/// The extension of [`bls::EXTENSION_OID`].
const BLS_EXTENSION: [u64; 9] = [1, 2, 3, 4, 5, 6, 7, 8, 1000];

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

/// Collection `own` of Org1, which decides alone about writes to it.
pub(crate) fn collections() -> CollectionConfigPackage {
    let own = StaticCollectionConfig {
        name: "own".to_owned(),
        member_orgs_policy: Some(CollectionPolicyConfig {
            payload: Some(collection_policy_config::Payload::SignaturePolicy(
                consort_msp::policy::parse("OR('Org1MSP.member')").expect("a policy"),
            )),
        }),
        endorsement_policy: Some(spelled_policy("OR('Org1MSP.peer')")),
        ..StaticCollectionConfig::default()
    };
    CollectionConfigPackage {
        config: vec![CollectionConfig {
            payload: Some(collection_config::Payload::StaticCollectionConfig(own)),
        }],
    }
}

/// The reference to a policy of the channel.
pub(crate) fn channel_policy(path: &str) -> ApplicationPolicy {
    ApplicationPolicy {
        r#type: Some(application_policy::Type::ChannelConfigPolicyReference(path.to_owned())),
    }
}

/// A policy spelled out.
pub(crate) fn spelled_policy(text: &str) -> ApplicationPolicy {
    let envelope = consort_msp::policy::parse(text).expect("a policy");
    ApplicationPolicy { r#type: Some(application_policy::Type::SignaturePolicy(envelope)) }
}

fn definition_set(
    chaincode: &str,
    policy: &ApplicationPolicy,
    collections: &CollectionConfigPackage,
) -> TxReadWriteSet {
    let bytes = |message: Vec<u8>| StateData { r#type: Some(state_data::Type::Bytes(message.into())) };
    let endorsement = ChaincodeEndorsementInfo {
        version: "1".to_owned(),
        init_required: false,
        endorsement_plugin: "escc".to_owned(),
        limits: None,
    };
    let validation = ChaincodeValidationInfo {
        validation_plugin: "vscc".to_owned(),
        validation_parameter: policy.encode_to_vec().into(),
    };
    let metadata = StateMetadata {
        datatype: "ChaincodeDefinition".to_owned(),
        fields: ["Sequence", "EndorsementInfo", "ValidationInfo", "Collections"].map(str::to_owned).to_vec(),
    };
    let field = |name: &str, data: StateData| {
        write(&format!("namespaces/fields/{chaincode}/{name}"), &data.encode_to_vec())
    };
    let mut writes = vec![
        field("Collections", bytes(collections.encode_to_vec())),
        field("EndorsementInfo", bytes(endorsement.encode_to_vec())),
        field("Sequence", StateData { r#type: Some(state_data::Type::Int64(1)) }),
        field("ValidationInfo", bytes(validation.encode_to_vec())),
        write(&format!("namespaces/metadata/{chaincode}"), &metadata.encode_to_vec()),
    ];
    writes.sort_by(|left, right| left.key.cmp(&right.key));
    TxReadWriteSet {
        namespaces: vec![NamespaceReadWriteSet {
            namespace: "_lifecycle".to_owned(),
            writes,
            ..NamespaceReadWriteSet::default()
        }],
    }
}

/// A public write.
pub(crate) fn write(key: &str, value: &[u8]) -> Write {
    Write { key: key.to_owned(), is_delete: value.is_empty(), value: Bytes::copy_from_slice(value) }
}

/// A read-write set with public writes to one namespace.
pub(crate) fn writes(namespace: &str, writes: Vec<Write>) -> TxReadWriteSet {
    TxReadWriteSet {
        namespaces: vec![NamespaceReadWriteSet {
            namespace: namespace.to_owned(),
            writes,
            ..NamespaceReadWriteSet::default()
        }],
    }
}

/// A change of one opened layer, before the layers around it are signed.
pub(crate) type Change<T> = Option<Box<dyn Fn(&mut T)>>;

/// Builds an endorser transaction. Each layer can be changed before it is sealed, so that everything outside of the change
/// is right.
pub(crate) struct TransactionBuilder {
    pub(crate) creator: Arc<SigningIdentity>,
    pub(crate) nonce: Bytes,
    pub(crate) channel: String,
    pub(crate) chaincode: String,
    pub(crate) version: String,
    pub(crate) arguments: Vec<Bytes>,
    pub(crate) set: TxReadWriteSet,
    pub(crate) endorsers: Vec<Arc<SigningIdentity>>,
    pub(crate) change_channel_header: Change<ChannelHeader>,
    pub(crate) change_signature_header: Change<SignatureHeader>,
    pub(crate) change_action: Change<ChaincodeAction>,
    pub(crate) change_response: Change<ProposalResponsePayload>,
    pub(crate) change_endorsements: Change<Vec<Endorsement>>,
    pub(crate) change_action_payload: Change<ChaincodeActionPayload>,
    pub(crate) change_transaction: Change<TransactionMessage>,
    pub(crate) change_payload: Change<Payload>,
    pub(crate) change_envelope: Change<Envelope>,
}

impl TransactionBuilder {
    pub(crate) fn new(creator: Arc<SigningIdentity>, chaincode: &str) -> Self {
        let nonce: [u8; 24] = rand::random();
        Self {
            creator,
            nonce: Bytes::copy_from_slice(&nonce),
            channel: CHANNEL.to_owned(),
            chaincode: chaincode.to_owned(),
            version: "1".to_owned(),
            arguments: Vec::new(),
            set: writes(chaincode, vec![write("key", b"value")]),
            endorsers: Vec::new(),
            change_channel_header: None,
            change_signature_header: None,
            change_action: None,
            change_response: None,
            change_endorsements: None,
            change_action_payload: None,
            change_transaction: None,
            change_payload: None,
            change_envelope: None,
        }
    }

    pub(crate) fn set(mut self, set: TxReadWriteSet) -> Self {
        self.set = set;
        self
    }

    pub(crate) fn endorsed_by(mut self, endorsers: &[&Arc<SigningIdentity>]) -> Self {
        self.endorsers = endorsers.iter().map(|endorser| Arc::clone(endorser)).collect();
        self
    }

    pub(crate) fn event(mut self, name: &str, payload: &[u8]) -> Self {
        let event = ChaincodeEvent {
            chaincode_id: self.chaincode.clone(),
            tx_id: self.tx_id(),
            event_name: name.to_owned(),
            payload: Bytes::copy_from_slice(payload),
        };
        let bytes = Bytes::from(event.encode_to_vec());
        self.change_action = Some(Box::new(move |action| action.events = bytes.clone()));
        self
    }

    pub(crate) fn tx_id(&self) -> String {
        preimage::tx_id(&self.nonce, self.creator.serialized())
    }

    pub(crate) fn build(&self) -> Bytes {
        let (channel_header, signature_header) = self.headers();
        let proposal_payload = self.proposal_payload();
        let mut action = ChaincodeAction {
            results: self.set.encode(),
            events: Bytes::new(),
            response: Some(Response { status: 200, ..Response::default() }),
            chaincode_id: Some(ChaincodeId {
                name: self.chaincode.clone(),
                version: self.version.clone(),
                ..ChaincodeId::default()
            }),
        };
        apply(&self.change_action, &mut action);
        let hash = preimage::proposal_hash(&channel_header, &signature_header, &proposal_payload);
        let mut response = ProposalResponsePayload {
            proposal_hash: Bytes::copy_from_slice(&hash),
            extension: action.encode_to_vec().into(),
        };
        apply(&self.change_response, &mut response);
        let response = Bytes::from(response.encode_to_vec());
        let mut endorsements = self.endorsements(&response);
        apply(&self.change_endorsements, &mut endorsements);
        let mut action_payload = ChaincodeActionPayload {
            chaincode_proposal_payload: proposal_payload,
            action: Some(ChaincodeEndorsedAction {
                proposal_response_payload: response,
                endorsements,
                aggregate: None,
            }),
        };
        apply(&self.change_action_payload, &mut action_payload);
        let mut transaction = TransactionMessage {
            actions: vec![TransactionAction {
                header: signature_header.clone(),
                payload: action_payload.encode_to_vec().into(),
            }],
        };
        apply(&self.change_transaction, &mut transaction);
        let mut payload = Payload {
            header: Some(Header { channel_header, signature_header }),
            data: transaction.encode_to_vec().into(),
        };
        apply(&self.change_payload, &mut payload);
        self.seal(&payload)
    }

    fn proposal_payload(&self) -> Bytes {
        if self.arguments.is_empty() {
            return Bytes::from_static(b"\x0a\x00");
        }
        let input = ChaincodeInput { args: self.arguments.clone(), ..ChaincodeInput::default() };
        let spec = ChaincodeSpec { input: Some(input), ..ChaincodeSpec::default() };
        let invocation = ChaincodeInvocationSpec { chaincode_spec: Some(spec) };
        chaincode_proposal_payload_without_transient(invocation.encode_to_vec().into())
    }

    fn headers(&self) -> (Bytes, Bytes) {
        let mut signature_header =
            SignatureHeader { creator: self.creator.serialized().clone(), nonce: self.nonce.clone() };
        apply(&self.change_signature_header, &mut signature_header);
        let extension = ChaincodeHeaderExtension {
            chaincode_id: Some(ChaincodeId { name: self.chaincode.clone(), ..ChaincodeId::default() }),
        };
        let mut channel_header = ChannelHeader {
            r#type: HeaderType::EndorserTransaction as i32,
            channel_id: self.channel.clone(),
            tx_id: preimage::tx_id(&signature_header.nonce, &signature_header.creator),
            extension: extension.encode_to_vec().into(),
            ..ChannelHeader::default()
        };
        apply(&self.change_channel_header, &mut channel_header);
        (channel_header.encode_to_vec().into(), signature_header.encode_to_vec().into())
    }

    fn endorsements(&self, response: &Bytes) -> Vec<Endorsement> {
        self.endorsers
            .iter()
            .map(|endorser| Endorsement {
                endorser: endorser.serialized().clone(),
                signature: endorser
                    .sign(&preimage::endorsement(response, endorser.serialized()))
                    .expect("a signature")
                    .into(),
            })
            .collect()
    }

    fn seal(&self, payload: &Payload) -> Bytes {
        let payload = Bytes::from(payload.encode_to_vec());
        let signature = self.creator.sign(&payload).expect("a signature").into();
        let mut envelope = Envelope { payload, signature, ..Envelope::default() };
        apply(&self.change_envelope, &mut envelope);
        envelope.encode_to_vec().into()
    }
}

fn apply<T>(change: &Change<T>, value: &mut T) {
    if let Some(change) = change {
        change(value);
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
