//! Blocks from other orderers, by the ordinary deliver service. They are judged by the one who asked for them.

use std::time::Duration;

use bytes::Bytes;
use consort_channel_config::ChannelBundle;
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
    ids::ChannelId,
};
use prost::Message;
use tokio::sync::mpsc;
use tracing::debug;

use crate::submission::Judge;

/// An orderer that sends no block for this long is left for the next one.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Between two rounds through all orderers.
const PAUSE: Duration = Duration::from_millis(500);

/// Asks other orderers for blocks of a channel, in this orderer's name.
pub(crate) struct Pull {
    pub(crate) channel: ChannelId,
    pub(crate) judge: Judge,
    pub(crate) dialer: Dialer,
    /// TLS roots of the organisations that run orderers, in PEM.
    pub(crate) roots: Vec<Bytes>,
    /// Whether an orderer that has no more blocks is listened to until it has; else the next one is asked at once.
    pub(crate) waits: bool,
}

/// The TLS roots of the organisations that run orderers.
pub(crate) fn orderer_roots(bundle: &ChannelBundle) -> Vec<Bytes> {
    let organisations = bundle.orderer().organisations.iter();
    organisations.flat_map(|organisation| bundle.tls_roots_of(&organisation.msp_id)).collect()
}

impl Pull {
    /// Asks one orderer (`host:port`) after the other, over and over, until the block `last` is here or nobody listens. `next` says which
    /// block is wanted next.
    pub(crate) async fn rounds(
        &self,
        endpoints: &[String],
        next: impl Fn() -> u64,
        last: u64,
        blocks: mpsc::Sender<Block>,
    ) {
        let is_over = || blocks.is_closed() || next() > last;
        while !is_over() {
            for endpoint in endpoints {
                if let Err(error) = self.from(endpoint, next(), last, &blocks).await {
                    debug!(channel = %self.channel, endpoint, error, "no more blocks from this orderer");
                }
                if is_over() {
                    return;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn from(
        &self,
        endpoint: &str,
        first: u64,
        last: u64,
        blocks: &mpsc::Sender<Block>,
    ) -> Result<(), String> {
        let channel = self.dialer.connect(endpoint, &self.roots).map_err(|error| error.to_string())?;
        let mut client = AtomicBroadcastClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let request = self.request(first, last)?;
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

    fn request(&self, first: u64, last: u64) -> Result<Envelope, String> {
        let at = |number| {
            Some(SeekPosition { r#type: Some(seek_position::Type::Specified(SeekSpecified { number })) })
        };
        let seek = SeekInfo {
            start: at(first),
            stop: at(last),
            behavior: match self.waits {
                true => SeekBehavior::BlockUntilReady as i32,
                false => SeekBehavior::FailIfNotReady as i32,
            },
            error_response: SeekErrorResponse::BestEffort as i32,
            ..SeekInfo::default()
        };
        let now = self.judge.clock.now().unix_timestamp();
        let header = ChannelHeader {
            r#type: HeaderType::DeliverSeekInfo as i32,
            timestamp: Some(prost_types::Timestamp { seconds: now, nanos: 0 }),
            channel_id: self.channel.as_str().to_owned(),
            tls_cert_hash: self.certificate_hash(),
            ..ChannelHeader::default()
        };
        let signer = self.judge.identity.get();
        let signature_header = Judge::signature_header(&signer);
        let payload = envelope::payload(&header, &signature_header, seek.encode_to_vec().into());
        let signature = signer.sign(&payload).map_err(|error| error.to_string())?;
        Ok(Envelope { payload, signature: signature.into(), ..Envelope::default() })
    }

    /// Binds the request to the TLS certificate that the connection shows.
    fn certificate_hash(&self) -> Bytes {
        self.dialer.identity().map(|identity| identity.certificate_hash()).unwrap_or_default()
    }
}
