//! Calls between peers about private data: who makes them, for whom, and over which connection.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use consort_channel_config::ChannelBundle;
use consort_crypto::hash::sha256;
use consort_msp::principal::Role;
use consort_msp::{Identity, SigningIdentity};
use consort_node::server::PeerCertificate;
use consort_protos::consort::privatedata::{Body, Signed, body};
use prost::Message;
use time::OffsetDateTime;

/// What the signature covers before the body, so that it can be taken for nothing else.
const DOMAIN: &[u8] = b"consort.privatedata.PrivateData/1\0";
/// Largest difference between a call's time and the own clock. Generous to bad clocks; a call is bound to one connection and one
/// recipient, so that repeating it gives nobody anything.
const CLOCK_DIFFERENCE_MAX: Duration = Duration::from_secs(300);

/// Why a call counts for nothing. The caller is not told: it is for the log.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallRefused {
    /// The connection has no client certificate.
    #[error(
        "the caller showed no TLS certificate; remedy: set tls.client_auth of this peer to optional or required"
    )]
    NoCertificate,
    /// It came over another connection than it was made for.
    #[error("it was made for another connection")]
    OtherConnection,
    /// It was made for another peer.
    #[error("it was made for another peer")]
    OtherRecipient,
    /// It is too old, or from the future.
    #[error("its time differs by more than {} s from this peer's; remedy: set the clocks", CLOCK_DIFFERENCE_MAX.as_secs())]
    Time,
    /// Its author is no peer of the channel.
    #[error("its author is no peer of the channel: {0}")]
    Author(String),
}

/// Signs a call.
pub(super) fn seal(
    signer: &SigningIdentity,
    channel: &str,
    recipient: &[u8],
    tls_cert_hash: Bytes,
    now: OffsetDateTime,
    content: body::Content,
) -> Result<Signed, String> {
    let body = Body {
        channel: channel.to_owned(),
        recipient_hash: Bytes::copy_from_slice(&sha256(recipient)),
        tls_cert_hash,
        timestamp_ms: milliseconds(now),
        content: Some(content),
    };
    let body = Bytes::from(body.encode_to_vec());
    let signature = signer.sign(&[DOMAIN, &body].concat()).map_err(|error| error.to_string())?;
    Ok(Signed { body, identity: signer.serialized().clone(), signature: signature.into() })
}

/// Checks who made a call, and gives the author. `own` is this peer's identity.
pub(super) fn verify(
    signed: &Signed,
    body: &Body,
    bundle: &ChannelBundle,
    certificate: Option<&PeerCertificate>,
    own: &[u8],
    now: OffsetDateTime,
) -> Result<Arc<Identity>, CallRefused> {
    let certificate = certificate.and_then(|certificate| certificate.0.as_ref());
    let certificate = certificate.ok_or(CallRefused::NoCertificate)?;
    if body.tls_cert_hash[..] != sha256(certificate) {
        return Err(CallRefused::OtherConnection);
    }
    if body.recipient_hash[..] != sha256(own) {
        return Err(CallRefused::OtherRecipient);
    }
    if milliseconds(now).abs_diff(body.timestamp_ms) > CLOCK_DIFFERENCE_MAX.as_secs() * 1_000 {
        return Err(CallRefused::Time);
    }
    let author = peer_identity(bundle, &signed.identity, now).map_err(CallRefused::Author)?;
    author
        .verify(&[DOMAIN, &signed.body].concat(), &signed.signature)
        .map_err(|error| CallRefused::Author(error.to_string()))?;
    Ok(author)
}

/// The identity, when it is a valid one of a peer of an application organisation of the channel.
pub(super) fn peer_identity(
    bundle: &ChannelBundle,
    serialized: &[u8],
    now: OffsetDateTime,
) -> Result<Arc<Identity>, String> {
    let identity = bundle.msps().deserialize(serialized).map_err(|error| error.to_string())?;
    let organisations = &bundle.application().organisations;
    if !organisations.iter().any(|organisation| organisation.msp_id == *identity.msp_id()) {
        return Err(format!("{} is no application organisation", identity.msp_id()));
    }
    bundle.msps().validate(&identity).map_err(|error| error.to_string())?;
    if identity.expires_at() <= now {
        return Err("its certificate has expired".to_owned());
    }
    let roles = identity.roles();
    let other_role = [Role::Client, Role::Admin, Role::Orderer].iter().any(|role| roles.contains(role));
    if other_role && !roles.contains(&Role::Peer) {
        return Err("its certificate has another role".to_owned());
    }
    Ok(identity)
}

/// Milliseconds since 1970; 0 before.
pub(super) fn milliseconds(time: OffsetDateTime) -> u64 {
    u64::try_from(time.unix_timestamp_nanos() / 1_000_000).unwrap_or(0)
}
