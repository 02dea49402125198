//! The system chaincodes that tell about this peer and its channels: [`cscc`] (joining, configuration) and [`qscc`] (blocks and
//! transactions). They run in the peer itself and read what is committed; nothing that they answer can be ordered.
//!
//! Source: Fabric `core/scc/cscc/configure.go`, `core/scc/qscc/query.go`.

pub mod cscc;
pub mod qscc;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use consort_msp::Identity;
use consort_protos::fabric::protos::Response;

use crate::channel::ChannelHandle;
use crate::registry::Channels;

/// One call of a system chaincode.
#[derive(Debug)]
pub struct SystemCall<'c> {
    /// Who signed the proposal; the signature holds.
    pub creator: &'c Arc<Identity>,
    /// Function and arguments.
    pub arguments: &'c [Bytes],
}

impl SystemCall<'_> {
    fn function(&self) -> String {
        self.arguments.first().map(|name| String::from_utf8_lossy(name).into_owned()).unwrap_or_default()
    }

    fn text(&self, index: usize) -> String {
        self.arguments.get(index).map(|text| String::from_utf8_lossy(text).into_owned()).unwrap_or_default()
    }
}

fn success(payload: Vec<u8>) -> Response {
    Response { status: 200, message: String::new(), payload: payload.into() }
}

fn failure(message: String) -> Response {
    Response { status: 500, message, payload: Bytes::new() }
}

fn channel(channels: &Channels, name: &str) -> Result<Arc<ChannelHandle>, String> {
    channels.get(name).ok_or_else(|| format!("Invalid chain ID, {name}"))
}
