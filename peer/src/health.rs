//! What `/healthz` asks.

use std::sync::Arc;

use async_trait::async_trait;
use consort_node::operations::HealthCheck;

use crate::registry::Channels;

/// Fails while a channel of this peer does not work, with its reason and remedy.
#[derive(Debug)]
pub struct ChannelsHealth(pub Arc<Channels>);

#[async_trait]
impl HealthCheck for ChannelsHealth {
    fn component(&self) -> String {
        "channels".to_owned()
    }

    async fn check(&self) -> Result<(), String> {
        let faults = self.0.faults();
        if faults.is_empty() {
            return Ok(());
        }
        let texts: Vec<String> =
            faults.iter().map(|(channel, fault)| format!("channel {channel}: {fault}")).collect();
        Err(texts.join("; "))
    }
}
