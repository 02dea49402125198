//! What a leader does with submissions: judges them again, cuts blocks, proposes them, and tells what became of them.
//!
//! Source of the rules on proposing and losing leadership: Fabric `orderer/consensus/etcdraft/chain.go`.

use consort_ledger::stored_block;
use consort_protos::{block, fabric::common::BlockHeader};
use raft::StateRole;
use tracing::{info, warn};

use super::{
    disk::Disk,
    machine::{Books, Machine, Outcome, Ticket},
};
use crate::{
    cutter::CutReason,
    submission::{Kind, Refusal, Submission},
};

/// Changes of the configuration that a new leader holds until it knows who is alive; each is an operator's.
const HELD_CHANGES: usize = 16;

/// The block that will be proposed next.
pub(super) struct Tip {
    next: u64,
    hash: [u8; 32],
}

/// A block that is being agreed on.
pub(super) struct InFlight {
    pub(super) hash: [u8; 32],
    kind: Kind,
    pub(super) tickets: Vec<Ticket>,
}

impl<D: Disk, B: Books> Machine<D, B> {
    /// Whether a submission would be taken now: this node leads, has room in flight, and no configuration is on its way.
    pub(crate) fn accepts(&self) -> bool {
        self.tip.is_some()
            && self.in_flight.len() < self.books.raft_options().max_inflight_blocks.max(1) as usize
            && self.in_flight.iter().all(|block| block.kind == Kind::Normal)
    }

    /// Takes a submission; its outcome follows.
    pub(crate) fn submit(&mut self, submission: Submission, ticket: Ticket) {
        self.wake_up();
        if self.tip.is_none() {
            return self.settle(ticket, Err(no_leader()));
        }
        let judged = if submission.sequence < self.books.sequence() {
            self.books.judge_again(submission)
        } else {
            Ok(submission)
        };
        match judged {
            Err(refusal) => {
                warn!(%refusal, "a message does not fit the configuration that came before it");
                self.settle(ticket, Err(refusal));
            }
            Ok(config) if config.kind == Kind::Config => self.submit_change(config, ticket),
            Ok(normal) => {
                let size = normal.size;
                for (batch, reason) in self.cutter.ordered(&self.books.batch(), (normal, ticket), size) {
                    self.propose(batch, reason);
                }
            }
        }
    }

    fn submit_change(&mut self, config: Submission, ticket: Ticket) {
        if let Err(refusal) = self.check_change(&config) {
            if self.may_change_once_all_are_heard(&config) && self.held.len() < HELD_CHANGES {
                return self.held.push_back((config, ticket));
            }
            return self.settle(ticket, Err(refusal));
        }
        if let Some(batch) = self.cutter.cut() {
            self.propose(batch, CutReason::Config);
        }
        self.propose(vec![(config, ticket)], CutReason::Config);
    }

    /// A leader knows who is alive by their answers to its heartbeats. One that was just elected has heard of those who voted for it, and need not
    /// have heard of the others: it judges when it has led for an election timeout.
    fn may_change_once_all_are_heard(&self, config: &Submission) -> bool {
        let election_timeout = self.node.raft.election_timeout() as u64;
        self.ticks < self.led_since + election_timeout && self.check_change_by(config, |_| true).is_ok()
    }

    /// Judges the changes again that were held back.
    pub(super) fn judge_held(&mut self) {
        for _ in 0..self.held.len() {
            if !self.accepts() {
                return;
            }
            if let Some((config, ticket)) = self.held.pop_front() {
                self.submit(config, ticket);
            }
        }
    }

    /// The first waiting message has waited for the batch timeout.
    pub(crate) fn batch_expired(&mut self) {
        self.cut(CutReason::Timeout);
    }

    /// Nothing is being agreed on: what waits need not wait for more.
    pub(crate) fn cut_if_idle(&mut self) {
        if self.is_idle() {
            self.cut(CutReason::Idle);
        }
    }

    fn cut(&mut self, reason: CutReason) {
        if self.accepts()
            && let Some(batch) = self.cutter.cut()
        {
            self.propose(batch, reason);
        }
    }

    fn propose(&mut self, batch: Vec<(Submission, Ticket)>, reason: CutReason) {
        let (submissions, tickets): (Vec<Submission>, Vec<Ticket>) = batch.into_iter().unzip();
        let hashing = self.books.hash_algorithm();
        let Some(tip) = &mut self.tip else {
            return self.settle_all(tickets, &no_leader());
        };
        let kind = submissions.first().map_or(Kind::Normal, |first| first.kind);
        let envelopes: Vec<_> = submissions.into_iter().map(|submission| submission.ordered).collect();
        let header = BlockHeader {
            number: tip.next,
            previous_hash: tip.hash.to_vec().into(),
            data_hash: hashing.envelopes_hash(&envelopes).to_vec().into(),
        };
        let hash = hashing.block_hash(&header);
        // Compressed: the entry is copied, encrypted and written several times on each consenter, and its envelopes repeat the same certificates.
        let data = stored_block::encode(&block::assemble(header, envelopes));
        if let Err(error) = self.node.propose(Vec::new(), data) {
            info!(%error, "a block could not be proposed");
            return self.settle_all(tickets, &no_leader());
        }
        *tip = Tip { next: tip.next + 1, hash };
        self.cuts.push((reason, tickets.len()));
        self.in_flight.push_back(InFlight { hash, kind, tickets });
    }

    /// A leader that is none any more, or is one anew, drops what it had in hand; clients are told.
    pub(super) fn follow_leadership(&mut self) {
        let leads = self.node.raft.state == StateRole::Leader && self.node.raft.term == self.term_led;
        if self.tip.is_some() && !leads {
            self.drop_in_hand();
        }
    }

    /// What was not agreed on yet may be lost.
    pub(super) fn drop_in_hand(&mut self) {
        self.tip = None;
        let waiting = self.cutter.cut().unwrap_or_default().into_iter().map(|(_, ticket)| ticket);
        let in_flight = std::mem::take(&mut self.in_flight).into_iter().flat_map(|block| block.tickets);
        let held = std::mem::take(&mut self.held).into_iter().map(|(_, ticket)| ticket);
        let tickets = waiting.chain(in_flight).chain(held).collect();
        self.settle_all(tickets, &Refusal::unavailable("the Raft leader changed; the message may be lost"));
    }

    /// A new leader serves once everything before its term is in the books.
    pub(super) fn begin_to_lead(&mut self) {
        let raft = &self.node.raft;
        let caught_up =
            self.behind.is_none() && raft.commit_to_current_term() && self.applied == raft.raft_log.committed;
        if self.tip.is_none() && raft.state == StateRole::Leader && caught_up {
            (self.term_led, self.led_since) = (raft.term, self.ticks);
            self.tip = Some(Tip { next: self.books.height(), hash: self.books.last_hash() });
            info!(term = raft.term, height = self.books.height(), "this orderer leads");
        }
    }

    pub(super) fn settle(&mut self, ticket: Ticket, result: Result<(), Refusal>) {
        self.outcomes.push(Outcome { ticket, result });
    }

    fn settle_all(&mut self, tickets: Vec<Ticket>, refusal: &Refusal) {
        self.outcomes
            .extend(tickets.into_iter().map(|ticket| Outcome { ticket, result: Err(refusal.clone()) }));
    }

    /// What became of submissions since the last call.
    pub(crate) fn take_outcomes(&mut self) -> Vec<Outcome> {
        std::mem::take(&mut self.outcomes)
    }

    /// Why blocks were cut since the last call, and how many messages each has.
    pub(crate) fn take_cuts(&mut self) -> Vec<(CutReason, usize)> {
        std::mem::take(&mut self.cuts)
    }
}

fn no_leader() -> Refusal {
    Refusal::unavailable("no Raft leader")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::raft::elected::Elected;

    #[test]
    fn a_free_leader_cuts_at_once_and_no_message_waits_longer_than_the_batch_timeout() {
        let mut elected = Elected::new();
        elected.machine(0).take_cuts();
        elected.send("first", 1);
        elected.send("behind the first", 2);
        assert_eq!(elected.machine(0).take_cuts(), [(CutReason::Idle, 1)], "a block is being agreed on");
        assert!(elected.machine(0).is_waiting());
        elected.machine(0).batch_expired();
        assert_eq!(elected.machine(0).take_cuts(), [(CutReason::Timeout, 1)]);
        elected.exchange();
        assert_eq!(elected.outcomes().len(), 2);
    }

    #[test]
    fn a_new_leader_waits_for_answers_before_it_judges_who_is_alive() {
        let mut elected = Elected::new();
        elected.remove_second(1);
        assert!(elected.outcomes().is_empty(), "it has not heard of the third one yet");

        elected.silent = None;
        elected.machine(0).pass(1).unwrap();
        elected.exchange();
        elected.machine(0).pass(1).unwrap();
        elected.exchange();
        let outcomes = elected.outcomes();
        assert!(matches!(&outcomes[..], [Outcome { ticket: 1, result: Ok(()) }]), "{outcomes:?}");
    }

    #[test]
    fn a_change_that_would_lose_the_quorum_is_refused_after_an_election_timeout() {
        let mut elected = Elected::new();
        elected.remove_second(1);
        for _ in 0..10 {
            assert!(elected.outcomes().is_empty());
            elected.machine(0).pass(1).unwrap();
            elected.exchange();
        }
        let outcomes = elected.outcomes();
        assert!(
            matches!(&outcomes[..], [Outcome { ticket: 1, result: Err(refusal) }] if refusal.info.contains("quorum loss")),
            "{outcomes:?}"
        );
        elected.remove_second(2);
        assert_eq!(elected.outcomes().len(), 1, "it knows by now, and refuses at once");
    }
}
