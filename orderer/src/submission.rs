//! What a client sends, judged: the filters before ordering.
//!
//! Source of the rules and texts: Fabric `orderer/common/msgprocessor`, `orderer/common/broadcast`.

use std::sync::Arc;

use bytes::Bytes;
use consort_channel_config::{ChannelBundle, ConfigError, ConsensusState};
use consort_msp::{SigningIdentity, policy::SignedData};
use consort_node::{Clock, renewal::Current};
use consort_protos::{
    entry::EntryNumber,
    envelope::{self, OpenEnvelope},
    fabric::common::{ChannelHeader, Envelope, HeaderType, SignatureHeader, Status},
};
use prost::Message;

/// Who may write while the channel serves transactions, and while it is in maintenance.
const WRITERS: &str = "/Channel/Writers";
const MAINTENANCE_WRITERS: &str = "/Channel/Orderer/Writers";

/// Header type of legacy system channels (Fabric `common.HeaderType`, value 4).
const ORDERER_TRANSACTION: i32 = 4;

/// A configuration, which only orderers make, and the update that leads to one.
const CONFIG: i32 = HeaderType::Config as i32;
const CONFIG_UPDATE: i32 = HeaderType::ConfigUpdate as i32;

/// Bytes of a nonce in a signature header, as everywhere in Fabric.
const NONCE_BYTES: usize = 24;

/// A message that has passed the filters under one configuration.
#[derive(Debug, Clone)]
pub struct Submission {
    /// As the client sent it.
    pub original: Envelope,
    /// The bytes that go into a block.
    pub ordered: Bytes,
    /// What counts against the batch limits: payload and signature.
    pub size: usize,
    /// Whether it stands alone in its block.
    pub kind: Kind,
    /// The configuration sequence that it was judged under.
    pub sequence: u64,
}

/// How a message is ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// With others, as a batch fills.
    Normal,
    /// Alone: it changes the rules for all that follow.
    Config,
}

/// A message is not taken, and why; the form in which clients are told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{info} ({status:?})")]
pub struct Refusal {
    /// Status of the answer.
    pub status: Status,
    /// Its text.
    pub info: String,
}

impl Refusal {
    pub(crate) fn bad_request(info: impl Into<String>) -> Self {
        Self { status: Status::BadRequest, info: info.into() }
    }

    pub(crate) fn unavailable(info: impl Into<String>) -> Self {
        Self { status: Status::ServiceUnavailable, info: info.into() }
    }

    fn within(self, context: &str) -> Self {
        Self { info: format!("{context}{}", self.info), ..self }
    }
}

/// Judges messages under a channel's configuration, and wraps configurations in the orderer's name.
#[derive(Debug, Clone)]
pub struct Judge {
    /// Signs configurations.
    pub identity: Current<SigningIdentity>,
    /// Tells whether certificates have expired.
    pub clock: Arc<dyn Clock>,
}

impl Judge {
    /// Classifies an opened envelope and applies the filters of its kind. Pure but for the clock and the signature of a wrapped configuration.
    ///
    /// # Errors
    /// The first filter that it does not pass.
    pub fn judge(
        &self,
        bundle: &ChannelBundle,
        envelope: Envelope,
        open: &OpenEnvelope,
    ) -> Result<Submission, Refusal> {
        match open.channel_header.r#type {
            CONFIG_UPDATE => self.config(bundle, envelope, open),
            CONFIG => Err(Refusal::bad_request("message is of type that cannot be processed directly")),
            ORDERER_TRANSACTION => {
                Err(Refusal::bad_request("message is of type that is no longer supported"))
            }
            _ => {
                check_normal_operation(bundle)?;
                self.filter(bundle, &envelope, open)?;
                Ok(submission(bundle, envelope.clone(), &envelope, Kind::Normal))
            }
        }
    }

    /// Takes a normal message as judged when another consenter judged it under the same configuration: that consenter could as well put
    /// it into a block of its own once it leads, and the signature check is the dearest part of ordering. A configuration is judged again,
    /// because what comes out of it is this orderer's.
    pub(crate) fn judge_forwarded(
        &self,
        bundle: &ChannelBundle,
        envelope: Envelope,
        open: &OpenEnvelope,
        sequence: u64,
    ) -> Result<Submission, Refusal> {
        let is_normal = !matches!(open.channel_header.r#type, ORDERER_TRANSACTION | CONFIG | CONFIG_UPDATE);
        if !is_normal || sequence != bundle.sequence() {
            return self.judge(bundle, envelope, open);
        }
        check_normal_operation(bundle)?;
        check_size(bundle, &envelope)?;
        Ok(submission(bundle, envelope.clone(), &envelope, Kind::Normal))
    }

    /// Judges again what was judged under an earlier configuration.
    pub(crate) fn judge_again(
        &self,
        bundle: &ChannelBundle,
        stale: Submission,
    ) -> Result<Submission, Refusal> {
        let open = open(&stale.original)?;
        self.judge(bundle, stale.original, &open)
    }

    /// An update becomes a configuration that this orderer signs.
    fn config(
        &self,
        bundle: &ChannelBundle,
        update: Envelope,
        open: &OpenEnvelope,
    ) -> Result<Submission, Refusal> {
        let update = Envelope { creator: Bytes::new(), ..update };
        self.filter(bundle, &update, open).map_err(|refusal| {
            refusal.within("config update for existing channel did not pass initial checks: ")
        })?;
        let context = format!("error applying config update to existing channel '{}': ", bundle.channel());
        let (config, _next) = bundle.propose(&update).map_err(|error| {
            let status = if error.is_permission_denied() { Status::Forbidden } else { Status::BadRequest };
            let refusal = Refusal { status, info: error.to_string() };
            if matches!(error, ConfigError::Maintenance(_)) { refusal } else { refusal.within(&context) }
        })?;
        let header = ChannelHeader {
            r#type: HeaderType::Config as i32,
            timestamp: Some(prost_types::Timestamp { seconds: self.clock.now().unix_timestamp(), nanos: 0 }),
            channel_id: bundle.channel().as_str().to_owned(),
            ..ChannelHeader::default()
        };
        let signer = self.identity.get();
        let signature_header = Self::signature_header(&signer);
        let payload = envelope::payload(&header, &signature_header, config.encode_to_vec().into());
        let signature = signer
            .sign(&payload)
            .map_err(|error| Refusal { status: Status::InternalServerError, info: error.to_string() })?;
        let wrapped = Envelope { payload, signature: signature.into(), ..Envelope::default() };
        let reopened = self::open(&wrapped)?;
        self.filter(bundle, &wrapped, &reopened).map_err(|refusal| {
            refusal.within("config update for existing channel did not pass final checks: ")
        })?;
        Ok(submission(bundle, update, &wrapped, Kind::Config))
    }

    /// A fresh signature header of this orderer's identity, which must then sign what it stands in: the identity may be
    /// renewed at any time, so both are done with one that was taken once.
    pub(crate) fn signature_header(signer: &SigningIdentity) -> SignatureHeader {
        SignatureHeader {
            creator: signer.serialized().clone(),
            nonce: Bytes::copy_from_slice(&rand::random::<[u8; NONCE_BYTES]>()),
        }
    }

    /// Non-empty, not too large, not expired, signed by a writer; in this order.
    fn filter(
        &self,
        bundle: &ChannelBundle,
        envelope: &Envelope,
        open: &OpenEnvelope,
    ) -> Result<(), Refusal> {
        let orderer = bundle.orderer();
        check_size(bundle, envelope)?;
        // Who cannot be read here fails the policy below.
        let identity = signer(bundle, open);
        let creator = bundle.msps().deserialize(identity);
        if creator.is_ok_and(|creator| creator.expires_at() <= self.clock.now()) {
            return Err(Refusal::bad_request("broadcast client identity expired"));
        }
        let path = match orderer.state {
            ConsensusState::Normal => WRITERS,
            ConsensusState::Maintenance => MAINTENANCE_WRITERS,
        };
        let policy = bundle
            .policies()
            .policy(path)
            .ok_or_else(|| Refusal::bad_request(format!("could not find policy {path}")))?;
        let signed = SignedData {
            identity: identity.clone(),
            message: envelope.payload.clone(),
            signature: envelope.signature.clone(),
        };
        policy.evaluate(&[signed]).map_err(|error| Refusal {
            status: Status::Forbidden,
            info: format!("{error}: permission denied"),
        })
    }
}

/// The identity that must be a writer. A transaction may name its creator by the number of an entry on the channel's ledger,
/// which orderers do not keep: then it is the certificate that the sender put beside the transaction. Nothing is taken on
/// trust by that. The signature must be that certificate's, so only a writer gets through; and whether the entry is the
/// certificate's is for the peers to say, which call a transaction invalid whose signature is not the entry's.
fn signer<'o>(bundle: &ChannelBundle, open: &'o OpenEnvelope) -> &'o Bytes {
    let named = open.channel_header.r#type == HeaderType::EndorserTransaction as i32
        && bundle.application().capabilities.registered_identities()
        && EntryNumber::of_serialized(&open.creator).is_some();
    if named { &open.claimed_creator } else { &open.creator }
}

/// Opens an envelope that a client sent.
///
/// # Errors
/// It is empty, or its layers up to the channel's name cannot be read.
pub fn open(envelope: &Envelope) -> Result<OpenEnvelope, Refusal> {
    if envelope.payload.is_empty() {
        return Err(Refusal::bad_request("Message was empty"));
    }
    OpenEnvelope::from_message(envelope.clone())
        .map_err(|error| Refusal::bad_request(format!("could not determine channel ID: {error}")))
}

/// In maintenance only configurations are ordered.
fn check_normal_operation(bundle: &ChannelBundle) -> Result<(), Refusal> {
    let orderer = bundle.orderer();
    if orderer.state == ConsensusState::Maintenance && orderer.capabilities.maintenance_mode() {
        return Err(Refusal::unavailable("normal transactions are rejected: maintenance mode"));
    }
    Ok(())
}

/// Neither empty nor larger than the configuration allows.
fn check_size(bundle: &ChannelBundle, envelope: &Envelope) -> Result<(), Refusal> {
    if envelope.payload.is_empty() {
        return Err(Refusal::bad_request("Message was empty"));
    }
    let (size, limit) =
        (size(envelope) + envelope.creator.len(), bundle.orderer().batch.absolute_max_bytes as usize);
    if size > limit {
        return Err(Refusal::bad_request(format!(
            "message payload is {size} bytes and exceeds maximum allowed {limit} bytes"
        )));
    }
    Ok(())
}

fn size(envelope: &Envelope) -> usize {
    envelope.payload.len() + envelope.signature.len()
}

fn submission(bundle: &ChannelBundle, original: Envelope, ordered: &Envelope, kind: Kind) -> Submission {
    // What the sender told the orderers alone stays out of the block.
    let in_block = Envelope {
        payload: ordered.payload.clone(),
        signature: ordered.signature.clone(),
        ..Envelope::default()
    };
    Submission {
        original,
        ordered: in_block.encode_to_vec().into(),
        size: size(ordered),
        kind,
        sequence: bundle.sequence(),
    }
}
