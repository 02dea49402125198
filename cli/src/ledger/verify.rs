//! `consort ledger verify`.

use std::io::IsTerminal as _;

use anyhow::{Context, bail};
use consort_ledger::{FAULTS_MAX, Fault, state::RocksState};
use serde_json::{Value, json};

use super::{Books, open};

/// Blocks between two lines of progress.
const PROGRESS_EVERY: u64 = 1_000;

pub(super) fn run(books: &Books) -> anyhow::Result<()> {
    let ledger = open(&books.data, &books.channel)?;
    // Beside the books, so that there is room for a state of the same size.
    let folder = tempfile::Builder::new()
        .prefix(".verify-")
        .tempdir_in(&books.data)
        .context("a scratch folder beside the books is needed")?;
    let scratch = RocksState::open(folder.path())?;
    let height = ledger.height();
    let visible = std::io::stderr().is_terminal();
    let examination = ledger.examine(&scratch, |number| {
        if visible && number > 0 && number.is_multiple_of(PROGRESS_EVERY) {
            eprintln!("block {number} of {height}");
        }
    })?;
    let faults: Vec<Value> = examination.faults.iter().map(fault_json).collect();
    let document = json!({
        "channel": ledger.channel().as_str(),
        "blocks": examination.blocks,
        "transactions": examination.transactions,
        "keys": examination.keys,
        "right": faults.is_empty(),
        "faults": faults,
    });
    books.output.print(&document, || {
        let mut lines: Vec<String> = examination.faults.iter().map(ToString::to_string).collect();
        if lines.is_empty() {
            lines.push(format!(
                "The books of {} are right: {} blocks, {} transactions, {} keys.",
                ledger.channel(),
                examination.blocks,
                examination.transactions,
                examination.keys
            ));
        }
        lines.join("\n")
    })?;
    if examination.faults.is_empty() {
        return Ok(());
    }
    let more = if examination.faults.len() >= FAULTS_MAX { "at least " } else { "" };
    bail!(
        "the books of {} are not right ({more}{} faults): restore the peer's data folder from a backup, or remove \
         channels/{} in it and join the channel again",
        ledger.channel(),
        examination.faults.len(),
        ledger.channel()
    )
}

pub(super) fn fault_json(fault: &Fault) -> Value {
    json!({
        "block": fault.block,
        "transaction": fault.transaction,
        "key": fault.key,
        "what": fault.what,
    })
}
