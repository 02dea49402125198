//! `consort tx`: call a chaincode function.

use std::time::Duration;

use clap::{Args, Subcommand};
use consort_client_sdk::blocks::follow;
use consort_client_sdk::decode::DecodedBlock;
use consort_client_sdk::{Call, Committed, Deadlines, Error, Gateways, Network, Retries};
use futures::StreamExt;
use serde_json::json;

use crate::access::AccessOptions;
use crate::block::transaction_words;
use crate::explain;
use crate::output::Output;
use crate::registered;

/// Call a chaincode function
#[derive(Debug, Subcommand)]
pub(crate) enum TxCommand {
    /// Have a call endorsed, ordered and committed, and print what it returned
    #[command(
        after_help = "Example:\n  consort tx submit basic CreateAsset asset7 blue 5 Tomoko 300 --as User1@org1.example.com\n\nThe exit code is 5 when the transaction may have been ordered and nobody can tell: ask with `consort tx watch <id>`, do not submit it anew."
    )]
    Submit(SubmitOptions),
    /// Run a function on one peer without changing the ledger, and print what it returns
    #[command(
        after_help = "Example:\n  consort tx evaluate basic ReadAsset asset7 --peer peer0.org2.example.com"
    )]
    Evaluate(CallOptions),
    /// Say why a transaction ended as it did: which key was changed by whom, which signature did not count
    #[command(after_help = "Example:\n  consort tx explain 5dd4c3a4...e1 --peer peer0.org2.example.com")]
    Explain(explain::ExplainOptions),
    /// Show transactions as they are committed, or wait for one and tell what became of it
    #[command(after_help = "Examples:\n  consort tx watch\n  consort tx watch 5dd4c3a4...e1")]
    Watch(WatchOptions),
}

#[derive(Debug, Args)]
pub(crate) struct WatchOptions {
    #[command(flatten)]
    access: AccessOptions,

    /// Transaction id to wait for [default: show all from now on]
    tx_id: Option<String>,

    /// Begin with this block instead of the next one
    #[arg(long, value_name = "NUMBER", conflicts_with = "tx_id")]
    from: Option<u64>,

    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct SubmitOptions {
    #[command(flatten)]
    call: CallOptions,

    /// How long to wait until the transaction is in a block, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    wait: u64,
}

#[derive(Debug, Args)]
pub(crate) struct CallOptions {
    #[command(flatten)]
    access: AccessOptions,

    /// Chaincode name
    chaincode: String,

    /// Function name
    function: String,

    /// Arguments of the function
    #[arg(allow_negative_numbers = true)]
    arguments: Vec<String>,

    /// A value for the endorsers only, as key=value (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    transient: Vec<String>,

    /// Ask peers of exactly these organisations (MSP ids; repeatable) instead of what the policy needs
    #[arg(long = "organisation", value_name = "MSP_ID")]
    organisations: Vec<String>,

    /// The call is the chaincode's initialisation
    #[arg(long)]
    init: bool,

    #[command(flatten)]
    output: Output,
}

impl CallOptions {
    async fn call(&self, deadlines: Deadlines) -> anyhow::Result<(Call, Network)> {
        let access = self.access.open()?;
        let gateway = access.gateway(false).await?.with_deadlines(deadlines);
        let network = access.network(&gateway);
        let contract = network.contract(&self.chaincode);
        let mut call = contract.call(&self.function).arguments(self.arguments.clone());
        for pair in &self.transient {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| anyhow::anyhow!("--transient '{pair}' is not of the form key=value"))?;
            call = call.transient(key, value.as_bytes().to_vec());
        }
        if !self.organisations.is_empty() {
            call = call.endorsing_organisations(self.organisations.clone());
        }
        Ok((if self.init { call.init() } else { call }, network))
    }
}

/// Times that a transaction is handed over when no answer comes: one more, for an answer that was lost with its connection.
const SUBMIT_ATTEMPTS: usize = 2;

impl SubmitOptions {
    /// Has the call committed. Whatever happens after it was handed over, its fate is told or said to be unknown.
    async fn submit(&self) -> anyhow::Result<Committed> {
        let deadlines = Deadlines { commit: Duration::from_secs(self.wait), ..Deadlines::default() };
        let (call, network) = self.call.call(deadlines).await?;
        let endorsed = call.endorse().await?;
        let retries = Retries { attempts: SUBMIT_ATTEMPTS, ..Retries::default() };
        let gateways =
            Gateways::of(vec![network.gateway().clone()], retries)?.with_hash(network.hash_algorithm());
        let finished = gateways.finish(network.channel(), endorsed).await;
        let committed = finished.map_err(|error| {
            let remedy = match &error {
                Error::Unknown { tx_id, .. } => format!(
                    "it is not known whether the transaction was ordered; remedy: ask with `consort tx watch {tx_id}`, and \
                     submit it anew only when that says it is in no block and the orderers are well"
                ),
                _ => return anyhow::Error::new(error),
            };
            anyhow::Error::new(error).context(remedy)
        })?;
        Ok(committed.into_valid()?)
    }
}

/// Runs a `consort tx` command.
///
/// # Errors
/// What the network answers, with its details.
pub(crate) async fn run(command: TxCommand) -> anyhow::Result<()> {
    match command {
        TxCommand::Submit(options) => {
            let committed = options.submit().await?;
            let result = String::from_utf8_lossy(&committed.result).into_owned();
            let json = json!({
                "transaction": committed.tx_id,
                "block": committed.block,
                "code": committed.code.as_str_name(),
                "result": result,
            });
            options.call.output.print(&json, || {
                let head =
                    format!("transaction {} committed in block {}: VALID", committed.tx_id, committed.block);
                if result.is_empty() { head } else { format!("{head}\n{result}") }
            })
        }
        TxCommand::Evaluate(options) => {
            let (call, _) = options.call(Deadlines::default()).await?;
            let result = call.evaluate().await?;
            let result = String::from_utf8_lossy(&result).into_owned();
            options.output.print(&json!({ "result": result }), || result.clone())
        }
        TxCommand::Explain(options) => explain::run(&options).await,
        TxCommand::Watch(options) => watch(&options).await,
    }
}

async fn watch(options: &WatchOptions) -> anyhow::Result<()> {
    let access = options.access.open()?;
    if let Some(tx_id) = &options.tx_id {
        let gateway = access.gateway(false).await?;
        let committed = access.network(&gateway).commit_status(tx_id).await?;
        let code = committed.code.as_str_name();
        let json = json!({ "transaction": tx_id, "block": committed.block, "code": code });
        options
            .output
            .print(&json, || format!("transaction {tx_id} is in block {}: {code}", committed.block))?;
        committed.into_valid()?;
        return Ok(());
    }
    let (member, peer) = access.peer()?;
    let endpoint = access.peer_endpoint(member, peer)?;
    let admin = access.peer_admin(&endpoint, access.reader()?)?;
    let mut blocks = follow(&endpoint, &access.reader()?, access.channel(), options.from).await?;
    while let Some(block) = blocks.next().await {
        let mut block = DecodedBlock::new(&block?)?;
        if !block.entries().is_empty() {
            registered::name_entries(&mut block, &admin, access.channel()).await;
        }
        for transaction in &block.transactions {
            let json = json!({
                "block": block.number,
                "index": transaction.index,
                "transaction": transaction.tx_id,
                "code": transaction.code.map(|code| code.as_str_name()),
                "creator": transaction.creator.as_ref().map(ToString::to_string),
            });
            options.output.print_line(&json, || {
                format!("block {}\n{}", block.number, transaction_words(transaction).join("\n"))
            })?;
        }
    }
    anyhow::bail!("{} ended the stream of blocks; start again with --from", peer.host)
}
