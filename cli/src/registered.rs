//! `consort channel identities`: the channel's table of identities, whose numbers stand for certificates in transactions.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use consort_client_sdk::decode::DecodedBlock;
use consort_client_sdk::peer_admin::PeerAdmin;
use consort_client_sdk::registered::{Entry, EntryStatus, IDENTITIES, RegisteredIdentities};
use consort_crypto::bls::{Owner, SecretKey};
use consort_crypto::certificate::Certificate;
use consort_protos::consort::identities::{BlsKey, EntryResult, GetArgs};
use consort_protos::entry::EntryNumber;
use prost::Message;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::access::{Access, AccessOptions};
use crate::chaincode::deploy;
use crate::layout::{ADMINISTRATOR, MemberKind};
use crate::output::Output;
use crate::report::{count, table};

/// Entries of a block whose names a peer is asked for: more than a channel has in use, whatever numbers a transaction claims.
const ENTRIES_NAMED_MAX: usize = 1_000;

/// The channel's table of identities: transactions name their signers by its numbers instead of by certificates
#[derive(Debug, Subcommand)]
pub(crate) enum IdentitiesCommand {
    /// List the entries
    #[command(
        after_help = "Examples:\n  consort channel identities list\n  consort channel identities list --output json"
    )]
    List(ListOptions),
    /// Register a certificate of the caller's organisation; it counts from the next block on
    #[command(
        after_help = "Examples:\n  consort channel identities register organizations/peerOrganizations/org1.example.com/peers/peer0.org1.example.com/msp --as Admin@org1.example.com\n  consort channel identities register alice.pem --as Admin@org1.example.com\n  consort channel identities register peer0/msp --bls-key peer0/msp/blskeystore/0123456789abcdef.pem --as Admin@org1.example.com"
    )]
    Register(RegisterOptions),
    /// Register a new certificate in the place of an entry's; both count until the old entry is retired
    #[command(
        after_help = "Example:\n  consort channel identities renew 3 peer0/msp --as Admin@org1.example.com\n  consort channel identities retire 3 --as Admin@org1.example.com"
    )]
    Renew(RenewOptions),
    /// Take an entry out of use for ever
    #[command(after_help = "Example:\n  consort channel identities retire 3 --as Admin@org1.example.com")]
    Retire(RetireOptions),
}

#[derive(Debug, Args)]
pub(crate) struct ListOptions {
    #[command(flatten)]
    access: AccessOptions,

    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct RegisterOptions {
    #[command(flatten)]
    access: AccessOptions,

    /// File with the certificate in PEM, or an MSP folder
    certificate: PathBuf,

    /// File with a BLS key of the certificate's holder, for endorsements that add up [default: the key that the certificate carries, if any]
    #[arg(long, value_name = "FILE")]
    bls_key: Option<PathBuf>,

    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct RenewOptions {
    /// Number of the entry to renew
    number: u64,

    #[command(flatten)]
    register: RegisterOptions,
}

#[derive(Debug, Args)]
pub(crate) struct RetireOptions {
    #[command(flatten)]
    access: AccessOptions,

    /// Number of the entry
    number: u64,

    #[command(flatten)]
    output: Output,
}

impl RegisterOptions {
    /// The named BLS key with the proof that it belongs to the certificate's holder, on this channel.
    fn bls_key(&self, certificate_pem: &[u8]) -> anyhow::Result<Option<BlsKey>> {
        let Some(file) = &self.bls_key else { return Ok(None) };
        let text = Zeroizing::new(
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?,
        );
        let key =
            SecretKey::from_pem(&text).with_context(|| format!("{} holds no BLS key", file.display()))?;
        let certificate = Certificate::from_pem(certificate_pem)?;
        let access = self.access.open()?;
        let msp_id = access.identity(true)?.msp_id().to_owned();
        let proof = key.prove(&Owner::new(&msp_id, certificate.public_key(), access.channel()));
        Ok(Some(BlsKey {
            public_key: key.public_key().as_bytes().to_vec().into(),
            proof: proof.to_bytes().to_vec().into(),
        }))
    }
}

/// Runs one of the commands.
///
/// # Errors
/// What the network answers, with its details.
pub(crate) async fn run(command: IdentitiesCommand) -> anyhow::Result<()> {
    match command {
        IdentitiesCommand::List(options) => {
            let entries = open(&options.access, false).await?.all().await?;
            let json: Vec<Value> = entries.iter().map(described).collect();
            options.output.print(&json!({ "entries": json }), || listed(&entries))
        }
        IdentitiesCommand::Register(options) => {
            let certificate = read_certificate(&options.certificate)?;
            let bls = options.bls_key(&certificate)?;
            let entry = open(&options.access, true).await?.register(certificate, bls).await?;
            options.output.print(&described(&entry), || {
                format!("{} is entry {} from the next block on", who(&entry), entry.number)
            })
        }
        IdentitiesCommand::Renew(RenewOptions { number, register }) => {
            let certificate = read_certificate(&register.certificate)?;
            let bls = register.bls_key(&certificate)?;
            let entry = open(&register.access, true).await?.renew(number, certificate, bls).await?;
            register.output.print(&described(&entry), || {
                format!(
                    "{} is entry {} from the next block on; entry {number} counts until it is retired: `consort channel \
                     identities retire {number}`",
                    who(&entry),
                    entry.number
                )
            })
        }
        IdentitiesCommand::Retire(options) => {
            let entry = open(&options.access, true).await?.retire(options.number).await?;
            options
                .output
                .print(&described(&entry), || format!("entry {} of {} is retired", entry.number, who(&entry)))
        }
    }
}

/// Registers every peer of a network that has no entry yet, by its organisation's administrator.
///
/// # Errors
/// What the network answers, with its details.
pub(crate) async fn register_peers(access: &Access) -> anyhow::Result<((), String)> {
    let first = access.topology.organisations.first().context("the network has no organisations")?;
    let gateway = access.gateway_of(&first.member, ADMINISTRATOR).await?;
    let table = RegisteredIdentities::new(&access.network(&gateway));
    let known: Vec<Certificate> = deploy::settled(|| table.all())
        .await?
        .iter()
        .filter_map(|entry| Certificate::from_pem(&entry.certificate).ok())
        .collect();
    for (organisation, peer) in access.topology.peers() {
        let member = &organisation.member;
        let msp = access.layout.node(MemberKind::Peers, &member.domain, &peer.host).join("msp");
        let pem = read_certificate(&msp)?;
        if known.iter().any(|known| Certificate::from_pem(&pem).is_ok_and(|own| own.der() == known.der())) {
            continue;
        }
        let gateway = access.gateway_of(member, ADMINISTRATOR).await?;
        let table = RegisteredIdentities::new(&access.network(&gateway));
        deploy::settled(|| table.register(pem.clone(), None)).await?;
    }
    let peers = count(access.topology.peers().count(), "peer");
    Ok(((), format!("{peers} in the table of identities of channel {}", access.channel())))
}

/// Reading needs a user; changing needs an administrator.
async fn open(access: &AccessOptions, changes: bool) -> anyhow::Result<RegisteredIdentities> {
    let access = access.open()?;
    let gateway = access.gateway(changes).await?;
    Ok(RegisteredIdentities::new(&access.network(&gateway)))
}

/// The certificate in a file, or the only one that an MSP folder signs with.
fn read_certificate(path: &Path) -> anyhow::Result<Vec<u8>> {
    let file = if path.is_dir() { signing_certificate(path)? } else { path.to_owned() };
    std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))
}

fn signing_certificate(folder: &Path) -> anyhow::Result<PathBuf> {
    let folder = folder.join("signcerts");
    let entries = std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let files: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    match files.as_slice() {
        [only] => Ok(only.clone()),
        files => bail!(
            "{} has {} files; one certificate is needed.\nRemedy: name its file",
            folder.display(),
            files.len()
        ),
    }
}

fn who(entry: &Entry) -> String {
    let name = Certificate::from_pem(&entry.certificate)
        .ok()
        .and_then(|certificate| certificate.subject_common_name().map(str::to_owned));
    format!("{} ({})", name.unwrap_or_default(), entry.msp_id)
}

fn status(entry: &Entry) -> String {
    match (EntryStatus::try_from(entry.status), entry.renewed_by.checked_sub(1)) {
        (Ok(EntryStatus::Active), None) => "active".to_owned(),
        (Ok(EntryStatus::Active), Some(number)) => format!("active, renewed by {number}"),
        (Ok(EntryStatus::Retired), _) => "retired".to_owned(),
        (Err(_), _) => format!("status {}", entry.status),
    }
}

fn described(entry: &Entry) -> Value {
    json!({
        "number": entry.number,
        "msp_id": entry.msp_id,
        "identity": who(entry),
        "status": status(entry),
        "renewed_by": entry.renewed_by.checked_sub(1),
        "certificate": String::from_utf8_lossy(&entry.certificate),
        "bls_public_key": entry.bls.as_ref().map(|bls| hex::encode(&bls.public_key)),
    })
}

fn listed(entries: &[Entry]) -> String {
    if entries.is_empty() {
        return "no identity is registered".to_owned();
    }
    let key = |entry: &Entry| if entry.bls.is_some() { "BLS" } else { "-" }.to_owned();
    let head = ["entry", "identity", "status", "key for sums"].map(str::to_owned).to_vec();
    let rows =
        entries.iter().map(|entry| vec![entry.number.to_string(), who(entry), status(entry), key(entry)]);
    table(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

/// Says who the entries are that a block's transactions name, as far as the peer tells; the others stay numbers.
pub(crate) async fn name_entries(block: &mut DecodedBlock, admin: &PeerAdmin, channel: &str) {
    let mut entries = Vec::new();
    for number in block.entries().into_iter().take(ENTRIES_NAMED_MAX) {
        entries.extend(entry(admin, channel, number).await.ok());
    }
    block.name_entries(&entries);
}

/// An entry as a peer has it now.
///
/// # Errors
/// The peer does not answer, may not tell, or has no such entry.
pub(crate) async fn entry(admin: &PeerAdmin, channel: &str, number: EntryNumber) -> anyhow::Result<Entry> {
    let arguments = GetArgs { number: number.get(), ..GetArgs::default() };
    let answer = admin.query(channel, IDENTITIES, "Get", vec![arguments.encode_to_vec().into()]).await?;
    let result = EntryResult::decode(answer).context("the peer's answer is no entry")?;
    result.entry.context("the peer's answer has no entry")
}
