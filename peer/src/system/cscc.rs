//! `cscc`: which channels this peer has joined, joining one, a channel's configuration, and what is missing of its private data.

use std::sync::Arc;

use consort_msp::principal::Role;
use consort_protos::fabric::common::Block;
use consort_protos::fabric::protos::{ChannelInfo, ChannelQueryResponse, Response};
use prost::Message;

use super::{SystemCall, channel, failure, success};
use crate::channel::ChannelHandle;
use crate::endorser::Access;
use crate::private;
use crate::registry::{Channels, with_causes};

/// The name under which it is called.
pub const CSCC: &str = "cscc";

/// The configuration system chaincode. Shared as `Arc`.
#[derive(Debug)]
pub struct Cscc {
    channels: Arc<Channels>,
    access: Arc<Access>,
}

impl Cscc {
    /// The chaincode over a peer's channels.
    #[must_use]
    pub fn new(channels: Arc<Channels>, access: Arc<Access>) -> Self {
        Self { channels, access }
    }

    /// Answers a call; failures are responses. `JoinChain` blocks the thread for the writes of a new ledger.
    #[must_use]
    pub fn invoke(&self, call: &SystemCall<'_>) -> Response {
        let function = call.function();
        let result = match function.as_str() {
            "JoinChain" => self.join(call),
            "GetChannels" => self.list(call),
            "GetConfigBlock" => self.config_block(call),
            "GetChannelConfig" => self.config(call),
            "GetPrivateDataStatus" => self.private_data(call),
            "" => Err("Incorrect number of arguments, 0".to_owned()),
            other => Err(format!("Requested function {other} not found.")),
        };
        result.map_or_else(failure, success)
    }

    fn join(&self, call: &SystemCall<'_>) -> Result<Vec<u8>, String> {
        let genesis = call.arguments.get(1).filter(|bytes| !bytes.is_empty());
        let genesis = genesis.ok_or("Cannot join the channel <nil> configuration block provided")?;
        self.access
            .local(Role::Admin, call.creator)
            .map_err(|reason| format!("access denied for [JoinChain]: [{reason}]"))?;
        let block = Block::decode(genesis.clone())
            .map_err(|error| format!("Failed to reconstruct the genesis block, {error}"))?;
        self.channels
            .join(&block)
            .map(|_| Vec::new())
            .map_err(|error| format!("cannot create ledger from genesis block: {}", with_causes(&error)))
    }

    fn list(&self, call: &SystemCall<'_>) -> Result<Vec<u8>, String> {
        self.access
            .local(Role::Member, call.creator)
            .map_err(|reason| format!("access denied for [GetChannels]: {reason}"))?;
        let info = |name: String| ChannelInfo { channel_id: name };
        let channels = self.channels.list().iter().map(|channel| info(channel.id().to_string())).collect();
        Ok(ChannelQueryResponse { channels }.encode_to_vec())
    }

    fn config_block(&self, call: &SystemCall<'_>) -> Result<Vec<u8>, String> {
        let handle = self.readable("GetConfigBlock", call)?;
        let block = handle.ledger().last_config_block().map_err(|error| with_causes(&error))?;
        Ok(block.encode_to_vec())
    }

    fn config(&self, call: &SystemCall<'_>) -> Result<Vec<u8>, String> {
        let handle = self.readable("GetChannelConfig", call)?;
        Ok(handle.bundle().config().encode_to_vec())
    }

    /// Consort's own function, for administrators of the organisation: what this peer lacks of a channel's private data.
    fn private_data(&self, call: &SystemCall<'_>) -> Result<Vec<u8>, String> {
        self.access
            .local(Role::Admin, call.creator)
            .map_err(|reason| format!("access denied for [GetPrivateDataStatus]: [{reason}]"))?;
        let handle = channel(&self.channels, &call.text(1))?;
        private::status(&handle).map(|status| status.encode_to_vec()).map_err(|error| with_causes(&error))
    }

    fn readable(&self, function: &str, call: &SystemCall<'_>) -> Result<Arc<ChannelHandle>, String> {
        let name = call.text(1);
        if name.is_empty() {
            return Err("Chain ID must not be nil.".to_owned());
        }
        let handle = channel(&self.channels, &name)?;
        self.access
            .channel(&handle.bundle(), &format!("{CSCC}/{function}"), call.creator)
            .map_err(|reason| format!("access denied for [{function}][{name}]: {reason}"))?;
        Ok(handle)
    }
}
