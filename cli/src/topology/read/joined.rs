//! Reading what a new organisation is given of a channel that it joins: the channel's configuration block.

use std::path::{Path, PathBuf};

use anyhow::Context;
use consort_channel_config::ChannelBundle;
use consort_protos::fabric::common::Block;
use prost::Message;

use super::super::section::Located;
use super::super::{Batch, Capabilities, ChannelSpec, Raft};
use super::Reader;

/// Largest configuration block that is read, in bytes; that of a thousand organisations stays below.
const BLOCK_BYTES_MAX: u64 = 64 * 1024 * 1024;

impl Reader<'_> {
    /// The channel that a configuration block describes, as far as the members' own nodes need to know.
    pub(super) fn joined(&mut self, file: &Located<String>) -> Option<(PathBuf, ChannelSpec)> {
        let path = self.folder.join(&file.value);
        match load(&path) {
            Ok(bundle) => Some((std::path::absolute(&path).unwrap_or(path), specification(&bundle))),
            Err(error) => {
                let remedy =
                    "A member of the channel makes the file with `consort channel fetch config --to <file>`";
                self.faults.error(file.line, format!("joins: {error:#}. {remedy}"));
                None
            }
        }
    }
}

/// Reads a configuration block.
///
/// # Errors
/// It cannot be read, or is no configuration block.
pub(crate) fn load(path: &Path) -> anyhow::Result<ChannelBundle> {
    let size = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len();
    anyhow::ensure!(size <= BLOCK_BYTES_MAX, "{} is larger than {BLOCK_BYTES_MAX} bytes", path.display());
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let block = Block::decode(bytes.as_slice()).with_context(|| format!("{} is no block", path.display()))?;
    ChannelBundle::from_block(&block).with_context(|| format!("{} is no configuration block", path.display()))
}

fn specification(bundle: &ChannelBundle) -> ChannelSpec {
    let application = &bundle.application().capabilities;
    ChannelSpec {
        name: bundle.channel().to_string(),
        batch: Batch::default(),
        raft: Raft::default(),
        capabilities: Capabilities {
            registered_identities: application.registered_identities(),
            sealed_data: application.sealed_data(),
            aggregated_endorsements: application.aggregated_endorsements(),
            ..Capabilities::default()
        },
        attest_every_blocks: None,
        hashing: bundle.hash_algorithm(),
        key_algorithms: Vec::new(),
        policies: std::collections::BTreeMap::new(),
        acls: std::collections::BTreeMap::new(),
    }
}
