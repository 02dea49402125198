//! Attestations: what enough peers of a channel signed together about where its books stand. They are checked with nothing
//! but the channel's configuration.
//!
//! Every attester brings its certificate, which the configuration's MSPs judge, and a BLS key that is bound to the certificate:
//! by the certificate itself, or by a proof of possession that names channel, organisation and the certificate's public key.
//! So the keys are chained to the configuration, and no state of the channel is needed. Enough are those who satisfy
//! [`POLICY`]. What the configuration does not know, such as a retired entry of the channel's table of identities, plays no
//! part: to take a key away, its certificate is revoked.

use std::collections::HashSet;
use std::sync::Arc;

use consort_crypto::bls::{self, HashedMessage, Owner, Proof, PublicKey, Signature, statement};
use consort_msp::Identity;
use consort_msp::principal::{self, Role};
use consort_protos::consort::attestations::{Attestation, Attester, Share, State};
use prost::Message;

use crate::{ChannelBundle, DEFAULT_ENDORSEMENT};

/// The policy that an attestation's signers must satisfy: that of endorsements, by default a majority of the application's
/// organisations.
pub const POLICY: &str = DEFAULT_ENDORSEMENT;

/// Attesters of one attestation at most: more than a channel has peers.
pub const ATTESTERS_MAX: usize = 1_024;

/// First field of what attesters sign.
const KIND: &str = "consort/attest/v1";

/// Bytes of the hashes in a statement.
const HASH_BYTES: usize = 32;

/// Why an attestation, or a share of one, counts for nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttestationError {
    /// It does not parse, or something is missing.
    #[error("malformed: {0}")]
    Malformed(String),
    /// It is about another channel than the configuration.
    #[error("it is about channel {found}, and the configuration is that of {expected}")]
    OtherChannel {
        /// The configuration's channel.
        expected: String,
        /// The channel that it names.
        found: String,
    },
    /// An attester is no peer of the channel, or its key is not its own.
    #[error("attester {attester} does not count: {reason}")]
    Attester {
        /// Who it says to be.
        attester: String,
        /// Why not.
        reason: String,
    },
    /// The signature is not that of the attesters over the statement.
    #[error("the signature does not hold")]
    Signature,
    /// Too few signed.
    #[error("those who signed do not satisfy {POLICY}: {0}")]
    TooFew(String),
}

/// An attester that counts.
#[derive(Debug, Clone)]
pub struct KnownAttester {
    /// The peer.
    pub identity: Arc<Identity>,
    /// Its key.
    pub key: PublicKey,
}

/// What is signed: channel, height, header hash and commit hash.
#[must_use]
pub fn message(state: &State) -> Vec<u8> {
    let height = state.height.to_be_bytes();
    statement(KIND, &[state.channel.as_bytes(), &height, &state.header_hash, &state.commit_hash])
}

/// Signs a statement.
#[must_use]
pub fn share(state: State, attester: Attester, secret: &bls::SecretKey) -> Share {
    let signature = secret.sign(&message(&state)).to_bytes();
    Share { state: Some(state), attester: Some(attester), signature: signature.to_vec().into() }
}

/// Adds shares of one statement up. Nothing is checked: see [`verify`].
///
/// # Errors
/// There is no share, one is malformed, or the signatures add up to nothing.
pub fn aggregate(shares: &[Share]) -> Result<Attestation, AttestationError> {
    let mut attesters = Vec::with_capacity(shares.len());
    let mut signatures = Vec::with_capacity(shares.len());
    for share in shares {
        attesters.push(share.attester.clone().ok_or_else(|| missing("attester"))?);
        signatures.push(signature(&share.signature)?);
    }
    let state = shares.first().and_then(|share| share.state.clone()).ok_or_else(|| missing("state"))?;
    let sum = bls::aggregate(&signatures).ok_or(AttestationError::Signature)?;
    Ok(Attestation { state: Some(state), attesters, signature: sum.to_bytes().to_vec().into() })
}

/// Checks one peer's share by itself.
///
/// # Errors
/// [`AttestationError`].
pub fn verify_share(bundle: &ChannelBundle, share: &Share) -> Result<KnownAttester, AttestationError> {
    let state = checked_state(bundle, share.state.as_ref())?;
    let attester = known(bundle, share.attester.as_ref().ok_or_else(|| missing("attester"))?)?;
    if attester.key.verify(&message(state), &signature(&share.signature)?) {
        return Ok(attester);
    }
    Err(AttestationError::Signature)
}

/// Checks an attestation and answers who signed it.
///
/// # Errors
/// [`AttestationError`]: nothing of it counts then.
pub fn verify(
    bundle: &ChannelBundle,
    attestation: &Attestation,
) -> Result<Vec<KnownAttester>, AttestationError> {
    let state = checked_state(bundle, attestation.state.as_ref())?;
    if attestation.attesters.len() > ATTESTERS_MAX {
        return Err(AttestationError::Malformed(format!("more than {ATTESTERS_MAX} attesters")));
    }
    let mut attesters = Vec::with_capacity(attestation.attesters.len());
    let (mut identities, mut keys) = (HashSet::new(), HashSet::new());
    for attester in &attestation.attesters {
        let attester = known(bundle, attester)?;
        if !identities.insert(attester.identity.id().clone()) || !keys.insert(*attester.key.as_bytes()) {
            return Err(AttestationError::Malformed(format!("{} stands there twice", attester.identity)));
        }
        attesters.push(attester);
    }
    let signature = signature(&attestation.signature)?;
    let hashed = HashedMessage::new(&message(state));
    let of_all: Vec<&PublicKey> = attesters.iter().map(|attester| &attester.key).collect();
    if of_all.is_empty() || !bls::verify_aggregate(&of_all, &hashed, &signature) {
        return Err(AttestationError::Signature);
    }
    let identities: Vec<Arc<Identity>> =
        attesters.iter().map(|attester| Arc::clone(&attester.identity)).collect();
    enough(bundle, &identities)?;
    Ok(attesters)
}

/// Whether these peers are enough for an attestation.
///
/// # Errors
/// [`AttestationError::TooFew`].
pub fn enough(bundle: &ChannelBundle, identities: &[Arc<Identity>]) -> Result<(), AttestationError> {
    let policy = bundle.default_endorsement().map_err(|error| AttestationError::TooFew(error.to_string()))?;
    policy.evaluate_identities(identities).map_err(|error| AttestationError::TooFew(error.to_string()))
}

fn checked_state<'s>(
    bundle: &ChannelBundle,
    state: Option<&'s State>,
) -> Result<&'s State, AttestationError> {
    let state = state.ok_or_else(|| missing("state"))?;
    if state.channel != bundle.channel().as_str() {
        return Err(AttestationError::OtherChannel {
            expected: bundle.channel().to_string(),
            found: state.channel.clone(),
        });
    }
    if state.height == 0 || state.header_hash.len() != HASH_BYTES || state.commit_hash.len() != HASH_BYTES {
        return Err(AttestationError::Malformed("no height, or a hash that has not 32 bytes".to_owned()));
    }
    Ok(state)
}

/// An attester that is a peer of the channel's application under the configuration, and its key that is bound to it.
fn known(bundle: &ChannelBundle, attester: &Attester) -> Result<KnownAttester, AttestationError> {
    let refused =
        |attester: &str, reason: String| AttestationError::Attester { attester: attester.to_owned(), reason };
    let msps = bundle.msps();
    let identity = msps
        .deserialize(&attester.identity)
        .map_err(|error| refused("of unknown identity", error.to_string()))?;
    let name = identity.to_string();
    let msp_id = identity.msp_id().as_str();
    if !bundle.application().organisations.iter().any(|known| known.msp_id == *identity.msp_id()) {
        return Err(refused(&name, format!("{msp_id} is no organisation of the application")));
    }
    msps.satisfies(&identity, &principal::role(msp_id, Role::Member))
        .map_err(|error| refused(&name, error.to_string()))?;
    // An MSP without roles knows members only.
    let roles = identity.roles();
    if !roles.contains(&Role::Peer) && roles.iter().any(|role| *role != Role::Member) {
        return Err(refused(&name, "it is no peer".to_owned()));
    }
    let key = key_of(bundle, attester, &identity).map_err(|reason| refused(&name, reason))?;
    Ok(KnownAttester { identity, key })
}

fn key_of(bundle: &ChannelBundle, attester: &Attester, identity: &Identity) -> Result<PublicKey, String> {
    let certificate = identity.certificate();
    let Some(registered) = &attester.bls else {
        let certified = certificate.bls_key().map_err(|error| error.to_string())?;
        let certified = certified.ok_or("neither it nor its certificate brings a BLS key")?;
        if certified.msp_id != identity.msp_id().as_str() {
            return Err(format!("its certificate's BLS key is one of {}", certified.msp_id));
        }
        return Ok(certified.public_key);
    };
    let key = PublicKey::remembered(&registered.public_key).map_err(|error| error.to_string())?;
    let proof = Proof::from_bytes(&registered.proof).map_err(|error| error.to_string())?;
    let owner = Owner::new(identity.msp_id().as_str(), certificate.public_key(), bundle.channel().as_str());
    proof.verify(&key, &owner).map_err(|error| error.to_string())?;
    Ok(key)
}

fn signature(bytes: &[u8]) -> Result<Signature, AttestationError> {
    Signature::from_bytes(bytes).map_err(|error| AttestationError::Malformed(error.to_string()))
}

fn missing(what: &str) -> AttestationError {
    AttestationError::Malformed(format!("the {what} is missing"))
}

/// Reads an attestation.
///
/// # Errors
/// The bytes are none.
pub fn decode(bytes: &[u8]) -> Result<Attestation, AttestationError> {
    Attestation::decode(bytes).map_err(|error| AttestationError::Malformed(error.to_string()))
}
