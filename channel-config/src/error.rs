//! What can be wrong with a configuration, a block that should carry one, or a step from one to the next.

use consort_msp::policy::PolicyManagerError;

use crate::update::UpdateError;

/// A configuration, or a step to a new one, is refused. The texts are Fabric's where it has them.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The block carries no configuration, or one that does not parse.
    #[error("{0}")]
    Block(String),
    /// The envelope carries no configuration update.
    #[error("error converting envelope to config update: {0}")]
    Envelope(String),
    /// Parts are missing.
    #[error("{0}")]
    Incomplete(String),
    /// A value breaks its rule.
    #[error("initializing channelconfig failed: {0}")]
    Values(String),
    /// A policy does not compile.
    #[error("initializing policymanager failed: {0}")]
    Policies(#[from] PolicyManagerError),
    /// A name is illegal.
    #[error("initializing configtx manager failed: {0}")]
    Names(String),
    /// The update is not allowed.
    #[error(transparent)]
    Update(#[from] UpdateError),
    /// The new configuration demands what this implementation does not have.
    #[error("config update is not compatible: {0}")]
    Capabilities(String),
    /// The new configuration may not follow the old one.
    #[error("{0}")]
    Transition(String),
    /// Maintenance mode does not allow this change, or this change needs it.
    #[error(
        "config update for existing channel did not pass maintenance checks: config transaction inspection failed: {0}"
    )]
    Maintenance(String),
    /// The consenters of the new configuration are not acceptable.
    #[error("consensus metadata update for channel config update is invalid: {0}")]
    Consensus(String),
    /// A configuration does not follow the current one.
    #[error("config currently at sequence {current}, cannot validate config at sequence {proposed}")]
    Sequence {
        /// Sequence of the current configuration.
        current: u64,
        /// Sequence of the proposed one.
        proposed: u64,
    },
    /// The orderer's result is not what the update leads to.
    #[error("ConfigEnvelope LastUpdate did not produce the supplied config result")]
    Mismatch,
}

impl ConfigError {
    /// Whether signatures were missing (status 403), rather than the request being wrong (400).
    #[must_use]
    pub fn is_permission_denied(&self) -> bool {
        matches!(self, Self::Update(UpdateError::Policy { .. }))
    }
}
