//! Fetching blocks from a peer or an orderer by the deliver service.

use bytes::Bytes;
use consort_crypto::certificate::Certificate;
use consort_protos::fabric::common::{
    Block, ChannelHeader, Envelope, Header, HeaderType, Payload, SignatureHeader, Status,
};
use consort_protos::fabric::orderer::atomic_broadcast_client::AtomicBroadcastClient;
use consort_protos::fabric::orderer::{
    self, SeekInfo, SeekNewest, SeekNextCommit, SeekOldest, SeekPosition, SeekSpecified, seek_info,
    seek_position,
};
use consort_protos::fabric::protos::deliver_client::DeliverClient;
use consort_protos::fabric::protos::deliver_response as peer_response;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use prost::Message;
use tonic::transport::Channel;

use crate::connection::{Endpoint, MESSAGE_BYTES_MAX};
use crate::contract::{new_nonce, timestamp};
use crate::error::Error;
use crate::identity::ClientIdentity;

/// Which block to fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockPosition {
    /// Block 0.
    Oldest,
    /// The last block.
    Newest,
    /// The last configuration block.
    Config,
    /// By number.
    Number(u64),
}

/// What kind of node delivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockServer {
    /// `protos.Deliver`.
    Peer,
    /// `orderer.AtomicBroadcast`.
    Orderer,
}

/// Fetches one block; a block that does not exist yet is an error, not a wait.
///
/// # Errors
/// [`Error::Delivery`] with the server's status (`NOT_FOUND`, `FORBIDDEN`), or those of a connection.
pub async fn fetch_block(
    endpoint: &Endpoint,
    server: BlockServer,
    identity: &ClientIdentity,
    channel: &str,
    position: BlockPosition,
) -> Result<Block, Error> {
    BlockReader::new(endpoint, server, identity, channel)?.fetch(position).await
}

/// Follows a channel's blocks from a number on (the next one to be committed when none is given), as they are committed. The
/// stream ends with an error when the connection is lost, and never by itself.
///
/// # Errors
/// As [`fetch_block`].
pub async fn follow(
    endpoint: &Endpoint,
    identity: &ClientIdentity,
    channel: &str,
    from: Option<u64>,
) -> Result<BoxStream<'static, Result<Block, Error>>, Error> {
    let reader = BlockReader::new(endpoint, BlockServer::Peer, identity, channel)?;
    let start = match from {
        Some(number) => seek_position::Type::Specified(SeekSpecified { number }),
        None => seek_position::Type::NextCommit(SeekNextCommit {}),
    };
    let stop = seek_position::Type::Specified(SeekSpecified { number: u64::MAX });
    let seek = SeekInfo {
        start: Some(SeekPosition { r#type: Some(start) }),
        stop: Some(SeekPosition { r#type: Some(stop) }),
        behavior: seek_info::SeekBehavior::BlockUntilReady.into(),
        ..SeekInfo::default()
    };
    let envelope = reader.envelope(&seek)?;
    let mut client =
        DeliverClient::new(reader.connection.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
    // The request stays open: its end would end the delivery.
    let requests = stream::iter([envelope]).chain(stream::pending());
    let answer = client.deliver(requests).await;
    let responses = answer.map_err(|status| Error::refused("deliver", &status))?.into_inner();
    let (address, channel) = (endpoint.address.clone(), channel.to_owned());
    let blocks = responses.map(move |response| {
        match response.map_err(|status| Error::refused("deliver", &status))?.r#type {
            Some(peer_response::Type::Block(block)) => Ok(block),
            Some(peer_response::Type::Status(status)) => Err(refused(&address, &channel, status)),
            _ => Err(Error::malformed("deliver", "neither block nor status")),
        }
    });
    Ok(blocks.boxed())
}

fn refused(endpoint: &str, channel: &str, status: i32) -> Error {
    let status = Status::try_from(status)
        .map_or_else(|_| format!("status {status}"), |status| status.as_str_name().to_owned());
    Error::Delivery { endpoint: endpoint.to_owned(), channel: channel.to_owned(), status }
}

/// Fetches single blocks of a channel over one connection, which opens when it is needed.
#[derive(Debug, Clone)]
pub struct BlockReader {
    endpoint: Endpoint,
    server: BlockServer,
    identity: ClientIdentity,
    channel: String,
    connection: Channel,
}

impl BlockReader {
    /// Prepares the connection; nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Address`], or TLS roots that cannot be read.
    pub fn new(
        endpoint: &Endpoint,
        server: BlockServer,
        identity: &ClientIdentity,
        channel: impl Into<String>,
    ) -> Result<Self, Error> {
        let connection = endpoint.connect_lazily()?;
        let (endpoint, identity) = (endpoint.clone(), identity.clone());
        Ok(Self { endpoint, server, identity, channel: channel.into(), connection })
    }

    /// Fetches one block; a block that does not exist yet is an error, not a wait.
    ///
    /// # Errors
    /// As [`fetch_block`].
    pub async fn fetch(&self, position: BlockPosition) -> Result<Block, Error> {
        match position {
            BlockPosition::Oldest => self.ask(seek_position::Type::Oldest(SeekOldest {})).await,
            BlockPosition::Newest => self.ask(seek_position::Type::Newest(SeekNewest {})).await,
            BlockPosition::Number(number) => {
                self.ask(seek_position::Type::Specified(SeekSpecified { number })).await
            }
            BlockPosition::Config => {
                let newest = self.ask(seek_position::Type::Newest(SeekNewest {})).await?;
                let number = consort_protos::block::last_config_index(&newest)
                    .map_err(|error| Error::malformed("deliver", error))?;
                self.ask(seek_position::Type::Specified(SeekSpecified { number: number.get() })).await
            }
        }
    }

    async fn ask(&self, position: seek_position::Type) -> Result<Block, Error> {
        let position = SeekPosition { r#type: Some(position) };
        let seek = SeekInfo {
            start: Some(position),
            stop: Some(position),
            behavior: seek_info::SeekBehavior::FailIfNotReady.into(),
            ..Default::default()
        };
        let envelope = self.envelope(&seek)?;
        match self.server {
            BlockServer::Peer => self.ask_peer(envelope).await,
            BlockServer::Orderer => self.ask_orderer(envelope).await,
        }
    }

    async fn ask_peer(&self, envelope: Envelope) -> Result<Block, Error> {
        let mut client =
            DeliverClient::new(self.connection.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let answer = client.deliver(stream::iter([envelope])).await;
        let mut responses = answer.map_err(|status| Error::refused("deliver", &status))?.into_inner();
        let response = responses.next().await.ok_or_else(|| Error::malformed("deliver", "no answer"))?;
        match response.map_err(|status| Error::refused("deliver", &status))?.r#type {
            Some(peer_response::Type::Block(block)) => Ok(block),
            Some(peer_response::Type::Status(status)) => Err(self.refused(status)),
            _ => Err(Error::malformed("deliver", "neither block nor status")),
        }
    }

    async fn ask_orderer(&self, envelope: Envelope) -> Result<Block, Error> {
        let mut client =
            AtomicBroadcastClient::new(self.connection.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let answer = client.deliver(stream::iter([envelope])).await;
        let mut responses = answer.map_err(|status| Error::refused("deliver", &status))?.into_inner();
        let response = responses.next().await.ok_or_else(|| Error::malformed("deliver", "no answer"))?;
        match response.map_err(|status| Error::refused("deliver", &status))?.r#type {
            Some(orderer::deliver_response::Type::Block(block)) => Ok(block),
            Some(orderer::deliver_response::Type::Status(status)) => Err(self.refused(status)),
            None => Err(Error::malformed("deliver", "neither block nor status")),
        }
    }

    fn refused(&self, status: i32) -> Error {
        refused(&self.endpoint.address, &self.channel, status)
    }

    /// The signed request; it is bound to the TLS client certificate, if there is one.
    fn envelope(&self, seek: &SeekInfo) -> Result<Envelope, Error> {
        let channel_header = ChannelHeader {
            r#type: HeaderType::DeliverSeekInfo.into(),
            timestamp: Some(timestamp()),
            channel_id: self.channel.clone(),
            tls_cert_hash: self.tls_certificate_hash()?,
            ..Default::default()
        };
        let creator = self.identity.serialized().clone();
        let signature_header = SignatureHeader { creator, nonce: new_nonce() };
        let header = Header {
            channel_header: channel_header.encode_to_vec().into(),
            signature_header: signature_header.encode_to_vec().into(),
        };
        let payload = Payload { header: Some(header), data: seek.encode_to_vec().into() };
        let payload = Bytes::from(payload.encode_to_vec());
        let signature = self.identity.sign(&payload)?;
        Ok(Envelope { payload, signature, ..Envelope::default() })
    }

    fn tls_certificate_hash(&self) -> Result<Bytes, Error> {
        let Some(identity) = &self.endpoint.client_tls else { return Ok(Bytes::new()) };
        let certificate = Certificate::from_pem(&identity.certificate_pem)
            .map_err(|error| Error::malformed("TLS client certificate", error))?;
        Ok(Bytes::copy_from_slice(&consort_crypto::hash::sha256(certificate.der())))
    }
}
