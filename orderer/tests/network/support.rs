//! A network of real orderers in one process: certificates made here, TLS, free ports on 127.0.0.1.

#[path = "support/clients.rs"]
pub(crate) mod clients;
#[path = "support/links.rs"]
mod links;
#[path = "support/namespaces.rs"]
mod namespaces;
#[path = "support/organisation.rs"]
mod organisation;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    panic::Location,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use consort_channel_config::{
    ChannelBundle, REGISTERED_IDENTITIES,
    profile::{
        ApplicationProfile, BatchProfile, ConsenterProfile, OrdererProfile, PemSource, Profile, RaftProfile,
    },
    update,
};
use consort_crypto::key::PrivateKey;
use consort_msp::SigningIdentity;
use consort_node::{
    Clock, SystemClock, Tasks,
    config::{ClientAuth, HostOverrides, ListenConfig, TlsConfig},
    operations::OperationsConfig,
    telemetry::LogConfig,
};
use consort_orderer::{
    Orderer,
    config::{AdminConfig, LocalMspConfig, OrdererConfig},
};
use consort_protos::{
    fabric::{
        common::{
            Block, ConfigGroup, ConfigSignature, ConfigUpdateEnvelope, Envelope, HeaderType, SignatureHeader,
        },
        etcdraft::Consenter,
    },
    ids::ChannelId,
};
use prost::Message;

pub(crate) use self::{
    clients::sign,
    namespaces::Namespaces,
    organisation::{Organisation, now},
};
use self::{links::Links, organisation::validity};

/// Nothing in these tests takes this long unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const CHANNEL: &str = "mychannel";

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
    /// Each orderer is a process in a network namespace of its own.
    pub(crate) namespaces: Option<Namespaces>,
    /// The TLS certificate of this orderer has expired.
    pub(crate) expired: Option<usize>,
    /// Transactions may name signers by number.
    pub(crate) registered_identities: bool,
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
            namespaces: None,
            expired: None,
            registered_identities: false,
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
    /// They end after the orderers in them.
    namespaces: Option<Namespaces>,
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

/// Ports below those that the system gives away by itself, in blocks. A process has a block for as long as it listens on the first port of it: the numbers of
/// processes alone would give two tests the same block from time to time.
const FIRST_PORT: u32 = 10_000;
const BLOCK_PORTS: u32 = 40;
const BLOCKS: u32 = 500;

/// Ports that are free now, and that no test in another process is given.
fn free_ports(count: usize) -> Vec<u16> {
    static CLAIMED: Mutex<(Vec<TcpListener>, Vec<u16>)> = Mutex::new((Vec::new(), Vec::new()));
    let mut claimed = CLAIMED.lock().unwrap();
    let (held, left) = &mut *claimed;
    let listen = |port: u32| TcpListener::bind(("127.0.0.1", u16::try_from(port).unwrap()));
    while left.len() < count {
        let blocks = (0..BLOCKS).map(|step| (std::process::id() + step) % BLOCKS);
        let firsts = blocks.map(|block| FIRST_PORT + block * BLOCK_PORTS);
        let (holder, first) = firsts
            .filter_map(|first| Some((listen(first).ok()?, first)))
            .next()
            .expect("a block of ports is free");
        held.push(holder);
        let free = (first + 1..first + BLOCK_PORTS).filter(|port| listen(*port).is_ok());
        left.extend(free.map(|port| u16::try_from(port).unwrap()));
    }
    left.drain(..count).collect()
}

fn write(path: &Path, content: impl AsRef<[u8]>) -> PathBuf {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
    path.to_owned()
}

/// Where an orderer looks for the hosts of a network.
fn overrides(
    index: usize,
    ports: &[u16],
    links: Option<&Links>,
    namespaces: Option<&Namespaces>,
) -> HostOverrides {
    let mut overrides = HostOverrides::default();
    for (other, port) in ports.iter().enumerate() {
        let address = match namespaces {
            None => "127.0.0.1".to_owned(),
            // The test's clients read this, too.
            Some(namespaces) if other == index => namespaces.address(other).to_string(),
            Some(namespaces) => namespaces.address_among(other).to_string(),
        };
        overrides.insert(host(other), address);
        if let Some(address) = links.and_then(|links| links.address(index, other)) {
            overrides.insert(format!("{}:{port}", host(other)), address.to_string());
        }
    }
    overrides
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
            capabilities: std::iter::once("V2_5".to_owned())
                .chain(choices.registered_identities.then(|| REGISTERED_IDENTITIES.to_owned()))
                .collect(),
            organisations: vec![members.profile(Vec::new())],
            policies: Default::default(),
            acls: Default::default(),
        },
    }
}

impl Network {
    pub(crate) fn new(count: usize, mut choices: Choices) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (orderers, members) = (Organisation::new("OrdererMSP"), Organisation::new("Org1MSP"));
        let ports = free_ports(3 * count);
        let mut configs = Vec::new();
        let mut consenters = Vec::new();
        let links = choices.links.then(|| Links::new(&ports[..count]));
        let namespaces = choices.namespaces.take();
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
            orderers.write_msp(&base.join("msp"));
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
            let address = namespaces.as_ref().map_or(Ipv4Addr::LOCALHOST, |all| all.address(index));
            // In its namespace an orderer has two addresses, one for the others and one for the test.
            let listens = if namespaces.is_some() { Ipv4Addr::UNSPECIFIED } else { address };
            configs.push(OrdererConfig {
                listen: ListenConfig::new(format!("{listens}:{}", ports[index])),
                tls: TlsConfig { cert, key, client_roots: Vec::new(), client_auth: ClientAuth::Optional },
                admin: AdminConfig {
                    address: format!("{address}:{}", ports[count + index]),
                    cert: write(&base.join("admin/server.crt"), admin.pem()),
                    key: write(&base.join("admin/server.key"), admin_key.to_pem().as_bytes()),
                    client_roots: vec![root],
                },
                operations: Some(OperationsConfig {
                    address: format!("{address}:{}", ports[2 * count + index]),
                    tls: None,
                }),
                msp: LocalMspConfig { id: orderers.msp_id.clone(), folder: base.join("msp") },
                data: base.join("data"),
                host_overrides: overrides(index, &ports[..count], links.as_ref(), namespaces.as_ref()),
                log: LogConfig::default(),
            });
        }
        let profile = profile(choices, consenters, &orderers, &members);
        let channel = ChannelId::parse(CHANNEL).unwrap();
        let genesis = profile.genesis_block(&channel, [7; 24], now()).unwrap();
        let running = (0..count).map(|_| Running::Not).collect();
        Self { folder, orderers, members, configs, profile, genesis, links, running, namespaces }
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
        self.start_with(index, Arc::new(SystemClock)).await;
    }

    /// Starts an orderer that lives by this clock.
    pub(crate) async fn start_with(&mut self, index: usize, clock: Arc<dyn Clock>) {
        let tasks = Tasks::new();
        Orderer::start(&self.configs[index], clock, None, &tasks).await.unwrap();
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
        let program = env!("CARGO_BIN_EXE_consort-orderer");
        let mut command = match &self.namespaces {
            Some(namespaces) => namespaces.command(index, program),
            None => Command::new(program),
        };
        let child = command
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
        match &self.namespaces {
            Some(namespaces) => namespaces.cut(index, is_cut),
            None => self.links.as_ref().unwrap().cut(index, is_cut),
        }
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

    /// Gives an orderer a new TLS certificate for a new key.
    pub(crate) fn rotate_tls(&self, index: usize) {
        let config = &self.configs[index].tls;
        let (certificate, key) = self.orderers.tls(&host(index));
        write(&config.key, key.to_pem().as_bytes());
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

    /// The folder of an orderer's keys, configuration, data and log.
    pub(crate) fn folder(&self, index: usize) -> PathBuf {
        self.folder.path().join(host(index))
    }

    fn operations_address(&self, index: usize) -> SocketAddr {
        self.configs[index].operations.as_ref().unwrap().address.parse().unwrap()
    }
}

/// Asks until there is an answer; a panic names the line that waited.
#[track_caller]
pub(crate) fn eventually<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> impl Future<Output = T> {
    let caller = Location::caller();
    let asking = async move {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    async move {
        let answer = tokio::time::timeout(PATIENCE, asking).await;
        answer.unwrap_or_else(|_elapsed| panic!("{caller}: the condition did not come true in time"))
    }
}
