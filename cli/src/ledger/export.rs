//! `consort ledger export-block`.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use consort_protos::block;
use consort_protos::fabric::protos::TxValidationCode;
use consort_protos::ids::BlockNumber;
use consort_protos::transaction::Transaction;
use prost::Message;
use serde_json::{Value, json};

use super::{Books, hexadecimal, open};

/// Which block, and where to.
#[derive(Debug, Args)]
pub(crate) struct ExportOptions {
    #[command(flatten)]
    books: Books,

    /// Number of the block
    number: u64,

    /// File to write; an existing one is replaced. Without it only what is in the block is printed
    #[arg(long)]
    file: Option<PathBuf>,
}

pub(super) fn run(options: &ExportOptions) -> anyhow::Result<()> {
    let ledger = open(&options.books.data, &options.books.channel)?;
    let found = ledger.block(BlockNumber::new(options.number))?;
    let block = found.with_context(|| {
        format!("{} has no block {}; its height is {}", ledger.channel(), options.number, ledger.height())
    })?;
    let bytes = block.encode_to_vec();
    if let Some(file) = &options.file {
        std::fs::write(file, &bytes).with_context(|| format!("{} cannot be written", file.display()))?;
    }
    let flags = block::flags(&block).unwrap_or_default();
    let transactions: Vec<Value> = block::envelopes(&block)
        .iter()
        .enumerate()
        .map(|(index, envelope)| {
            let code = flags.get(index).and_then(|flag| TxValidationCode::try_from(i32::from(*flag)).ok());
            let transaction = Transaction::open(envelope.clone()).ok();
            json!({
                "tx_id": transaction.map(|transaction| transaction.tx_id).unwrap_or_default(),
                "code": code.map_or("unknown", |code| code.as_str_name()),
            })
        })
        .collect();
    let header = block.header.unwrap_or_default();
    let document = json!({
        "channel": ledger.channel().as_str(),
        "number": options.number,
        "previous_hash": hexadecimal(&header.previous_hash),
        "data_hash": hexadecimal(&header.data_hash),
        "bytes": bytes.len(),
        "file": options.file,
        "transactions": transactions,
    });
    options.books.output.print(&document, || {
        let mut lines: Vec<String> = document["transactions"]
            .as_array()
            .into_iter()
            .flatten()
            .enumerate()
            .map(|(index, transaction)| {
                let text = |name: &str| transaction[name].as_str().unwrap_or_default();
                format!("{index:>6}  {}  {}", text("tx_id"), text("code"))
            })
            .collect();
        let target =
            options.file.as_ref().map_or(String::new(), |file| format!(" written to {}", file.display()));
        lines.insert(
            0,
            format!("block {} of {}, {} bytes{target}", options.number, ledger.channel(), bytes.len()),
        );
        lines.join("\n")
    })
}
