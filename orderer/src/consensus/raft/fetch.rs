//! Blocks from other orderers, for a node whose log continues behind blocks that it does not have.

use std::sync::Arc;

use bytes::Bytes;
use consort_node::dial::Dialer;
use consort_protos::fabric::common::Block;
use tokio::sync::mpsc;

use crate::{channel::ChannelState, pull::Pull};

/// Asks one orderer after the other for the blocks up to and including `last`.
pub(crate) struct Fetch {
    pub(crate) state: Arc<ChannelState>,
    pub(crate) dialer: Dialer,
    /// `host:port` of the other consenters.
    pub(crate) endpoints: Vec<String>,
    pub(crate) roots: Vec<Bytes>,
    pub(crate) last: u64,
}

impl Fetch {
    /// Sends blocks to the channel's task until the last one is in the books or that task stops listening. Should that task want more by
    /// then, it starts another one.
    pub(crate) async fn run(self, blocks: mpsc::Sender<Block>) {
        let pull = Pull {
            channel: self.state.id().clone(),
            judge: self.state.judge.clone(),
            dialer: self.dialer,
            roots: self.roots,
            waits: false,
        };
        pull.rounds(&self.endpoints, || self.state.store().height(), self.last, blocks).await;
    }
}
