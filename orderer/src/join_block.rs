//! What a block must be to be joined by.
//!
//! Source: Fabric `orderer/common/channelparticipation/validator.go`.

use consort_channel_config::ChannelBundle;
use consort_protos::{block, fabric::common::Block};

/// Checks a block by itself; whether it is the channel's is for the operator to know.
///
/// # Errors
/// The rule that it breaks.
pub fn check(join: &Block) -> Result<ChannelBundle, String> {
    if !block::is_config(join) {
        return Err("block is not a config block".to_owned());
    }
    if join.metadata.as_ref().is_none_or(|metadata| metadata.metadata.is_empty()) {
        return Err("invalid block: does not have metadata".to_owned());
    }
    let (Some(header), Some(data)) = (&join.header, &join.data) else {
        return Err("invalid block: does not have header or data".to_owned());
    };
    let bundle = ChannelBundle::from_block(join).map_err(|error| format!("invalid config: {error}"))?;
    if header.data_hash != bundle.hash_algorithm().block_data_hash(data).as_slice() {
        return Err("invalid block: Header.DataHash is different from Hash(block.Data)".to_owned());
    }
    bundle.check_supported_by_orderers().map_err(|error| error.to_string())?;
    bundle.check_consenters().map_err(|error| {
        format!("failed to determine cluster membership from join-block: failed to validate config metadata of ordering config: {error}")
    })?;
    Ok(bundle)
}
