//! One channel of an orderer, and how operators see it.

use std::sync::Arc;

use consort_node::{Tasks, deliver::Condition};

use crate::channel::Channel;

/// What this orderer is to a channel (Fabric `orderer/common/types`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Relation {
    Consenter,
    Follower,
}

/// How a channel is here (Fabric `orderer/common/types`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Active,
    /// Blocks before the one by which it was joined are still missing.
    Onboarding,
    /// It is being removed.
    Inactive,
    Failed,
}

/// A channel as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Description {
    pub(crate) name: String,
    pub(crate) relation: Relation,
    pub(crate) status: Status,
    pub(crate) height: u64,
}

/// One channel.
pub(super) enum Entry {
    /// Its blocks are here, or on their way up to the one by which it was joined.
    Open { channel: Arc<Channel>, relation: Relation, target: Option<u64> },
    /// Its first block is on its way.
    Empty { relation: Relation, tasks: Tasks },
    /// It is on disk but cannot be served, and why.
    Broken(String),
    /// It is being removed.
    Leaving { relation: Relation },
}

impl Entry {
    pub(super) fn relation(&self) -> Relation {
        match self {
            Self::Open { relation, .. } | Self::Empty { relation, .. } | Self::Leaving { relation } => {
                *relation
            }
            Self::Broken(_) => Relation::Consenter,
        }
    }

    pub(super) fn describe(&self, name: &str) -> Description {
        let (status, height) = match self {
            Self::Open { channel, target, .. } => {
                let height = channel.state().store().height();
                let status = match target {
                    _ if channel.state().failure().is_some() => Status::Failed,
                    Some(number) if height <= *number => Status::Onboarding,
                    _ => Status::Active,
                };
                (status, height)
            }
            Self::Empty { .. } => (Status::Onboarding, 0),
            Self::Broken(_) => (Status::Failed, 0),
            Self::Leaving { .. } => (Status::Inactive, 0),
        };
        Description { name: name.to_owned(), relation: self.relation(), status, height }
    }

    /// Why the channel takes no messages here, when somebody should look at it.
    pub(super) fn fault(&self) -> Option<String> {
        match self {
            Self::Broken(reason) => Some(reason.clone()),
            Self::Open { channel, .. } => match channel.state().condition_now() {
                Condition::Serving => None,
                Condition::Unavailable(reason) => Some(reason),
                Condition::Closed => Some("closed".to_owned()),
            },
            Self::Empty { .. } => Some("onboarding: no orderer has delivered its first block yet".to_owned()),
            Self::Leaving { .. } => None,
        }
    }
}
