//! Who may do what: the channel's access rules, and roles in the peer's own organisation.

use std::sync::Arc;

use consort_channel_config::ChannelBundle;
use consort_msp::principal::{self, Role};
use consort_msp::{Identity, MspManager};
use consort_node::renewal::Current;
use consort_protos::ids::MspId;

/// The peer's view of callers. Shared as `Arc`.
#[derive(Debug)]
pub struct Access {
    local: Current<MspManager>,
    msp_id: MspId,
}

impl Access {
    /// `local` knows the peer's own organisation, whose id is `msp_id`; it may be replaced while the peer runs.
    #[must_use]
    pub fn new(local: impl Into<Current<MspManager>>, msp_id: MspId) -> Self {
        Self { local: local.into(), msp_id }
    }

    /// The membership of the peer's own organisation.
    #[must_use]
    pub fn local_msps(&self) -> Arc<MspManager> {
        self.local.get()
    }

    /// Whether an identity has a role in the peer's own organisation.
    ///
    /// # Errors
    /// Why not.
    pub fn local(&self, role: Role, identity: &Identity) -> Result<(), String> {
        self.local
            .get()
            .satisfies(identity, &principal::role(self.msp_id.as_str(), role))
            .map_err(|error| error.to_string())
    }

    /// Whether an identity whose signature was checked satisfies the policy that guards a resource of the channel.
    ///
    /// # Errors
    /// Why not.
    pub fn channel(
        &self,
        bundle: &ChannelBundle,
        resource: &str,
        identity: &Arc<Identity>,
    ) -> Result<(), String> {
        let path = bundle.acl(resource);
        let policy = bundle.policies().policy(path).ok_or_else(|| {
            format!("failed evaluating policy on signed data: policy {path} does not exist")
        })?;
        policy.evaluate_identities(std::slice::from_ref(identity)).map_err(|error| {
            format!("failed evaluating policy on signed data during check policy [{path}]: [{error}]")
        })
    }
}
