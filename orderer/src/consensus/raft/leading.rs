//! What a leader does with submissions: judges them again, cuts blocks, proposes them, and tells what became of them.
//!
//! Source of the rules on proposing and losing leadership: Fabric `orderer/consensus/etcdraft/chain.go`.

use consort_protos::{block, fabric::common::BlockHeader};
use prost::Message as _;
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
            Ok(config) if config.kind == Kind::Config => {
                if let Err(refusal) = self.check_change(&config) {
                    return self.settle(ticket, Err(refusal));
                }
                if let Some(batch) = self.cutter.cut() {
                    self.propose(batch, CutReason::Config);
                }
                self.propose(vec![(config, ticket)], CutReason::Config);
            }
            Ok(normal) => {
                let size = normal.size;
                for (batch, reason) in self.cutter.ordered(&self.books.batch(), (normal, ticket), size) {
                    self.propose(batch, reason);
                }
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
        let data = block::assemble(header, envelopes).encode_to_vec();
        if let Err(error) = self.node.propose(Vec::new(), data) {
            info!(%error, "a block could not be proposed");
            return self.settle_all(tickets, &no_leader());
        }
        *tip = Tip { next: tip.next + 1, hash };
        self.in_flight.push_back(InFlight { hash, kind, tickets });
        self.cuts.push(reason);
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
        let tickets = waiting.chain(in_flight).collect();
        self.settle_all(tickets, &Refusal::unavailable("the Raft leader changed; the message may be lost"));
    }

    /// A new leader serves once everything before its term is in the books.
    pub(super) fn begin_to_lead(&mut self) {
        let raft = &self.node.raft;
        let caught_up =
            self.behind.is_none() && raft.commit_to_current_term() && self.applied == raft.raft_log.committed;
        if self.tip.is_none() && raft.state == StateRole::Leader && caught_up {
            self.term_led = raft.term;
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

    /// Why blocks were cut since the last call.
    pub(crate) fn take_cuts(&mut self) -> Vec<CutReason> {
        std::mem::take(&mut self.cuts)
    }
}

fn no_leader() -> Refusal {
    Refusal::unavailable("no Raft leader")
}
