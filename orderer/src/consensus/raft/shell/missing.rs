//! Blocks that this node lacks: where they are asked for, and what becomes of those that come.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use consort_node::{Tasks, dial::with_causes};
use consort_protos::{block, fabric::common::Block};
use rand::seq::SliceRandom as _;
use tokio::{sync::mpsc, time::Instant};
use tracing::warn;

use super::{Shell, blocking};
use crate::consensus::raft::{
    books::ChannelBooks,
    catch_up::{Fetched, NotAppended, Offer},
    fetch::Fetch,
    machine::Books as _,
};

/// Fetched blocks that wait to be checked and written; more would only hold memory.
const FETCHED_QUEUE: usize = 8;

/// Blocks are asked for elsewhere, because of another introduction, after this time at the earliest.
const ELSEWHERE_AFTER: Duration = Duration::from_secs(2);

impl Shell {
    /// Starts to fetch blocks when some are missing.
    pub(super) fn fetch(&mut self) {
        let now = Instant::now();
        self.introduced.take_if(|(_, until)| *until < now);
        let is_doubted = !self.doubters.is_empty() || self.parts.stranger.load(Ordering::Relaxed);
        let Some(last) = self.parts.machine.wanted(is_doubted, self.introduced.is_some()) else {
            self.fetched = None;
            return;
        };
        let (mut endpoints, roots) = self.sources();
        let is_old = self
            .fetching
            .as_ref()
            .is_some_and(|(asked, since)| *asked != endpoints && *since + ELSEWHERE_AFTER < now);
        if endpoints.is_empty() || self.fetched.is_some() && !is_old {
            return;
        }
        self.fetching = Some((endpoints.clone(), now));
        endpoints.shuffle(&mut rand::rng());
        let fetch = Fetch {
            state: Arc::clone(&self.parts.state),
            dialer: self.parts.dialer.clone(),
            endpoints,
            roots,
            last,
        };
        let (blocks, fetched) = mpsc::channel(FETCHED_QUEUE);
        let tasks: &Tasks = &self.parts.state.tasks;
        let cancelled = tasks.cancelled();
        tasks.spawn(format!("fetch of {}", self.parts.state.id()), false, async move {
            tokio::select! {
                () = cancelled.cancelled() => {}
                () = fetch.run(blocks) => {}
            }
        });
        self.fetched = Some(fetched);
    }

    /// Who may have blocks that are missing here, with the TLS roots of their organisations: the other consenters, and those who have introduced themselves.
    fn sources(&self) -> (Vec<String>, Vec<Bytes>) {
        let own = self.parts.machine.books().own_id();
        let membership = self.parts.membership.read().unwrap_or_else(PoisonError::into_inner);
        let others = membership.members().filter(|(id, _)| Some(*id) != own);
        let mut endpoints: Vec<String> = others.map(|(_, consenter)| consenter.endpoint()).collect();
        drop(membership);
        let mut roots = self.roots();
        if let Some((whereabouts, _)) = &self.introduced {
            endpoints.extend_from_slice(&whereabouts.endpoints);
            roots.extend_from_slice(&whereabouts.roots);
        }
        endpoints.sort_unstable();
        endpoints.dedup();
        (endpoints, roots)
    }

    pub(super) fn take_fetched(&mut self, block: Option<Block>) -> Result<(), String> {
        let Some(block) = block else {
            self.fetched = None;
            return Ok(());
        };
        let number = block::number(&block).get();
        let noted = block::raft_metadata(&block).map_err(|error| error.to_string());
        let (machine, state) = (&mut self.parts.machine, &self.parts.state);
        let taken = match noted {
            Ok(noted) => blocking(|| {
                let (index, ids) =
                    noted.map(|noted| (noted.raft_index, noted.consenter_ids)).unwrap_or_default();
                let previous_hash =
                    block.header.as_ref().map(|header| header.previous_hash.clone()).unwrap_or_default();
                let offer = Offer { number, previous_hash, index, ids };
                let check = |books: &ChannelBooks| books.check_fetched(&block);
                machine.take_fetched(&offer, check, |books| {
                    books.append_fetched(&block).map_err(|reason| match state.store().poisoned() {
                        Some(poisoned) => NotAppended::Broken(poisoned),
                        None => NotAppended::Wrong(reason),
                    })
                })
            })
            .map_err(|error| with_causes(&error))?,
            Err(reason) => Fetched::Refused(reason),
        };
        if let Fetched::Refused(reason) = taken {
            warn!(channel = %state.id(), number, reason, "a fetched block is refused, another orderer is asked");
            self.fetched = None;
            return Ok(());
        }
        let height = machine.books().height();
        self.parts.metrics.height.set(i64::try_from(height).unwrap_or(i64::MAX));
        Ok(())
    }
}
