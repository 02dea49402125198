//! Who may ask: the signed requests that are no proposals are held against the channel's access control list.

use std::sync::Arc;

use consort_channel_config::ChannelBundle;
use consort_msp::policy::SignedData;
use consort_node::Clock;
use tonic::Status;

use crate::channel::ChannelHandle;
use crate::identities::with_certificate;

/// A signed request that was allowed, and can be judged again while its answer goes on.
pub(super) struct Access {
    channel: Arc<ChannelHandle>,
    resource: &'static str,
    signed: SignedData,
    clock: Arc<dyn Clock>,
    /// Sequence of the configuration under which the policy was satisfied.
    allowed_at: Option<u64>,
}

impl Access {
    /// Judges the request for the first time.
    pub(super) fn new(
        channel: Arc<ChannelHandle>,
        resource: &'static str,
        signed: SignedData,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Status> {
        let signed = SignedData { identity: with_certificate(&channel, &signed.identity), ..signed };
        let mut access = Self { channel, resource, signed, clock, allowed_at: None };
        access.check()?;
        Ok(access)
    }

    /// The channel that was asked about.
    pub(super) fn channel(&self) -> &Arc<ChannelHandle> {
        &self.channel
    }

    /// Judges the request under the configuration in force; the policy only when that is another than the last time, the
    /// end of the certificate always. Fabric's deliver service keeps its streams in the same way.
    pub(super) fn check(&mut self) -> Result<(), Status> {
        let bundle = self.channel.bundle();
        let verdict = self.judge(&bundle);
        verdict.map_err(|reason| {
            tracing::info!(channel = %bundle.channel(), resource = self.resource, %reason, "access denied");
            denied(bundle.channel().as_str())
        })?;
        self.allowed_at = Some(bundle.sequence());
        Ok(())
    }

    fn judge(&self, bundle: &ChannelBundle) -> Result<(), String> {
        let identity = bundle.msps().deserialize(&self.signed.identity).map_err(|error| error.to_string())?;
        if identity.expires_at() <= self.clock.now() {
            return Err(format!("the certificate of {identity} has expired"));
        }
        if self.allowed_at == Some(bundle.sequence()) {
            return Ok(());
        }
        let path = bundle.acl(self.resource);
        let policy = bundle.policies().policy(path).ok_or_else(|| format!("there is no policy {path}"))?;
        policy.evaluate(std::slice::from_ref(&self.signed)).map_err(|error| error.to_string())
    }
}

/// The answer to whoever may not ask. An unknown channel looks the same as a known one that the caller may not see.
pub(super) fn denied(channel: &str) -> Status {
    Status::permission_denied(format!("access denied: channel [{channel}]"))
}
