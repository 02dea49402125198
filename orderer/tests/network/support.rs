//! A network of real orderers in one process: certificates made here, TLS, free ports on 127.0.0.1.

#[path = "support/links.rs"]
mod links;

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use consort_channel_config::{
    ChannelBundle,
    profile::{
        ApplicationProfile, BatchProfile, ConsenterProfile, OrdererProfile, OrganisationProfile, PemSource,
        Profile, RaftProfile,
    },
    update,
};
use consort_crypto::{
    certificate::{Certificate, SubjectAlternativeName},
    issue::{CertificateAuthority, Template, Validity},
    key::{PrivateKey, PublicKey},
    name::{DistinguishedName, NamePart},
};
use consort_msp::SigningIdentity;
use consort_node::{
    Clock, SystemClock, Tasks,
    config::{ClientAuth, HostOverrides, ListenConfig, TlsConfig},
    dial::{ClientIdentity, Dialer},
    operations::OperationsConfig,
    telemetry::LogConfig,
};
use consort_orderer::{
    Orderer,
    config::{AdminConfig, LocalMspConfig, OrdererConfig},
};
use consort_protos::{
    envelope,
    fabric::{
        common::{
            Block, ChannelHeader, ConfigGroup, ConfigSignature, ConfigUpdateEnvelope, Envelope, HeaderType,
            SignatureHeader, Status,
        },
        etcdraft::Consenter,
        msp::{FabricMspConfig, FabricNodeOUs, FabricOuIdentifier},
        orderer::{
            BroadcastResponse, DeliverResponse, SeekInfo, SeekNewest, SeekPosition, SeekSpecified,
            atomic_broadcast_client::AtomicBroadcastClient, deliver_response::Type, seek_position,
        },
    },
    ids::{ChannelId, MspId},
};
use prost::Message;
use time::OffsetDateTime;
use tokio_stream::StreamExt as _;

use self::links::Links;

/// Nothing in these tests takes this long unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const CHANNEL: &str = "mychannel";

pub(crate) fn now() -> OffsetDateTime {
    SystemClock.now()
}

fn validity() -> Validity {
    Validity { not_before: now() - time::Duration::hours(1), not_after: now() + time::Duration::days(30) }
}

/// An organisation: its two authorities.
pub(crate) struct Organisation {
    pub(crate) msp_id: MspId,
    ca: CertificateAuthority,
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

    fn enrol(&self, unit: &str, not_after: OffsetDateTime) -> (Certificate, PrivateKey) {
        let mut subject = DistinguishedName::new();
        subject.push(NamePart::OrganizationalUnit, unit);
        let subject = subject.with(NamePart::CommonName, &format!("{unit}.{}", self.msp_id));
        let key = PrivateKey::generate_p256().unwrap();
        let validity = Validity { not_after, ..validity() };
        let certificate = self.ca.issue(&Template::identity(subject, validity), key.public_key()).unwrap();
        (certificate, key)
    }

    fn tls(&self, host: &str) -> (Certificate, PrivateKey) {
        self.tls_until(host, validity().not_after)
    }

    fn tls_until(&self, host: &str, not_after: OffsetDateTime) -> (Certificate, PrivateKey) {
        let key = PrivateKey::generate_p256().unwrap();
        (self.tls_for(host, key.public_key(), not_after), key)
    }

    fn tls_for(&self, host: &str, key: &PublicKey, not_after: OffsetDateTime) -> Certificate {
        let sans = vec![SubjectAlternativeName::from_text(host)];
        let validity = Validity { not_after, ..validity() };
        let template = Template::tls(DistinguishedName::common_name(host), validity, sans);
        self.tls_ca.issue(&template, key).unwrap()
    }

    fn msp(&self) -> FabricMspConfig {
        let unit = |name: &str| {
            Some(FabricOuIdentifier {
                organizational_unit_identifier: name.to_owned(),
                ..FabricOuIdentifier::default()
            })
        };
        let pem = |authority: &CertificateAuthority| Bytes::from(authority.certificate().pem());
        FabricMspConfig {
            name: self.msp_id.as_str().to_owned(),
            root_certs: vec![pem(&self.ca)],
            tls_root_certs: vec![pem(&self.tls_ca)],
            fabric_node_ous: Some(FabricNodeOUs {
                enable: true,
                client_ou_identifier: unit("client"),
                peer_ou_identifier: unit("peer"),
                admin_ou_identifier: unit("admin"),
                orderer_ou_identifier: unit("orderer"),
            }),
            ..FabricMspConfig::default()
        }
    }

    fn profile(&self, orderer_endpoints: Vec<String>) -> OrganisationProfile {
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

/// What a test may choose.
pub(crate) struct Choices {
    pub(crate) batch: BatchProfile,
    pub(crate) snapshot_interval_bytes: u32,
    /// Ticks of 50 ms.
    pub(crate) election_tick: u32,
    /// How many of the orderers are consenters of the channel from its beginning.
    pub(crate) consenters: usize,
    /// Connections between orderers go through links that can be cut.
    pub(crate) links: bool,
    /// The TLS certificate of this orderer has expired.
    pub(crate) expired: Option<usize>,
}

impl Default for Choices {
    fn default() -> Self {
        // A timeout that no test waits for: blocks must not depend on it.
        let batch = BatchProfile { timeout: "600s".to_owned(), ..BatchProfile::default() };
        Self {
            batch,
            snapshot_interval_bytes: 16 * 1024 * 1024,
            election_tick: 10,
            consenters: usize::MAX,
            links: false,
            expired: None,
        }
    }
}

/// Orderers, an application organisation, and the genesis block of their channel.
pub(crate) struct Network {
    /// Deleted with the network.
    folder: tempfile::TempDir,
    pub(crate) orderers: Organisation,
    pub(crate) members: Organisation,
    configs: Vec<OrdererConfig>,
    profile: Profile,
    pub(crate) genesis: Block,
    /// Between each pair of orderers, if the test cuts them.
    links: Option<Links>,
    running: Vec<Running>,
}

/// How an orderer runs.
enum Running {
    Not,
    /// As tasks of this process.
    Here(Tasks),
    /// As a process of its own, which ends with the network.
    Process(Process),
}

/// The program `consort-orderer`; killed when it is dropped.
pub(crate) struct Process(Child);

impl Process {
    /// Its id.
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

fn host(index: usize) -> String {
    format!("orderer{index}.example.com")
}

/// Ports that are free now, below those that the system gives away by itself, and apart from those of tests in other processes.
fn free_ports(count: usize) -> Vec<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = 10_000 + std::process::id() % 500 * 40;
    let candidates = std::iter::repeat_with(|| first + NEXT.fetch_add(1, Ordering::Relaxed));
    let free = candidates
        .map(|port| u16::try_from(port).unwrap())
        .filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.take(count).collect()
}

fn write(path: &Path, content: impl AsRef<[u8]>) -> PathBuf {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
    path.to_owned()
}

/// A channel with these consenters, one organisation of orderers and one of members.
fn profile(
    choices: Choices,
    consenters: Vec<ConsenterProfile>,
    orderers: &Organisation,
    members: &Organisation,
) -> Profile {
    let endpoints = consenters.iter().map(|one| format!("{}:{}", one.host, one.port)).collect();
    Profile {
        hashing: Default::default(),
        key_algorithms: Vec::new(),
        capabilities: vec!["V2_0".to_owned()],
        policies: Default::default(),
        orderer: OrdererProfile {
            capabilities: vec!["V2_0".to_owned()],
            batch: choices.batch,
            raft: RaftProfile {
                tick_interval: "50ms".to_owned(),
                snapshot_interval_bytes: choices.snapshot_interval_bytes,
                election_tick: choices.election_tick,
                ..RaftProfile::default()
            },
            channels_max: 0,
            consenters,
            organisations: vec![orderers.profile(endpoints)],
            policies: Default::default(),
        },
        application: ApplicationProfile {
            capabilities: vec!["V2_5".to_owned()],
            organisations: vec![members.profile(Vec::new())],
            policies: Default::default(),
            acls: Default::default(),
        },
    }
}

impl Network {
    pub(crate) fn new(count: usize, choices: Choices) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (orderers, members) = (Organisation::new("OrdererMSP"), Organisation::new("Org1MSP"));
        let ports = free_ports(3 * count);
        let mut configs = Vec::new();
        let mut consenters = Vec::new();
        let links = choices.links.then(|| Links::new(&ports[..count]));
        for index in 0..count {
            let is_expired = choices.expired == Some(index);
            let not_after =
                if is_expired { now() - time::Duration::minutes(1) } else { validity().not_after };
            let (certificate, key) = orderers.tls_until(&host(index), not_after);
            let (admin, admin_key) = orderers.tls(&host(index));
            let base = folder.path().join(host(index));
            let cert = write(&base.join("tls/server.crt"), certificate.pem());
            let key = write(&base.join("tls/server.key"), key.to_pem().as_bytes());
            let root = write(&base.join("tls/ca.crt"), orderers.tls_ca.certificate().pem());
            let (identity, identity_key) = orderers.enrol("orderer", validity().not_after);
            write(&base.join("msp/signcerts/cert.pem"), identity.pem());
            write(&base.join("msp/keystore/priv_sk"), identity_key.to_pem().as_bytes());
            let pem = PemSource::Pem(certificate.pem().into());
            if index < choices.consenters {
                consenters.push(ConsenterProfile {
                    host: host(index),
                    port: ports[index],
                    client_tls_cert: pem.clone(),
                    server_tls_cert: pem,
                });
            }
            let mut overrides: HostOverrides =
                (0..count).map(|other| (host(other), "127.0.0.1".to_owned())).collect();
            for (other, port) in ports[..count].iter().enumerate() {
                if let Some(address) = links.as_ref().and_then(|links| links.address(index, other)) {
                    overrides.insert(format!("{}:{port}", host(other)), address.to_string());
                }
            }
            configs.push(OrdererConfig {
                listen: ListenConfig::new(format!("127.0.0.1:{}", ports[index])),
                tls: TlsConfig { cert, key, client_roots: Vec::new(), client_auth: ClientAuth::Optional },
                admin: AdminConfig {
                    address: format!("127.0.0.1:{}", ports[count + index]),
                    cert: write(&base.join("admin/server.crt"), admin.pem()),
                    key: write(&base.join("admin/server.key"), admin_key.to_pem().as_bytes()),
                    client_roots: vec![root],
                },
                operations: Some(OperationsConfig {
                    address: format!("127.0.0.1:{}", ports[2 * count + index]),
                    tls: None,
                }),
                msp: LocalMspConfig { id: orderers.msp_id.clone(), folder: base.join("msp") },
                data: base.join("data"),
                host_overrides: overrides,
                log: LogConfig::default(),
            });
        }
        let profile = profile(choices, consenters, &orderers, &members);
        let channel = ChannelId::parse(CHANNEL).unwrap();
        let genesis = profile.genesis_block(&channel, [7; 24], now()).unwrap();
        let running = (0..count).map(|_| Running::Not).collect();
        Self { folder, orderers, members, configs, profile, genesis, links, running }
    }

    /// Starts orderers as processes of their own and lets all of them join the channel.
    pub(crate) async fn up_as_processes(count: usize, choices: Choices) -> Self {
        let mut network = Self::new(count, choices);
        for index in 0..count {
            network.start_process(index).await;
            let (status, body) = network.join(index, network.genesis.encode_to_vec()).await;
            assert_eq!(status, 201, "{body}");
        }
        network
    }

    /// Starts orderers and lets all of them join the channel.
    pub(crate) async fn up(count: usize, choices: Choices) -> Self {
        let mut network = Self::new(count, choices);
        for index in 0..count {
            network.start(index).await;
            let (status, body) = network.join(index, network.genesis.encode_to_vec()).await;
            assert_eq!(status, 201, "{body}");
        }
        network
    }

    pub(crate) async fn start(&mut self, index: usize) {
        let tasks = Tasks::new();
        Orderer::start(&self.configs[index], Arc::new(SystemClock), None, &tasks).await.unwrap();
        self.running[index] = Running::Here(tasks);
    }

    /// Stops an orderer as an operator does: SIGTERM for a process.
    pub(crate) async fn stop(&mut self, index: usize) {
        match std::mem::replace(&mut self.running[index], Running::Not) {
            Running::Not => panic!("orderer {index} does not run"),
            Running::Here(tasks) => tasks.shutdown(PATIENCE).await.unwrap(),
            Running::Process(mut process) => {
                let sent = Command::new("kill").args(["-TERM", &process.id().to_string()]).status().unwrap();
                assert!(sent.success());
                eventually(async || process.0.try_wait().unwrap()).await;
            }
        }
    }

    /// Starts the program itself, with its output in `orderer.log` of its folder.
    pub(crate) async fn start_process(&mut self, index: usize) {
        let folder = self.folder(index);
        let config = write(&folder.join("orderer.json"), serde_json::to_vec(&self.configs[index]).unwrap());
        let log = fs::File::options().create(true).append(true).open(folder.join("orderer.log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_consort-orderer"))
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut process = Process(child);
        let operations: SocketAddr = self.operations_address(index);
        eventually(async || {
            if let Some(status) = process.0.try_wait().unwrap() {
                panic!("orderer {index} ended with {status}: {}", self.log(index));
            }
            TcpStream::connect(operations).ok()
        })
        .await;
        self.running[index] = Running::Process(process);
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self, index: usize) {
        let id = self.process_id(index).to_string();
        assert!(Command::new("kill").args(["-9", &id]).status().unwrap().success());
        self.running[index] = Running::Not;
    }

    /// The process id of an orderer that runs as a process.
    pub(crate) fn process_id(&self, index: usize) -> u32 {
        match &self.running[index] {
            Running::Process(process) => process.id(),
            Running::Not | Running::Here(_) => panic!("orderer {index} is no process"),
        }
    }

    /// What an orderer's process has logged.
    pub(crate) fn log(&self, index: usize) -> String {
        fs::read_to_string(self.folder(index).join("orderer.log")).unwrap_or_default()
    }

    /// Cuts an orderer off the others, or connects it again.
    pub(crate) fn cut(&self, index: usize, is_cut: bool) {
        self.links.as_ref().unwrap().cut(index, is_cut);
    }

    /// The first block of another channel with the same members.
    pub(crate) fn genesis_of(&self, channel: &str) -> Block {
        self.profile.genesis_block(&ChannelId::parse(channel).unwrap(), [8; 24], now()).unwrap()
    }

    /// The folder of a channel on an orderer's disk.
    pub(crate) fn channel_folder(&self, index: usize, channel: &str) -> PathBuf {
        self.configs[index].data.join("channels").join(channel)
    }

    /// An orderer as configurations name it, by the TLS certificate that it has now.
    pub(crate) fn consenter(&self, index: usize) -> Consenter {
        let config = &self.configs[index];
        let certificate = Bytes::from(fs::read(&config.tls.cert).unwrap());
        let port = config.listen.address.rsplit_once(':').unwrap().1.parse().unwrap();
        Consenter {
            host: host(index),
            port,
            client_tls_cert: certificate.clone(),
            server_tls_cert: certificate,
        }
    }

    /// Gives an orderer a new TLS certificate for its key, which it shows from its next start on.
    pub(crate) fn renew_tls(&self, index: usize) {
        let config = &self.configs[index].tls;
        let key = PrivateKey::from_pem(&fs::read_to_string(&config.key).unwrap()).unwrap();
        let certificate = self.orderers.tls_for(&host(index), key.public_key(), validity().not_after);
        write(&config.cert, certificate.pem());
    }

    /// The configuration in force at an orderer.
    pub(crate) async fn bundle(&self, index: usize) -> ChannelBundle {
        let (client, base) = self.admin(index);
        let response = client.get(format!("{base}/{CHANNEL}/blocks/config")).send().await.unwrap();
        let block = Block::decode(response.bytes().await.unwrap()).unwrap();
        ChannelBundle::from_block(&block).unwrap()
    }

    /// An update of the configuration in force at an orderer, signed by the administrators of both organisations.
    pub(crate) async fn update(&self, index: usize, change: impl FnOnce(&mut ConfigGroup)) -> Envelope {
        let current = self.bundle(index).await;
        let mut updated = current.config().clone();
        change(updated.channel_group.as_mut().unwrap());
        let update = update::compute(current.config(), &updated, current.channel()).unwrap().encode_to_vec();
        let admins = [self.orderers.identity("admin"), self.members.identity("admin")];
        let signature = |admin: &SigningIdentity| {
            let nonce = Bytes::copy_from_slice(&[5; 24]);
            let header = SignatureHeader { creator: admin.serialized().clone(), nonce }.encode_to_vec();
            let signature =
                admin.sign(&consort_crypto::preimage::config_signature(&header, &update)).unwrap();
            ConfigSignature { signature_header: header.into(), signature: signature.into() }
        };
        let signatures = admins.iter().map(signature).collect();
        let envelope = ConfigUpdateEnvelope { config_update: update.clone().into(), signatures };
        sign(&admins[0], CHANNEL, HeaderType::ConfigUpdate, envelope.encode_to_vec())
    }

    /// Status and body of the description of one channel, or of another path below the channels.
    pub(crate) async fn describe(&self, index: usize, path: &str) -> (u16, serde_json::Value) {
        let (client, base) = self.admin(index);
        let url = format!("{base}/{path}");
        let response = client.get(url.trim_end_matches('/')).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    /// Status and body of the removal of a channel.
    pub(crate) async fn remove(&self, index: usize, channel: &str) -> (u16, String) {
        let (client, base) = self.admin(index);
        let response = client.delete(format!("{base}/{channel}")).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// Waits until the description of a channel has this relation, status and height.
    pub(crate) async fn until(&self, index: usize, channel: &str, wanted: (&str, &str, u64)) {
        eventually(async || {
            let (_, is) = self.describe(index, channel).await;
            let matches =
                is["consensusRelation"] == wanted.0 && is["status"] == wanted.1 && is["height"] == wanted.2;
            matches.then_some(())
        })
        .await;
    }

    /// The folder of an orderer's keys, configuration, data and log.
    pub(crate) fn folder(&self, index: usize) -> PathBuf {
        self.folder.path().join(host(index))
    }

    fn operations_address(&self, index: usize) -> SocketAddr {
        self.configs[index].operations.as_ref().unwrap().address.parse().unwrap()
    }

    /// The admin API of one orderer, as seen by a client with a certificate of the orderers' TLS authority.
    pub(crate) fn admin(&self, index: usize) -> (reqwest::Client, String) {
        consort_crypto::tls::install_default_provider();
        let (certificate, key) = self.orderers.tls("admin.example.com");
        let pem = format!("{}{}", certificate.pem(), key.to_pem().as_str());
        let address = self.configs[index].admin.address.parse().unwrap();
        let client = reqwest::Client::builder()
            .use_rustls_tls()
            .identity(reqwest::Identity::from_pem(pem.as_bytes()).unwrap())
            .add_root_certificate(
                reqwest::Certificate::from_pem(self.orderers.tls_ca.certificate().pem().as_bytes()).unwrap(),
            )
            .resolve(&host(index), address)
            .build()
            .unwrap();
        let base = format!("https://{}:{}/participation/v1/channels", host(index), address.port());
        (client, base)
    }

    /// Status and body of one of the operations' paths.
    pub(crate) async fn operations(&self, index: usize, path: &str) -> (u16, String) {
        consort_crypto::tls::install_default_provider();
        let address = self.operations_address(index);
        let response = reqwest::get(format!("http://{address}{path}")).await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    pub(crate) async fn join(&self, index: usize, block: Vec<u8>) -> (u16, String) {
        let (client, base) = self.admin(index);
        let part = reqwest::multipart::Part::bytes(block).file_name("genesis.block");
        let form = reqwest::multipart::Form::new().part("config-block", part);
        let response = client.post(base).multipart(form).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// A client's connection to one orderer.
    pub(crate) fn client(&self, index: usize) -> AtomicBroadcastClient<tonic::transport::Channel> {
        let overrides = self.configs[index].host_overrides.clone();
        let port = self.configs[index].listen.address.rsplit_once(':').unwrap().1;
        let roots = [self.orderers.tls_ca.certificate().pem()];
        let channel =
            Dialer::new(overrides, None).connect(&format!("{}:{port}", host(index)), &roots).unwrap();
        AtomicBroadcastClient::new(channel).max_decoding_message_size(100 * 1024 * 1024)
    }

    /// A connection to one orderer with the TLS certificate of another organisation's node.
    pub(crate) fn channel_of_stranger(&self, index: usize) -> tonic::transport::Channel {
        let (certificate, key) = self.members.tls("stranger.example.com");
        let identity = ClientIdentity::from_pem(certificate.pem().as_bytes(), key.to_pem().as_bytes());
        let overrides = self.configs[index].host_overrides.clone();
        let port = self.configs[index].listen.address.rsplit_once(':').unwrap().1;
        let roots = [self.orderers.tls_ca.certificate().pem()];
        Dialer::new(overrides, Some(identity)).connect(&format!("{}:{port}", host(index)), &roots).unwrap()
    }

    /// Sends one envelope and returns the answer.
    pub(crate) async fn broadcast(&self, index: usize, envelope: Envelope) -> BroadcastResponse {
        let mut client = self.client(index);
        let mut responses = client.broadcast(tokio_stream::once(envelope)).await.unwrap().into_inner();
        responses.message().await.unwrap().unwrap()
    }

    /// Sends an envelope until it is ordered: there may be no leader yet.
    pub(crate) async fn order(&self, index: usize, envelope: &Envelope) {
        eventually(async || {
            let response = self.broadcast(index, envelope.clone()).await;
            assert!(
                matches!(response.status(), Status::Success | Status::ServiceUnavailable),
                "{response:?}"
            );
            (response.status() == Status::Success).then_some(())
        })
        .await;
    }

    /// A block from one orderer; waits until it is there.
    pub(crate) async fn block(&self, index: usize, number: u64) -> Block {
        let at = SeekPosition { r#type: Some(seek_position::Type::Specified(SeekSpecified { number })) };
        eventually(async || self.seek(index, at).await.ok()).await
    }

    pub(crate) async fn height(&self, index: usize) -> u64 {
        let at = SeekPosition { r#type: Some(seek_position::Type::Newest(SeekNewest {})) };
        let newest = eventually(async || self.seek(index, at).await.ok()).await;
        newest.header.unwrap().number + 1
    }

    /// All blocks that one orderer has now.
    pub(crate) async fn blocks(&self, index: usize) -> Vec<Block> {
        let at = |position| Some(SeekPosition { r#type: Some(position) });
        let height = self.height(index).await;
        let seek = SeekInfo {
            start: at(seek_position::Type::Specified(SeekSpecified { number: 0 })),
            stop: at(seek_position::Type::Specified(SeekSpecified { number: height - 1 })),
            ..SeekInfo::default()
        };
        let client = self.members.identity("client");
        let request = sign(&client, CHANNEL, HeaderType::DeliverSeekInfo, seek.encode_to_vec());
        let mut responses =
            self.client(index).deliver(tokio_stream::once(request)).await.unwrap().into_inner();
        let mut blocks = Vec::new();
        while blocks.len() as u64 != height {
            let next = tokio::time::timeout(PATIENCE, responses.message()).await.expect("no block in time");
            match next.unwrap().unwrap().r#type.unwrap() {
                Type::Block(block) => blocks.push(block),
                Type::Status(status) => panic!("the range ended with status {status}"),
            }
        }
        blocks
    }

    /// Whoever leads the channel, as soon as somebody does.
    pub(crate) async fn leader(&self) -> usize {
        let leads = format!("orderer_is_leader{{channel=\"{CHANNEL}\"}} 1");
        eventually(async || {
            for (index, running) in self.running.iter().enumerate() {
                if !matches!(running, Running::Not)
                    && self.operations(index, "/metrics").await.1.contains(&leads)
                {
                    return Some(index);
                }
            }
            None
        })
        .await
    }

    async fn seek(&self, index: usize, at: SeekPosition) -> Result<Block, Status> {
        let seek = SeekInfo { start: Some(at), stop: Some(at), ..SeekInfo::default() };
        let request = sign(
            &self.members.identity("client"),
            CHANNEL,
            HeaderType::DeliverSeekInfo,
            seek.encode_to_vec(),
        );
        self.deliver(index, request).await
    }

    /// Sends one deliver request; the block or the status that comes first.
    pub(crate) async fn deliver(&self, index: usize, request: Envelope) -> Result<Block, Status> {
        let mut responses =
            self.client(index).deliver(tokio_stream::once(request)).await.unwrap().into_inner();
        let first = tokio::time::timeout(PATIENCE, responses.message()).await.expect("no block in time");
        match first.unwrap().unwrap().r#type.unwrap() {
            Type::Block(block) => Ok(block),
            Type::Status(status) => Err(Status::try_from(status).unwrap()),
        }
    }

    /// The numbers of the blocks and the status that answer one request.
    pub(crate) async fn range(&self, index: usize, request: Envelope) -> (Vec<u64>, Status) {
        let mut responses =
            self.client(index).deliver(tokio_stream::once(request)).await.unwrap().into_inner();
        let mut numbers = Vec::new();
        loop {
            let next = tokio::time::timeout(PATIENCE, responses.message()).await.expect("no answer in time");
            match next.unwrap().unwrap().r#type.unwrap() {
                Type::Block(block) => numbers.push(block.header.unwrap().number),
                Type::Status(status) => return (numbers, Status::try_from(status).unwrap()),
            }
        }
    }

    /// A reader of all blocks from one on, for ever.
    pub(crate) async fn read_from(&self, index: usize, number: u64) -> tonic::Streaming<DeliverResponse> {
        let at = |number| {
            Some(SeekPosition { r#type: Some(seek_position::Type::Specified(SeekSpecified { number })) })
        };
        let seek = SeekInfo { start: at(number), stop: at(u64::MAX), ..SeekInfo::default() };
        let client = self.members.identity("client");
        let request = sign(&client, CHANNEL, HeaderType::DeliverSeekInfo, seek.encode_to_vec());
        let requests = tokio_stream::once(request).chain(tokio_stream::pending());
        self.client(index).deliver(requests).await.unwrap().into_inner()
    }

    pub(crate) fn message(&self, data: &str) -> Envelope {
        sign(&self.members.identity("client"), CHANNEL, HeaderType::EndorserTransaction, data.into())
    }
}

/// An envelope signed by its creator.
pub(crate) fn sign(creator: &SigningIdentity, channel: &str, kind: HeaderType, data: Vec<u8>) -> Envelope {
    let header = ChannelHeader {
        r#type: kind as i32,
        channel_id: channel.to_owned(),
        timestamp: Some(prost_types::Timestamp { seconds: now().unix_timestamp(), nanos: 0 }),
        ..ChannelHeader::default()
    };
    let nonce = Bytes::copy_from_slice(&[3; 24]);
    let signature_header = SignatureHeader { creator: creator.serialized().clone(), nonce };
    let payload = envelope::payload(&header, &signature_header, data.into());
    let signature = creator.sign(&payload).unwrap();
    Envelope { payload, signature: signature.into(), ..Envelope::default() }
}

/// Asks until there is an answer.
pub(crate) async fn eventually<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.expect("the condition did not come true in time")
}
