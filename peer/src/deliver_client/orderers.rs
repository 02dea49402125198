//! The orderers of a channel: where they are, and how a transaction is handed to one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use consort_channel_config::ChannelBundle;
use consort_node::Tasks;
use consort_node::dial::with_causes;
use consort_node::server::MESSAGE_BYTES_MAX;
use consort_protos::fabric::common::Envelope;
use consort_protos::fabric::orderer::BroadcastResponse;
use consort_protos::fabric::orderer::atomic_broadcast_client::AtomicBroadcastClient;
use consort_protos::ids::MspId;

use super::broadcasts::{Broadcasts, Unanswered};
use crate::channel::ChannelHandle;
use crate::config::OrdererOverride;
use crate::connections::{Connections, call_text};
use crate::gateway::OrderingService;

/// One orderer of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrdererEndpoint {
    /// `host:port`.
    pub address: String,
    /// The orderer's organisation; `None` when the configuration lists its address without saying whose it is.
    pub msp_id: Option<MspId>,
    /// PEM certificates that its TLS certificate may stand on.
    pub tls_roots: Vec<Bytes>,
}

/// Why an orderer override cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the TLS roots {path} of the orderer override cannot be read")]
pub struct OverrideError {
    /// The file.
    pub path: PathBuf,
    /// The cause.
    #[source]
    pub source: std::io::Error,
}

/// Finds and calls orderers. Cheap to clone.
#[derive(Clone)]
pub struct Orderers {
    connections: Arc<Connections>,
    overrides: Arc<BTreeMap<String, Replacement>>,
    broadcasts: Arc<Broadcasts>,
    dial_timeout: Duration,
}

struct Replacement {
    to: String,
    tls_roots: Option<Bytes>,
}

impl Orderers {
    /// Reads the overrides' files. Streams to orderers are tasks of `tasks`.
    ///
    /// # Errors
    /// [`OverrideError`].
    pub fn new(
        connections: Arc<Connections>,
        overrides: &[OrdererOverride],
        dial_timeout: Duration,
        tasks: &Tasks,
    ) -> Result<Self, OverrideError> {
        let mut replacements = BTreeMap::new();
        for replacement in overrides {
            let tls_roots = match &replacement.tls_roots {
                None => None,
                Some(path) => Some(Bytes::from(
                    std::fs::read(path).map_err(|source| OverrideError { path: path.clone(), source })?,
                )),
            };
            replacements
                .insert(replacement.from.clone(), Replacement { to: replacement.to.clone(), tls_roots });
        }
        let broadcasts = Arc::new(Broadcasts::new(tasks.clone(), dial_timeout));
        Ok(Self { connections, overrides: Arc::new(replacements), broadcasts, dial_timeout })
    }

    /// The orderers that a configuration names, with the overrides applied.
    #[must_use]
    pub fn of(&self, bundle: &ChannelBundle) -> Vec<OrdererEndpoint> {
        let endpoints = bundle.orderer_endpoints().into_iter();
        endpoints.map(|(msp_id, address)| self.endpoint(bundle, msp_id, address)).collect()
    }

    fn endpoint(&self, bundle: &ChannelBundle, msp_id: Option<MspId>, address: String) -> OrdererEndpoint {
        let replacement = self.overrides.get(&address);
        let tls_roots = match replacement.and_then(|replacement| replacement.tls_roots.clone()) {
            Some(roots) => vec![roots],
            None => tls_roots(bundle, msp_id.as_ref()),
        };
        let address = replacement.map_or(address, |replacement| replacement.to.clone());
        OrdererEndpoint { address, msp_id, tls_roots }
    }

    /// A client of one orderer. The connection is made with the first call and shared by all.
    ///
    /// # Errors
    /// A text, when endpoint or roots are unusable.
    pub(crate) fn client(
        &self,
        orderer: &OrdererEndpoint,
    ) -> Result<AtomicBroadcastClient<tonic::transport::Channel>, String> {
        let channel =
            self.connections.to(&orderer.address, &orderer.tls_roots).map_err(|error| with_causes(&error))?;
        Ok(AtomicBroadcastClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX))
    }
}

impl std::fmt::Debug for Orderers {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Orderers").field("overrides", &self.overrides.len()).finish_non_exhaustive()
    }
}

#[async_trait]
impl OrderingService for Orderers {
    fn endpoints(&self, channel: &ChannelHandle) -> Vec<OrdererEndpoint> {
        self.of(&channel.bundle())
    }

    async fn broadcast(
        &self,
        channel: &ChannelHandle,
        orderer: &OrdererEndpoint,
        envelope: &Envelope,
    ) -> Result<BroadcastResponse, String> {
        let shown = self.connections.certificate_hash();
        let way = (channel.id(), orderer, &shown);
        match self.broadcasts.send(way, envelope, || self.client(orderer)).await? {
            Ok(answer) => Ok(answer),
            Err(Unanswered::Unreachable(reason)) => Err(reason),
            Err(Unanswered::Full | Unanswered::Ended) => self.broadcast_alone(orderer, envelope).await,
        }
    }
}

impl Orderers {
    /// Hands the envelope over on a stream of its own, so that nobody's message before it can end the stream.
    async fn broadcast_alone(
        &self,
        orderer: &OrdererEndpoint,
        envelope: &Envelope,
    ) -> Result<BroadcastResponse, String> {
        let mut client = self.client(orderer)?;
        let opened = client.broadcast(tokio_stream::once(envelope.clone()));
        let mut answers = tokio::time::timeout(self.dial_timeout, opened)
            .await
            .map_err(|_| format!("no connection within {} ms", self.dial_timeout.as_millis()))?
            .map_err(|status| call_text(&status))?
            .into_inner();
        match answers.message().await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err("the orderer closed the stream without an answer".to_owned()),
            Err(status) => Err(call_text(&status)),
        }
    }
}

/// TLS roots of an orderer organisation, or of all of them.
fn tls_roots(bundle: &ChannelBundle, msp_id: Option<&MspId>) -> Vec<Bytes> {
    match msp_id {
        Some(msp_id) => bundle.tls_roots_of(msp_id),
        None => bundle
            .orderer()
            .organisations
            .iter()
            .flat_map(|organisation| bundle.tls_roots_of(&organisation.msp_id))
            .collect(),
    }
}
