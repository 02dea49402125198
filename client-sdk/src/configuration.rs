//! Changing a channel's configuration: updates that administrators sign one after the other, and an orderer takes.
//!
//! An update travels as Fabric's tools write it (`peer channel signconfigtx`): an envelope of type CONFIG_UPDATE whose own
//! signature comes last, when it is submitted. So administrators may use either tool.

use bytes::Bytes;
use consort_crypto::preimage;
use consort_protos::fabric::common::{
    ChannelHeader, ConfigSignature, ConfigUpdate, ConfigUpdateEnvelope, Envelope, Header, HeaderType,
    Payload, SignatureHeader, Status,
};
use consort_protos::fabric::orderer::atomic_broadcast_client::AtomicBroadcastClient;
use futures::StreamExt;
use prost::Message;

use crate::connection::{Endpoint, MESSAGE_BYTES_MAX};
use crate::contract::{new_nonce, timestamp};
use crate::error::Error;
use crate::identity::ClientIdentity;

/// How long an orderer may take to accept an envelope: it agrees with the others first.
const BROADCAST_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

/// An update with the signatures that it has so far.
#[derive(Debug, Clone, PartialEq)]
pub struct SignedUpdate {
    channel: String,
    content: ConfigUpdateEnvelope,
}

impl SignedUpdate {
    /// An update that nobody has signed.
    #[must_use]
    pub fn new(update: &ConfigUpdate) -> Self {
        let content = ConfigUpdateEnvelope {
            config_update: update.encode_to_vec().into(),
            ..ConfigUpdateEnvelope::default()
        };
        Self { channel: update.channel_id.clone(), content }
    }

    /// Reads an update from the envelope that it travels in.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the bytes are no envelope with an update.
    pub fn from_envelope(bytes: &[u8]) -> Result<Self, Error> {
        let wrong = |reason: String| Error::malformed("configuration update", reason);
        let decoded = |error: prost::DecodeError| wrong(error.to_string());
        let envelope = Envelope::decode(bytes).map_err(decoded)?;
        let payload = Payload::decode(envelope.payload).map_err(decoded)?;
        let header = payload.header.ok_or_else(|| wrong("the envelope has no header".to_owned()))?;
        let header = ChannelHeader::decode(header.channel_header).map_err(decoded)?;
        if header.r#type != i32::from(HeaderType::ConfigUpdate) {
            return Err(wrong(format!("the envelope is of type {}, not CONFIG_UPDATE", header.r#type)));
        }
        let content = ConfigUpdateEnvelope::decode(payload.data).map_err(decoded)?;
        ConfigUpdate::decode(content.config_update.clone()).map_err(decoded)?;
        Ok(Self { channel: header.channel_id, content })
    }

    /// The channel that it changes.
    #[must_use]
    pub fn channel(&self) -> &str {
        &self.channel
    }

    /// Update and signatures as they stand in messages.
    #[must_use]
    pub fn content(&self) -> &ConfigUpdateEnvelope {
        &self.content
    }

    /// Adds a signature. One of the same identity is replaced, so that signing twice does no harm.
    ///
    /// # Errors
    /// [`Error::Sign`].
    pub fn sign(&mut self, identity: &ClientIdentity) -> Result<(), Error> {
        let header = SignatureHeader { creator: identity.serialized().clone(), nonce: new_nonce() };
        let signature_header = Bytes::from(header.encode_to_vec());
        let message = preimage::config_signature(&signature_header, &self.content.config_update);
        let signature = identity.sign(&message)?;
        self.content.signatures.retain(|known| {
            !SignatureHeader::decode(known.signature_header.clone())
                .is_ok_and(|known| known.creator == header.creator)
        });
        self.content.signatures.push(ConfigSignature { signature_header, signature });
        Ok(())
    }

    /// The envelope as it travels between administrators: nobody has signed the whole of it.
    #[must_use]
    pub fn unsigned_envelope(&self) -> Envelope {
        Envelope {
            payload: self.payload(&SignatureHeader::default()),
            signature: Bytes::new(),
            ..Envelope::default()
        }
    }

    /// The envelope for the orderer, signed by whoever submits it.
    ///
    /// # Errors
    /// [`Error::Sign`].
    pub fn envelope(&self, submitter: &ClientIdentity) -> Result<Envelope, Error> {
        let header = SignatureHeader { creator: submitter.serialized().clone(), nonce: new_nonce() };
        let payload = self.payload(&header);
        let signature = submitter.sign(&payload)?;
        Ok(Envelope { payload, signature, ..Envelope::default() })
    }

    fn payload(&self, signature_header: &SignatureHeader) -> Bytes {
        let channel_header = ChannelHeader {
            r#type: HeaderType::ConfigUpdate.into(),
            channel_id: self.channel.clone(),
            timestamp: Some(timestamp()),
            ..ChannelHeader::default()
        };
        let header = Header {
            channel_header: channel_header.encode_to_vec().into(),
            signature_header: signature_header.encode_to_vec().into(),
        };
        let payload = Payload { header: Some(header), data: self.content.encode_to_vec().into() };
        payload.encode_to_vec().into()
    }
}

/// Hands an envelope to an orderer and waits until it has taken it.
///
/// # Errors
/// [`Error::Ordering`] with the orderer's status and text, or those of a connection.
pub async fn broadcast(endpoint: &Endpoint, envelope: Envelope) -> Result<(), Error> {
    let mut client =
        AtomicBroadcastClient::new(endpoint.connect_lazily()?).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let work = async {
        // The stream stays open until the answer is there: an orderer may take its end for a client that left.
        let requests = futures::stream::iter([envelope]).chain(futures::stream::pending());
        let answer = client.broadcast(requests).await;
        let mut answers = answer.map_err(|status| Error::refused("broadcast", &status))?.into_inner();
        let answer = answers.next().await.ok_or_else(|| Error::malformed("broadcast", "no answer"))?;
        answer.map_err(|status| Error::refused("broadcast", &status))
    };
    let late =
        |_| Error::malformed("broadcast", format!("no answer within {} s", BROADCAST_TIMEOUT.as_secs()));
    let answer = tokio::time::timeout(BROADCAST_TIMEOUT, work).await.map_err(late)??;
    if answer.status == i32::from(Status::Success) {
        return Ok(());
    }
    let status = Status::try_from(answer.status)
        .map_or_else(|_| answer.status.to_string(), |status| status.as_str_name().to_owned());
    Err(Error::Ordering { endpoint: endpoint.address.clone(), status, info: answer.info })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use consort_crypto::key::PrivateKey;

    use super::*;

    fn identity(name: &'static str) -> ClientIdentity {
        ClientIdentity::new("Org1MSP", name, Arc::new(PrivateKey::generate_p256().unwrap()))
    }

    #[test]
    fn an_update_travels_and_collects_signatures() {
        let update = ConfigUpdate { channel_id: "mychannel".into(), ..ConfigUpdate::default() };
        let mut first = SignedUpdate::new(&update);
        first.sign(&identity("a")).unwrap();
        let bytes = first.unsigned_envelope().encode_to_vec();
        let mut second = SignedUpdate::from_envelope(&bytes).unwrap();
        assert_eq!(second, first);
        let signer = identity("b");
        second.sign(&signer).unwrap();
        second.sign(&signer).unwrap();
        assert_eq!(second.content().signatures.len(), 2, "signing twice counts once");
        assert_eq!(second.channel(), "mychannel");
        assert!(!second.envelope(&signer).unwrap().signature.is_empty());
    }

    #[test]
    fn something_else_is_refused_as_an_update() {
        let error = SignedUpdate::from_envelope(b"\xff").unwrap_err().to_string();
        assert!(error.starts_with("the answer to configuration update is malformed"), "{error}");
    }
}
