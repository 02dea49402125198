//! The MSP ids that a signature policy mentions.

use std::collections::BTreeSet;

use consort_protos::fabric::common::{MspRole, SignaturePolicyEnvelope};
use prost::Message;

/// MSP ids of all role principals, each once.
pub(super) fn msp_ids(policy: &SignaturePolicyEnvelope) -> BTreeSet<String> {
    let roles =
        policy.identities.iter().filter_map(|principal| MspRole::decode(principal.principal.clone()).ok());
    roles.map(|role| role.msp_identifier).collect()
}
