//! What an update would touch, and whose signatures that needs: for people, before it is submitted.

use std::collections::BTreeMap;

use consort_msp::policy::verified_identities;
use consort_protos::{
    fabric::common::{ConfigUpdate, ConfigUpdateEnvelope},
    ids::MspId,
};
use prost::Message;

use super::authorize::{self, UpdateError, policy_of};
use crate::{ChannelBundle, tree};

/// A changed element that exists already, and the policy that guards it.
#[derive(Debug, Clone)]
pub struct Demand {
    /// The element as Fabric writes it: `[Value]  /Channel/Orderer/BatchSize`.
    pub element: String,
    /// Name of the policy as the element gives it: `Admins`.
    pub policy: String,
    /// The smallest sets of organisations whose signatures can satisfy it, with how many signers of each.
    pub signers: Vec<BTreeMap<MspId, usize>>,
    /// Why the signatures that are there do not suffice; `None` when they do.
    pub unmet: Option<String>,
}

/// What the changes of an update demand, with the signatures that it carries. New elements demand nothing: the group that
/// takes them up does.
///
/// # Errors
/// [`UpdateError`] when the update does not fit this configuration at all.
pub fn demands(bundle: &ChannelBundle, envelope: &ConfigUpdateEnvelope) -> Result<Vec<Demand>, UpdateError> {
    let update = ConfigUpdate::decode(envelope.config_update.as_ref())
        .map_err(|error| UpdateError::Malformed(format!("error unmarshalling ConfigUpdate: {error}")))?;
    let names = |set: &'static str| move |reason: String| UpdateError::Names { set, reason };
    let read_set = tree::map(update.read_set.as_ref()).map_err(names("ReadSet"))?;
    authorize::check_read_set(&read_set, bundle.elements())?;
    let write_set = tree::map(update.write_set.as_ref()).map_err(names("WriteSet"))?;
    let signatures = authorize::signatures(envelope)?;
    let signers = verified_identities(bundle.msps(), &signatures);
    let mut demands = Vec::new();
    for (key, _) in authorize::delta(&read_set, &write_set) {
        let Some(existing) = bundle.elements().get(&key) else { continue };
        let policy = policy_of(bundle, &key, existing)?;
        let unmet = match policy.evaluate_identities(&signers) {
            Ok(()) => None,
            Err(_) => policy.evaluate(&signatures).err().map(|refusal| format!("{refusal:#}")),
        };
        demands.push(Demand {
            element: key.to_string(),
            policy: existing.mod_policy().to_owned(),
            signers: policy.organisation_sets(),
            unmet,
        });
    }
    Ok(demands)
}
