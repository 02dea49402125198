//! What others see of a channel's Raft group: who leads, who its consenters are and how far they are.

use std::sync::{PoisonError, atomic::Ordering};

use bytes::Bytes;
use consort_channel_config::Consenter;
use consort_node::deliver::Condition;
use tracing::info;

use super::Shell;
use crate::consensus::{Leadership, raft::machine::Books as _, revoked};

impl Shell {
    /// A removal that was agreed on before a restart may still have to be carried out with the one who leaves.
    pub(super) fn keep_leaving(&mut self) -> Result<(), String> {
        let counted = self.parts.machine.counted();
        let Some(earlier) = self.parts.machine.books().membership_before()? else { return Ok(()) };
        let mut membership = self.parts.membership.write().unwrap_or_else(PoisonError::into_inner);
        membership.keep_leaving(&earlier, &counted);
        Ok(())
    }

    pub(super) fn show_lags(&mut self) {
        let lags = self.parts.machine.lags();
        let membership = self.parts.membership.read().unwrap_or_else(PoisonError::into_inner);
        let endpoint =
            |id: u64| membership.members().find(|(other, _)| *other == id).map(|(_, one)| one.endpoint());
        let named: Vec<(String, u64)> =
            lags.into_iter().filter_map(|(id, lag)| Some((endpoint(id)?, lag))).collect();
        drop(membership);
        self.parts.metrics.show_lags(named);
    }

    pub(super) fn publish_leadership(&mut self) {
        let leadership = match self.parts.machine.leadership() {
            // An elected leader orders only once everything before its term is in the books.
            Leadership::Own if !self.parts.machine.leads() => Leadership::Nobody,
            other => other,
        };
        if leadership != Leadership::Nobody {
            self.election = None;
        }
        if self.parts.machine.is_led() {
            self.doubters.clear();
            self.parts.stranger.store(false, Ordering::Relaxed);
        }
        let changed = self
            .parts
            .leadership
            .send_if_modified(|current| std::mem::replace(current, leadership) != leadership);
        let obstacle = self.parts.machine.obstacle();
        if changed {
            self.parts.transport.leads(match leadership {
                Leadership::Other(id) => Some(id),
                Leadership::Own | Leadership::Nobody => None,
            });
            self.parts.metrics.leader.set(i64::from(leadership == Leadership::Own));
            self.parts.metrics.term.set(i64::try_from(self.parts.machine.term()).unwrap_or(i64::MAX));
            info!(channel = %self.parts.state.id(), ?leadership, term = self.parts.machine.term(), "Raft leadership");
        }
        if changed || obstacle != self.obstacle {
            self.parts.state.set_condition(match (&obstacle, leadership) {
                (Some(reason), _) => Condition::Unavailable(reason.clone()),
                (None, Leadership::Nobody) => Condition::Unavailable("no Raft leader".to_owned()),
                (None, Leadership::Own | Leadership::Other(_)) => Condition::Serving,
            });
            self.obstacle = obstacle;
        }
    }

    /// Follows the configuration: who the consenters are and which roots their certificates have.
    pub(super) fn connect(&mut self) {
        let books = self.parts.machine.books();
        let (sequence, own) = (books.sequence(), books.own_id());
        let voters = self.parts.machine.members().0.len();
        let counted = self.parts.machine.counted();
        self.parts.metrics.voters.set(i64::try_from(voters).unwrap_or(i64::MAX));
        let mut shared = self.parts.membership.write().unwrap_or_else(PoisonError::into_inner);
        shared.let_go(&counted);
        let at = (sequence, shared.ids().0, shared.has_leaving());
        if self.connected_at.as_ref() == Some(&at) {
            return;
        }
        self.connected_at = Some(at);
        let membership = shared.clone();
        drop(shared);
        let bundle = self.parts.state.bundle();
        let refuses = |consenter: &Consenter| revoked::is_revoked(bundle.msps(), consenter);
        self.parts.transport.connect(&membership, own, &self.roots(), refuses);
    }

    pub(super) fn roots(&self) -> Vec<Bytes> {
        let bundle = self.parts.state.bundle();
        let organisations = bundle.orderer().organisations.iter();
        organisations.flat_map(|organisation| bundle.tls_roots_of(&organisation.msp_id)).collect()
    }
}
