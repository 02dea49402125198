//! Whether an update may be made, and what comes out.

use bytes::Bytes;
use consort_crypto::preimage;
use consort_msp::{
    Identity,
    policy::{Policy, PolicyError, SignedData, verified_identities},
};
use consort_protos::fabric::common::{Config, ConfigUpdate, ConfigUpdateEnvelope, SignatureHeader};
use prost::Message;
use std::sync::Arc;

use crate::{
    ChannelBundle,
    names::{ADMINS, check_mod_policy},
    tree::{self, ConfigMap, Element, Key},
};

/// An update is refused. The texts are Fabric's.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// The update's bytes do not parse.
    #[error("error authorizing update: {0}")]
    Malformed(String),
    /// It is for another channel.
    #[error(
        "error authorizing update: ConfigUpdate for channel '{update}' but envelope for channel '{channel}'"
    )]
    Channel {
        /// The channel that the update names.
        update: String,
        /// This channel.
        channel: String,
    },
    /// A name in the read or write set is illegal.
    #[error("error authorizing update: error mapping {set}: {reason}")]
    Names {
        /// `ReadSet` or `WriteSet`.
        set: &'static str,
        /// The rule that is broken.
        reason: String,
    },
    /// The read set does not match the current configuration.
    #[error("error authorizing update: error validating ReadSet: {0}")]
    ReadSet(String),
    /// A change is not allowed by its form.
    #[error("error authorizing update: error validating DeltaSet: {0}")]
    Delta(String),
    /// The signatures do not satisfy the policy that governs a changed element.
    #[error(
        "error authorizing update: error validating DeltaSet: policy for {element} not satisfied: {refusal}"
    )]
    Policy {
        /// `[Value]  /Channel/Orderer/BatchSize`.
        element: String,
        /// The refusal, with its explanation.
        refusal: Box<PolicyError>,
    },
    /// The result would lack an element.
    #[error("error authorizing update: full config did not verify: {0}")]
    Incomplete(String),
    /// The result is no tree.
    #[error("could not turn configMap back to channelGroup: {0}")]
    Rebuild(String),
}

/// Judges an update against a channel's configuration and answers the next configuration. Only the old configuration's
/// policies count.
///
/// # Errors
/// [`UpdateError`] with the first rule that the update breaks.
pub fn authorize(bundle: &ChannelBundle, envelope: &ConfigUpdateEnvelope) -> Result<Config, UpdateError> {
    let update = ConfigUpdate::decode(envelope.config_update.as_ref())
        .map_err(|error| UpdateError::Malformed(format!("error unmarshalling ConfigUpdate: {error}")))?;
    let channel = bundle.channel().as_str();
    if update.channel_id != channel {
        return Err(UpdateError::Channel { update: update.channel_id, channel: channel.to_owned() });
    }
    let current = bundle.elements();
    let names = |set: &'static str| move |reason: String| UpdateError::Names { set, reason };
    let read_set = tree::map(update.read_set.as_ref()).map_err(names("ReadSet"))?;
    check_read_set(&read_set, current)?;
    let write_set = tree::map(update.write_set.as_ref()).map_err(names("WriteSet"))?;
    let delta = delta(&read_set, &write_set);
    let signatures = signatures(envelope)?;
    check_delta(bundle, &delta, &signatures)?;
    let mut next = current.clone();
    next.extend(delta);
    if let Some(missing) = write_set.keys().find(|key| !next.contains_key(key)) {
        return Err(UpdateError::Incomplete(format!(
            "writeset contained key {missing} which did not appear in proposed config"
        )));
    }
    let mut group = tree::rebuild(&next).map_err(UpdateError::Rebuild)?;
    if next.contains_key(&Key::value("/Channel/Orderer/Capabilities")) {
        tree::fill_mod_policies(&mut group, ADMINS);
    }
    Ok(Config { sequence: bundle.sequence().wrapping_add(1), channel_group: Some(group) })
}

/// What was read must be as it was read. Contents in the read set are not looked at.
pub(super) fn check_read_set(read_set: &ConfigMap, current: &ConfigMap) -> Result<(), UpdateError> {
    for (key, read) in read_set {
        let Some(existing) = current.get(key) else {
            return Err(UpdateError::ReadSet(format!(
                "existing config does not contain element for {key} but was in the read set"
            )));
        };
        if existing.version() != read.version() {
            return Err(UpdateError::ReadSet(format!(
                "proposed update requires that key {key} be at version {}, but it is currently at version {}",
                read.version(),
                existing.version()
            )));
        }
    }
    Ok(())
}

/// What is written and was not merely read at the same version.
pub(super) fn delta(read_set: &ConfigMap, write_set: &ConfigMap) -> ConfigMap {
    write_set
        .iter()
        .filter(|(key, written)| read_set.get(key).is_none_or(|read| read.version() != written.version()))
        .map(|(key, written)| (key.clone(), written.clone()))
        .collect()
}

/// Each signature with what it is over.
pub(super) fn signatures(envelope: &ConfigUpdateEnvelope) -> Result<Vec<SignedData>, UpdateError> {
    envelope
        .signatures
        .iter()
        .map(|signature| {
            let header = SignatureHeader::decode(signature.signature_header.as_ref()).map_err(|error| {
                UpdateError::Malformed(format!("error unmarshalling SignatureHeader: {error}"))
            })?;
            let message = preimage::config_signature(&signature.signature_header, &envelope.config_update);
            Ok(SignedData {
                identity: header.creator,
                message: Bytes::from(message),
                signature: signature.signature.clone(),
            })
        })
        .collect()
}

fn check_delta(
    bundle: &ChannelBundle,
    delta: &ConfigMap,
    signatures: &[SignedData],
) -> Result<(), UpdateError> {
    if delta.is_empty() {
        return Err(UpdateError::Delta("delta set was empty -- update would have no effect".to_owned()));
    }
    let signers = verified_identities(bundle.msps(), signatures);
    for (key, written) in delta {
        check_mod_policy(written.mod_policy())
            .map_err(|error| UpdateError::Delta(format!("invalid mod_policy for element {key}: {error}")))?;
        let Some(existing) = bundle.elements().get(key) else {
            if written.version() != 0 {
                return Err(UpdateError::Delta(format!(
                    "attempted to set key {key} to version {}, but key does not exist",
                    written.version()
                )));
            }
            // A new element asks nobody: the group that takes it up must be raised, and that is governed.
            continue;
        };
        if Some(written.version()) != existing.version().checked_add(1) {
            return Err(UpdateError::Delta(format!(
                "attempt to set key {key} to version {}, but key is at version {}",
                written.version(),
                existing.version()
            )));
        }
        check_policy(bundle, key, existing, &signers, signatures)?;
    }
    Ok(())
}

/// The policy that the existing element names must accept the signers.
fn check_policy(
    bundle: &ChannelBundle,
    key: &Key,
    existing: &Element,
    signers: &[Arc<Identity>],
    signatures: &[SignedData],
) -> Result<(), UpdateError> {
    let policy = policy_of(bundle, key, existing)?;
    let refused =
        |refusal: PolicyError| UpdateError::Policy { element: key.to_string(), refusal: Box::new(refusal) };
    if policy.evaluate_identities(signers).is_ok() {
        return Ok(());
    }
    // Once more with the signatures, so that the explanation tells of those that did not count.
    policy.evaluate(signatures).map_err(refused)
}

/// The policy that an existing element names.
pub(super) fn policy_of<'a>(
    bundle: &'a ChannelBundle,
    key: &Key,
    existing: &Element,
) -> Result<&'a Policy, UpdateError> {
    let mod_policy = existing.mod_policy();
    let policies = bundle.policies();
    let found = if mod_policy.starts_with('/') {
        policies.policy(mod_policy)
    } else {
        policies.policy_from(key.policy_group(), mod_policy)
    };
    found.ok_or_else(|| UpdateError::Delta(format!("unexpected missing policy {mod_policy} for item {key}")))
}
