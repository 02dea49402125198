//! `consort ledger compare`.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use serde_json::json;

use super::{ChannelOption, open, verify::fault_json};
use crate::output::Output;

/// Whose books.
#[derive(Debug, Args)]
pub(crate) struct CompareOptions {
    /// Data folder of the first stopped peer
    first: PathBuf,

    /// Data folder of the second stopped peer
    second: PathBuf,

    #[command(flatten)]
    channel: ChannelOption,

    #[command(flatten)]
    output: Output,
}

pub(super) fn run(options: &CompareOptions) -> anyhow::Result<()> {
    if let (Ok(first), Ok(second)) = (options.first.canonicalize(), options.second.canonicalize())
        && first == second
    {
        bail!(
            "{} and {} are the same folder; give those of two peers",
            options.first.display(),
            options.second.display()
        );
    }
    let first = open(&options.first, &options.channel)?;
    let second = open(&options.second, &options.channel)?;
    if first.channel() != second.channel() {
        bail!(
            "the folders hold different channels, {} and {}; choose one with --channel",
            first.channel(),
            second.channel()
        );
    }
    let difference = first.first_difference(&second)?;
    let heights = [first.height(), second.height()];
    let document = json!({
        "channel": first.channel().as_str(),
        "heights": heights,
        "equal": difference.is_none(),
        "state_compared": heights[0] == heights[1],
        "difference": difference.as_ref().map(fault_json),
    });
    options.output.print(&document, || match &difference {
        Some(difference) => format!("The books differ. {difference}"),
        None if heights[0] == heights[1] => {
            format!("The books of {} are equal: {} blocks, and the same state.", first.channel(), heights[0])
        }
        None => format!(
            "The first {} blocks of {} are equal; the heights are {} and {}, so that the states were not compared.",
            heights[0].min(heights[1]),
            first.channel(),
            heights[0],
            heights[1]
        ),
    })?;
    if difference.is_some() {
        bail!(
            "the books differ: run `consort ledger verify` on both folders; where both are right by themselves, the peers \
             judged by different rules (compare their versions)"
        );
    }
    Ok(())
}
