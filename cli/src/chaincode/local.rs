//! The sandbox of a peer, on this machine and without a network.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use consort_chaincode_runtime::memory::{Books, MemoryHost, Place};
use consort_chaincode_runtime::package::pack;
use consort_chaincode_runtime::{
    Allowance, Callee, ChaincodeRuntime, Creator, Execution, Invocation, Limits, Package, PackageId,
    PackageStore, TransactionContext, WasmRuntime,
};
use consort_crypto::hash::sha256;
use serde_json::{Map, Value, json};

use crate::output::Output;

/// Largest package that is opened, unpacked: as much as peers take unless they are told otherwise.
pub(super) const PACKAGE_BYTES_MAX: u64 = 64 << 20;
/// Executions at one time: as many tests as run at one time on a large machine.
const INSTANCES_MAX: u32 = 16;
/// Marks bytes that are no text in a state file.
const HEX: &str = "hex:";

/// Where a component comes from.
#[derive(Debug, Args)]
pub(crate) struct ComponentOptions {
    /// Component or package [default: the crate in --path is built]
    #[arg(long, value_name = "FILE", conflicts_with = "path")]
    component: Option<PathBuf>,

    /// Folder of the crate
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    pub(crate) path: PathBuf,
}

impl ComponentOptions {
    /// The component's bytes.
    ///
    /// # Errors
    /// The file cannot be read, or the crate does not build.
    pub(crate) async fn load(&self) -> anyhow::Result<Vec<u8>> {
        component_of(self.component.as_deref().unwrap_or(&self.path)).await
    }
}

/// The component of a crate's folder, which is built, of a package, or the file itself.
///
/// # Errors
/// The file cannot be read, or the crate does not build.
pub(crate) async fn component_of(path: &Path) -> anyhow::Result<Vec<u8>> {
    if path.is_dir() {
        return super::build_component(path).await;
    }
    let bytes = super::read(path)?;
    // A package is a gzip'ed archive.
    if bytes.starts_with(&[0x1f, 0x8b]) {
        return Ok(Package::open(bytes.into(), PACKAGE_BYTES_MAX)?.component);
    }
    Ok(bytes)
}

/// What an execution may use.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct AllowanceOptions {
    /// Fuel of one execution [default: 2000000000]
    #[arg(long, value_name = "UNITS", default_value_t = 0, hide_default_value = true)]
    fuel: u64,

    /// Memory of one execution in bytes [default: 268435456]
    #[arg(long, value_name = "BYTES", default_value_t = 0, hide_default_value = true)]
    memory_bytes: u64,

    /// Stack of each core module of the chaincode in bytes [default: 2097152]
    #[arg(long, value_name = "BYTES", default_value_t = 0, hide_default_value = true)]
    stack_bytes: u32,
}

impl AllowanceOptions {
    /// The allowance, as a definition with these limits would grant it.
    ///
    /// # Errors
    /// A limit is larger than any peer has room for.
    pub(crate) fn allowance(self) -> anyhow::Result<Allowance> {
        let Self { fuel, memory_bytes, stack_bytes } = self;
        let asked = Allowance { fuel, memory_bytes, stack_bytes, table_elements: 0, call_depth: 0 };
        Allowance::of_definition(asked).map_err(anyhow::Error::msg)
    }
}

/// One component in a sandbox, and the others that it may call.
pub(crate) struct LocalSandbox {
    runtime: WasmRuntime,
    package: PackageId,
    allowance: Allowance,
    others: BTreeMap<String, Callee>,
    _folder: tempfile::TempDir,
}

impl LocalSandbox {
    /// Checks and compiles a component as a peer does when it is installed.
    ///
    /// # Errors
    /// What a peer would say.
    pub(crate) fn new(component: &[u8], allowance: Allowance) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let packages = PackageStore::open(&folder.path().join("packages"), PACKAGE_BYTES_MAX)?;
        let limits = Limits {
            fuel_max: allowance.fuel,
            memory_bytes_max: usize::try_from(allowance.memory_bytes)?,
            instances_max: INSTANCES_MAX,
            ..Limits::default()
        };
        let runtime = WasmRuntime::new(Arc::new(packages), &folder.path().join("compiled"), limits)?;
        let package = runtime.install(pack("local", component)?.into())?;
        Ok(Self { runtime, package, allowance, others: BTreeMap::new(), _folder: folder })
    }

    /// Installs another chaincode under the name by which it is called.
    ///
    /// # Errors
    /// What a peer would say.
    pub(crate) fn install(&mut self, name: &str, component: &[u8]) -> anyhow::Result<()> {
        // The label makes packages of equal components different ones.
        let label = format!("other_{}", self.others.len());
        let package = self.runtime.install(pack(&label, component)?.into())?;
        self.others.insert(name.to_owned(), Callee { package, allowance: self.allowance });
        Ok(())
    }

    /// Another chaincode that was installed.
    pub(crate) fn other(&self, name: &str) -> Option<&Callee> {
        self.others.get(name)
    }

    /// Executes a function over books.
    ///
    /// # Errors
    /// This machine cannot execute it; a failure of the chaincode is a response.
    pub(crate) async fn execute(
        &self,
        chaincode: &str,
        arguments: Vec<Bytes>,
        host: Arc<MemoryHost>,
    ) -> anyhow::Result<Execution> {
        let invocation = Invocation {
            chaincode: chaincode.to_owned(),
            package: self.package.clone(),
            arguments,
            is_init: false,
            allowance: self.allowance,
            host,
        };
        Ok(self.runtime.invoke(invocation).await?)
    }
}

/// Options of `consort chaincode invoke`.
#[derive(Debug, Args)]
pub(crate) struct InvokeOptions {
    /// Execute on this machine, without a network
    #[arg(long)]
    local: bool,

    #[command(flatten)]
    component: ComponentOptions,

    #[command(flatten)]
    allowance: AllowanceOptions,

    /// Name of the chaincode
    #[arg(long, default_value = "chaincode")]
    name: String,

    /// File with the state; what the function writes is added [default: an empty state that is forgotten]
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,

    /// Organisation of the caller
    #[arg(long, value_name = "MSP-ID", default_value = "Org1MSP")]
    msp_id: String,

    /// Transient data
    #[arg(long, value_name = "NAME=VALUE", value_parser = transient)]
    transient: Vec<(String, String)>,

    #[command(flatten)]
    output: Output,

    /// Function
    function: String,

    /// Arguments
    arguments: Vec<String>,
}

fn transient(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("transient data has the form name=value")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Executes one function and shows what came of it.
///
/// # Errors
/// The component cannot be executed, or the function refuses.
pub(crate) async fn invoke(options: &InvokeOptions) -> anyhow::Result<()> {
    if !options.local {
        bail!(
            "without --local a transaction needs a network.\nRemedy: add --local to execute on this machine, or use `consort tx submit` and \
             `consort tx evaluate`."
        );
    }
    let sandbox = LocalSandbox::new(&options.component.load().await?, options.allowance.allowance()?)?;
    let books = options.state.as_deref().map(|file| read_state(file, &options.name)).transpose()?;
    let host =
        Arc::new(MemoryHost::new(context(options), creator(&options.msp_id), books.unwrap_or_default()));
    let arguments = std::iter::once(&options.function).chain(&options.arguments);
    let arguments = arguments.map(|argument| Bytes::copy_from_slice(argument.as_bytes())).collect();
    let execution = sandbox.execute(&options.name, arguments, Arc::clone(&host)).await?;
    let response = &execution.response;
    if response.status >= 400 {
        bail!("{} (status {})", response.message, response.status);
    }
    let writes: Vec<Value> = host
        .books()
        .written
        .iter()
        .map(|((_, collection, key), value)| json!([collection, key, shown(value)]))
        .collect();
    host.commit();
    if let Some(file) = &options.state {
        write_state(file, &options.name, &host.books())?;
    }
    let event =
        execution.event.as_ref().map(|event| json!({ "name": event.name, "payload": shown(&event.payload) }));
    let json = json!({
        "status": response.status,
        "payload": shown(&response.payload),
        "writes": writes,
        "event": event,
        "fuel": execution.usage.fuel,
        "memory_bytes": execution.usage.memory_bytes,
    });
    options.output.print(&json, || {
        let mut lines = vec![shown(&response.payload)];
        lines.retain(|line| !line.is_empty());
        lines.extend(writes.iter().map(|write| format!("writes {write}")));
        lines.extend(execution.event.iter().map(|event| format!("event {}", event.name)));
        let memory = execution.usage.memory_bytes / 1024;
        lines.push(format!("fuel {}, memory {memory} KiB", execution.usage.fuel));
        lines.join("\n")
    })
}

fn context(options: &InvokeOptions) -> TransactionContext {
    let named = options.transient.iter().map(|(name, value)| (name.clone(), Bytes::from(value.clone())));
    #[expect(
        clippy::disallowed_methods,
        reason = "the client's time, as in any proposal that a client makes"
    )]
    let now = time::OffsetDateTime::now_utc();
    let tx_id = hex::encode(sha256(&rand::random::<[u8; 32]>()));
    TransactionContext {
        binding: sha256(tx_id.as_bytes()),
        tx_id,
        channel: "local".to_owned(),
        timestamp: prost_types::Timestamp { seconds: now.unix_timestamp(), nanos: 0 },
        transient: Arc::new(named.collect()),
        proposal: Bytes::new(),
        signature: Bytes::new(),
        peer_msp_id: options.msp_id.clone(),
    }
}

fn creator(msp_id: &str) -> Creator {
    Creator {
        msp_id: msp_id.to_owned(),
        common_name: "User1".to_owned(),
        id: "x509::CN=User1,OU=client::CN=local".to_owned(),
        organizational_units: vec!["client".to_owned()],
        ..Creator::default()
    }
}

/// Bytes for people: text, or hexadecimal digits with a mark.
fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.starts_with(HEX) => text.to_owned(),
        _ => format!("{HEX}{}", hex::encode(bytes)),
    }
}

fn hidden(text: &str) -> anyhow::Result<Bytes> {
    match text.strip_prefix(HEX) {
        Some(digits) => {
            Ok(hex::decode(digits).context("the digits behind 'hex:' are not hexadecimal")?.into())
        }
        None => Ok(Bytes::copy_from_slice(text.as_bytes())),
    }
}

/// Reads a state file: collections (the public keys are those of the empty one), each with keys and values.
fn read_state(file: &Path, chaincode: &str) -> anyhow::Result<Books> {
    let mut books = Books::default();
    if !file.exists() {
        return Ok(books);
    }
    let state: BTreeMap<String, BTreeMap<String, String>> = serde_json::from_slice(&super::read(file)?)
        .with_context(|| {
            format!("{} is no state file: {{\"<collection>\": {{\"<key>\": \"<value>\"}}}}", file.display())
        })?;
    for (collection, pairs) in state {
        for (key, value) in pairs {
            let place: Place = (chaincode.to_owned(), collection.clone(), key);
            books.committed.insert(place, hidden(&value)?);
        }
    }
    Ok(books)
}

fn write_state(file: &Path, chaincode: &str, books: &Books) -> anyhow::Result<()> {
    let mut state: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for ((_, collection, key), value) in books.committed.iter().filter(|((of, _, _), _)| of == chaincode) {
        state.entry(collection).or_default().insert(key.clone(), shown(value).into());
    }
    crate::files::write_atomically(file, &serde_json::to_vec_pretty(&state)?, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_file_keeps_texts_readable_and_bytes_whole() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state.json");
        let mut books = Books::default();
        let place = |collection: &str, key: &str| ("cc".to_owned(), collection.to_owned(), key.to_owned());
        books.committed.insert(place("", "a\u{0}"), Bytes::from_static(b"text"));
        books.committed.insert(place("secret", "b"), Bytes::from_static(&[0xff, 0]));
        books.committed.insert(place("", "c"), Bytes::from_static(b"hex:looks like it"));
        write_state(&file, "cc", &books).unwrap();
        assert!(std::fs::read_to_string(&file).unwrap().contains("\"text\""));
        assert_eq!(read_state(&file, "cc").unwrap().committed, books.committed);
    }
}
