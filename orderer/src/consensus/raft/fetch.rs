//! Blocks from other orderers, for a node whose log continues behind blocks that it does not have.
//!
//! The blocks come by the ordinary deliver service and are judged by the one who asked for them.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use consort_crypto::{certificate::Certificate, hash::sha256};
use consort_node::{dial::Dialer, server::MESSAGE_BYTES_MAX};
use consort_protos::{
    envelope,
    fabric::{
        common::{Block, ChannelHeader, Envelope, HeaderType},
        orderer::{
            SeekInfo, SeekPosition, SeekSpecified,
            atomic_broadcast_client::AtomicBroadcastClient,
            deliver_response::Type,
            seek_info::{SeekBehavior, SeekErrorResponse},
            seek_position,
        },
    },
};
use prost::Message;
use tokio::sync::mpsc;
use tracing::debug;

use crate::channel::ChannelState;

/// An orderer that sends no block for this long is left for the next one.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Between two rounds through all orderers.
const PAUSE: Duration = Duration::from_millis(500);

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
        while !self.is_over(&blocks) {
            for endpoint in &self.endpoints {
                if let Err(error) = self.from(endpoint, &blocks).await {
                    debug!(channel = %self.state.id(), endpoint, error, "no more blocks from this orderer");
                }
                if self.is_over(&blocks) {
                    return;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn is_over(&self, blocks: &mpsc::Sender<Block>) -> bool {
        blocks.is_closed() || self.state.store().height() > self.last
    }

    async fn from(&self, endpoint: &str, blocks: &mpsc::Sender<Block>) -> Result<(), String> {
        let channel = self.dialer.connect(endpoint, &self.roots).map_err(|error| error.to_string())?;
        let mut client = AtomicBroadcastClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let request = self.request(self.state.store().height())?;
        let mut responses = client
            .deliver(tokio_stream::once(request))
            .await
            .map_err(|status| consort_node::dial::with_causes(&status))?
            .into_inner();
        loop {
            let response = tokio::time::timeout(SILENCE_MAX, responses.message())
                .await
                .map_err(|_elapsed| "no block for too long".to_owned())?
                .map_err(|status| status.to_string())?;
            match response.and_then(|response| response.r#type) {
                Some(Type::Block(block)) => {
                    blocks.send(block).await.map_err(|_closed| "no longer wanted".to_owned())?;
                }
                Some(Type::Status(status)) => return Err(format!("ended with status {status}")),
                None => return Err("the stream ended".to_owned()),
            }
        }
    }

    fn request(&self, first: u64) -> Result<Envelope, String> {
        let at = |number| {
            Some(SeekPosition { r#type: Some(seek_position::Type::Specified(SeekSpecified { number })) })
        };
        let seek = SeekInfo {
            start: at(first),
            stop: at(self.last),
            behavior: SeekBehavior::BlockUntilReady as i32,
            error_response: SeekErrorResponse::BestEffort as i32,
            ..SeekInfo::default()
        };
        let judge = &self.state.judge;
        let header = ChannelHeader {
            r#type: HeaderType::DeliverSeekInfo as i32,
            timestamp: Some(prost_types::Timestamp { seconds: judge.clock.now().unix_timestamp(), nanos: 0 }),
            channel_id: self.state.id().as_str().to_owned(),
            tls_cert_hash: self.certificate_hash()?,
            ..ChannelHeader::default()
        };
        let payload = envelope::payload(&header, &judge.signature_header(), seek.encode_to_vec().into());
        let signature = judge.identity.sign(&payload).map_err(|error| error.to_string())?;
        Ok(Envelope { payload, signature: signature.into() })
    }

    /// Binds the request to the TLS certificate that the connection shows.
    fn certificate_hash(&self) -> Result<Bytes, String> {
        let Some(identity) = self.dialer.identity() else { return Ok(Bytes::new()) };
        let certificate = Certificate::from_pem(identity.cert_pem()).map_err(|error| error.to_string())?;
        Ok(sha256(certificate.der()).to_vec().into())
    }
}
