//! `consort chaincode`: from source to a committed definition.

pub mod build;
mod definition;
pub(crate) mod deploy;
mod inspect;
mod local;
mod new;
mod test;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::{Args, Subcommand};
use consort_chaincode_runtime::package::Package;
use consort_client_sdk::lifecycle::{Lifecycle, Readiness};
use serde_json::json;

use crate::access::{Access, AccessOptions};
use crate::output::Output;
use crate::report::Report;
use definition::DefinitionOptions;
pub(crate) use definition::{collections, endorsement_policy};

/// Build, package and deploy chaincode
#[derive(Debug, Subcommand)]
pub(crate) enum ChaincodeCommand {
    /// Make a project that builds and passes its test
    #[command(
        after_help = "Example:\n  consort chaincode new land-registry && cd land-registry && cargo test"
    )]
    New(new::NewOptions),
    /// Run a project's tests against the compiled component in the sandbox; shows fuel and memory of each function
    #[command(after_help = "Example:\n  consort chaincode test --path chaincode-sdk/examples/basic")]
    Test(test::TestOptions),
    /// Show a component's interface, imports, size and functions, and whether peers install it
    #[command(after_help = "Example:\n  consort chaincode inspect --component basic.wasm")]
    Inspect(inspect::InspectOptions),
    /// Execute one function on this machine, without a network
    #[command(
        after_help = "Example:\n  consort chaincode invoke --local --component basic.wasm --state state.json CreateAsset asset1 blue 5 Tom 100"
    )]
    Invoke(local::InvokeOptions),
    /// Compile a Rust crate to a WebAssembly component
    #[command(
        after_help = "Example:\n  consort chaincode build --path chaincode-sdk/examples/basic --to basic.wasm"
    )]
    Build(BuildOptions),
    /// Make a package that peers can install
    #[command(
        after_help = "Example:\n  consort chaincode package --path chaincode-sdk/examples/basic --label basic_1.0 --to basic.tar.gz"
    )]
    Package(PackageOptions),
    /// Install a package on the peers of the caller's organisation, or on one peer
    #[command(after_help = "Example:\n  consort chaincode install basic.tar.gz --as Admin@org2.example.com")]
    Install(InstallOptions),
    /// Approve a definition for the caller's organisation
    #[command(
        after_help = "Example:\n  consort chaincode approve basic --version 1.1 --package-id basic_1.1:4f... --as Admin@org1.example.com"
    )]
    Approve(ApproveOptions),
    /// Show who has approved a definition, and in what other approvals differ from it
    #[command(after_help = "Example:\n  consort chaincode readiness basic --version 1.1")]
    Readiness(ReadinessOptions),
    /// Commit a definition that enough organisations have approved
    #[command(after_help = "Example:\n  consort chaincode commit basic --version 1.1")]
    Commit(CommitOptions),
    /// Build, install on every peer, approve for every organisation, commit
    #[command(
        after_help = "Example:\n  consort chaincode deploy basic --version 1.1 --path chaincode-sdk/examples/basic"
    )]
    Deploy(DeployOptions),
    /// Show committed definitions, or one chaincode with its approvals
    #[command(after_help = "Example:\n  consort chaincode query basic --output json")]
    Query(QueryOptions),
}

#[derive(Debug, Args)]
pub(crate) struct BuildOptions {
    /// Folder of the crate
    #[arg(long, value_name = "FOLDER")]
    path: PathBuf,

    /// Component to write
    #[arg(long, value_name = "FILE")]
    to: PathBuf,

    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct PackageOptions {
    /// Folder of the crate to build
    #[arg(long, value_name = "FOLDER", conflicts_with = "component", required_unless_present = "component")]
    path: Option<PathBuf>,

    /// Component that is built already
    #[arg(long, value_name = "FILE")]
    component: Option<PathBuf>,

    /// Label, usually <name>_<version>
    #[arg(long)]
    label: String,

    /// Package to write
    #[arg(long, value_name = "FILE")]
    to: PathBuf,

    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct InstallOptions {
    #[command(flatten)]
    access: AccessOptions,

    /// The package
    package: PathBuf,

    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct ApproveOptions {
    #[command(flatten)]
    access: AccessOptions,

    #[command(flatten)]
    definition: DefinitionOptions,

    /// The installed package; without it the organisation agrees but runs no chaincode
    #[arg(long, value_name = "LABEL:HASH", conflicts_with = "package")]
    package_id: Option<String>,

    /// The same by its file
    #[arg(long, value_name = "FILE")]
    package: Option<PathBuf>,

    #[command(flatten)]
    output: Output,
}

impl ApproveOptions {
    /// The id of the package that the organisation will run.
    fn package_id(&self) -> anyhow::Result<Option<String>> {
        let Some(file) = &self.package else { return Ok(self.package_id.clone()) };
        let package = Package::open(read(file)?.into(), local::PACKAGE_BYTES_MAX)
            .with_context(|| format!("{} is no chaincode package", file.display()))?;
        Ok(Some(package.id.to_string()))
    }
}

#[derive(Debug, Args)]
pub(crate) struct CommitOptions {
    #[command(flatten)]
    access: AccessOptions,

    #[command(flatten)]
    definition: DefinitionOptions,

    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct ReadinessOptions {
    #[command(flatten)]
    access: AccessOptions,

    #[command(flatten)]
    definition: DefinitionOptions,

    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct DeployOptions {
    #[command(flatten)]
    access: AccessOptions,

    #[command(flatten)]
    definition: DefinitionOptions,

    /// Folder of the crate to build
    #[arg(long, value_name = "FOLDER", conflicts_with = "package", required_unless_present = "package")]
    path: Option<PathBuf>,

    /// Package that is made already
    #[arg(long, value_name = "FILE")]
    package: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct QueryOptions {
    #[command(flatten)]
    access: AccessOptions,

    /// Chaincode name; all committed definitions without it
    name: Option<String>,

    #[command(flatten)]
    output: Output,
}

/// Runs a `consort chaincode` command.
///
/// # Errors
/// What the compiler or the network answers.
pub(crate) async fn run(command: ChaincodeCommand) -> anyhow::Result<()> {
    match command {
        ChaincodeCommand::New(options) => new::run(&options),
        ChaincodeCommand::Test(options) => test::run(&options).await,
        ChaincodeCommand::Inspect(options) => inspect::run(&options).await,
        ChaincodeCommand::Invoke(options) => local::invoke(&options).await,
        ChaincodeCommand::Build(options) => {
            let component = build_component(&options.path).await?;
            crate::files::write_atomically(&options.to, &component, false)?;
            let json = json!({ "component": options.to, "bytes": component.len() });
            options.output.print(&json, || format!("{}: {} bytes", options.to.display(), component.len()))
        }
        ChaincodeCommand::Package(options) => {
            let component = match (&options.path, &options.component) {
                (Some(path), _) => build_component(path).await?,
                (None, Some(file)) => read(file)?,
                (None, None) => bail!("either --path or --component is needed"),
            };
            let package = consort_chaincode_runtime::package::pack(&options.label, &component)?;
            crate::files::write_atomically(&options.to, &package, false)?;
            let id = package_id(&options.label, &package);
            let json = json!({ "package": options.to, "package_id": id });
            options.output.print(&json, || format!("{}\npackage id {id}", options.to.display()))
        }
        ChaincodeCommand::Install(options) => install(&options).await,
        ChaincodeCommand::Approve(options) => approve(&options).await,
        ChaincodeCommand::Readiness(options) => readiness(&options).await,
        ChaincodeCommand::Commit(options) => commit(&options).await,
        ChaincodeCommand::Deploy(options) => deploy_command(&options).await,
        ChaincodeCommand::Query(options) => query(&options).await,
    }
}

/// The id under which a peer knows a package (Fabric `core/chaincode/persistence`).
pub(crate) fn package_id(label: &str, package: &[u8]) -> String {
    format!("{label}:{}", hex::encode(consort_crypto::hash::sha256(package)))
}

/// Builds on a thread of its own, because a compiler runs for seconds.
pub(crate) async fn build_component(path: &Path) -> anyhow::Result<Vec<u8>> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || build::build(&path, None)).await?
}

async fn install(options: &InstallOptions) -> anyhow::Result<()> {
    let access = options.access.open()?;
    let package = Bytes::from(read(&options.package)?);
    let mut installed = Vec::new();
    let mut lines = Vec::new();
    for (member, peer) in access.own_peers()? {
        let admin = access.peer_admin(&access.peer_endpoint(member, peer)?, access.identity(true)?)?;
        let outcome = admin.install(package.clone()).await.with_context(|| peer.host.clone())?;
        let already = if outcome.already { " (was there already)" } else { "" };
        lines.push(format!("{}: {}{already}", peer.host, outcome.package_id));
        installed
            .push(json!({ "peer": peer.host, "package_id": outcome.package_id, "already": outcome.already }));
    }
    options.output.print(&json!({ "installed": installed }), || lines.join("\n"))
}

async fn approve(options: &ApproveOptions) -> anyhow::Result<()> {
    let access = options.access.open()?;
    let gateway = access.gateway(true).await?;
    let lifecycle = Lifecycle::new(&access.network(&gateway));
    let definition = options.definition.resolve(&lifecycle).await?;
    let package_id = options.package_id()?;
    let committed = deploy::settled(|| lifecycle.approve(&definition, package_id.as_deref())).await?;
    let organisation = gateway.identity().msp_id();
    let json = json!({
        "organisation": organisation,
        "name": definition.name,
        "version": definition.version,
        "sequence": definition.sequence,
        "package_id": package_id,
        "transaction": committed.tx_id,
        "block": committed.block,
    });
    options.output.print(&json, || {
        format!(
            "{organisation} has approved {} {} (sequence {}), transaction {} in block {}",
            definition.name, definition.version, definition.sequence, committed.tx_id, committed.block
        )
    })
}

async fn readiness(options: &ReadinessOptions) -> anyhow::Result<()> {
    let access = options.access.open()?;
    let gateway = access.gateway(true).await?;
    let lifecycle = Lifecycle::new(&gateway.network(access.channel()));
    let definition = options.definition.resolve(&lifecycle).await?;
    let reports = lifecycle.readiness_reports(&definition).await?;
    let json = reports
        .iter()
        .map(|(msp_id, report)| {
            (msp_id.clone(), json!({ "approved": report.approved, "mismatches": report.mismatches }))
        })
        .collect::<serde_json::Map<_, _>>();
    options.output.print(&json.into(), || {
        let line = |(msp_id, report): (&String, &Readiness)| match report.approved {
            true => format!("{msp_id} has approved"),
            false => deploy::disagreement(msp_id, report),
        };
        reports.iter().map(line).collect::<Vec<_>>().join("\n")
    })
}

async fn commit(options: &CommitOptions) -> anyhow::Result<()> {
    let access = options.access.open()?;
    let gateway = access.gateway(true).await?;
    let lifecycle = Lifecycle::new(&access.network(&gateway));
    let definition = options.definition.resolve(&lifecycle).await?;
    let approvals = lifecycle.readiness(&definition).await?;
    let ready: Vec<String> =
        approvals.iter().filter(|(_, approved)| **approved).map(|(msp_id, _)| msp_id.clone()).collect();
    anyhow::ensure!(
        !ready.is_empty(),
        "no organisation has approved exactly this definition of {} (version {}, sequence {})",
        definition.name,
        definition.version,
        definition.sequence
    );
    let committed = lifecycle.commit(&definition, ready).await?;
    let json = json!({
        "name": definition.name,
        "version": definition.version,
        "sequence": definition.sequence,
        "transaction": committed.tx_id,
        "block": committed.block,
    });
    options.output.print(&json, || {
        format!(
            "{} {} (sequence {}) is committed, transaction {} in block {}",
            definition.name, definition.version, definition.sequence, committed.tx_id, committed.block
        )
    })
}

async fn deploy_command(options: &DeployOptions) -> anyhow::Result<()> {
    let access = options.access.open()?;
    let report = Report::begin(&format!("Deploying chaincode {}", options.definition.name));
    let source = match (&options.path, &options.package) {
        (Some(path), _) => deploy::Source::Crate(path.clone()),
        (None, Some(package)) => deploy::Source::Package(package.clone()),
        (None, None) => bail!("either --path or --package is needed"),
    };
    let (member, _) = access.peer()?;
    let gateway = access.gateway_of(member, crate::layout::ADMINISTRATOR).await?;
    let lifecycle = Lifecycle::new(&access.network(&gateway));
    let definition = options.definition.resolve(&lifecycle).await?;
    deploy::deploy(&access, &definition, &source, &report).await
}

async fn query(options: &QueryOptions) -> anyhow::Result<()> {
    let access = options.access.open()?;
    let gateway = access.gateway(true).await?;
    let lifecycle = Lifecycle::new(&access.network(&gateway));
    let Some(name) = &options.name else {
        let definitions = lifecycle.all_committed().await?;
        let list: Vec<_> = definitions
            .iter()
            .map(|found| json!({ "name": found.name, "version": found.version, "sequence": found.sequence }))
            .collect();
        return options.output.print(&json!({ "definitions": list }), || {
            let line = |found: &_| describe(found);
            definitions.iter().map(line).collect::<Vec<_>>().join("\n")
        });
    };
    let Some(found) = lifecycle.committed(name).await? else {
        bail!("no definition of '{name}' is committed on channel {}", access.channel())
    };
    let json = json!({
        "name": name,
        "version": found.version,
        "sequence": found.sequence,
        "init_required": found.init_required,
        "approvals": found.approvals,
    });
    options.output.print(&json, || {
        let approvals = found.approvals.iter().map(|(msp_id, approved)| {
            format!("  {msp_id}: {}", if *approved { "approved" } else { "not approved" })
        });
        let head = format!("{name} {} (sequence {})", found.version, found.sequence);
        std::iter::once(head).chain(approvals).collect::<Vec<_>>().join("\n")
    })
}

fn describe(
    found: &consort_protos::fabric::lifecycle::query_chaincode_definitions_result::ChaincodeDefinition,
) -> String {
    format!("{} {} (sequence {})", found.name, found.version, found.sequence)
}

pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

impl Access {
    /// The peer named with --peer, else every peer of the caller's organisation.
    fn own_peers(&self) -> anyhow::Result<Vec<(&crate::topology::Member, &crate::topology::Peer)>> {
        let (member, peer) = self.peer()?;
        if self.names_peer() {
            return Ok(vec![(member, peer)]);
        }
        let all = self.topology.peers().filter(|(organisation, _)| organisation.member.name == member.name);
        Ok(all.map(|(organisation, peer)| (&organisation.member, peer)).collect())
    }
}
