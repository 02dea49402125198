//! What `/healthz` asks.

use std::sync::Arc;

use async_trait::async_trait;
use consort_node::operations::HealthCheck;

use crate::channel::ChannelHandle;
use crate::registry::Channels;

/// Fails while a channel of this peer does not work, or has other books than another peer of the organisation; with reason and
/// remedy.
#[derive(Debug)]
pub struct ChannelsHealth(pub Arc<Channels>);

/// Differences from the books of the own organisation's peers. What other organisations claim is for log and metrics: a
/// member of the channel must not be able to make this peer look ill.
fn diverging(channel: &ChannelHandle) -> Vec<String> {
    let own = channel.diverging().into_iter().filter(|peer| peer.own_organisation);
    own.map(|peer| {
        format!(
            "channel {}: the commit hash of block {} is not that of {}; remedy: stop both peers and run `consort ledger \
             compare` on their folders",
            channel.id(),
            peer.block,
            peer.endpoint
        )
    })
    .collect()
}

#[async_trait]
impl HealthCheck for ChannelsHealth {
    fn component(&self) -> String {
        "channels".to_owned()
    }

    async fn check(&self) -> Result<(), String> {
        let faults =
            self.0.faults().into_iter().map(|(channel, fault)| format!("channel {channel}: {fault}"));
        let texts: Vec<String> =
            faults.chain(self.0.list().iter().flat_map(|channel| diverging(channel))).collect();
        if texts.is_empty() { Ok(()) } else { Err(texts.join("; ")) }
    }
}
