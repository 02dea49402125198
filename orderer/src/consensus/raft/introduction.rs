//! What a consenter shows that is refused as unknown, and how it is judged: the block counts, not who brings it.

use std::sync::Arc;

use bytes::Bytes;
use consort_crypto::certificate::Certificate;
use consort_node::dial::with_causes;
use consort_protos::{block, fabric::common::Block};

use super::alone::{Evidence, Introduction};
use crate::{
    channel::ChannelState,
    follower::{names, others},
    join_block,
    pull::orderer_roots,
};

/// Where an unknown configuration says that blocks are found. What comes from there is judged by the configuration in force here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Whereabouts {
    /// `host:port` of the other orderers, in their order.
    pub(super) endpoints: Vec<String>,
    /// TLS roots of their organisations, in PEM.
    pub(super) roots: Vec<Bytes>,
}

/// Judges the configuration block of an unknown consenter; `None` when the books have it, or it says nothing about them.
///
/// # Errors
/// Why it is no configuration block of this channel that names this orderer and others.
pub(super) fn judge(
    state: &Arc<ChannelState>,
    own: &Certificate,
    configuration: &Block,
) -> Result<Option<(Introduction, Whereabouts)>, String> {
    let bundle = join_block::check(configuration)?;
    if bundle.channel() != state.id() {
        return Err(format!("the block is one of the channel {}", bundle.channel()));
    }
    if bundle.orderer().consenters.len() < 2 || !names(&bundle, own) {
        return Err("the configuration does not name this orderer and others".to_owned());
    }
    let noted = block::raft_metadata(configuration).map_err(|error| error.to_string())?;
    let header = configuration.header.as_ref().ok_or("the block has no header")?;
    let number = block::number(configuration);
    let in_books = state.store().header_hash(number).map_err(|error| with_causes(&error))?;
    let is_signed = || state.check_fetched(configuration);
    let evidence = match in_books {
        Some(hash) if hash == bundle.hash_algorithm().block_hash(header).as_slice() => return Ok(None),
        // A configuration that is not signed as the books demand cannot be held against them.
        Some(_) => is_signed().map(|()| Evidence::Contradiction)?,
        None if is_signed().is_ok() => Evidence::Proof,
        None => Evidence::Claim,
    };
    let ids = noted.map(|noted| noted.consenter_ids).unwrap_or_default();
    let mut endpoints = others(&bundle, own);
    endpoints.sort_unstable();
    let whereabouts = Whereabouts { endpoints, roots: orderer_roots(&bundle) };
    Ok(Some((Introduction { number: number.get(), ids, evidence }, whereabouts)))
}
