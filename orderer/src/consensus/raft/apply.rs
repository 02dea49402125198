//! What is agreed on goes into the books: blocks, changes of the consenters, snapshots, and the log's end that is no longer needed.

use bytes::Bytes;
use consort_ledger::stored_block;
use consort_node::{dial::with_causes, server::MESSAGE_BYTES_MAX};
use prost::Message as _;
use raft::eraftpb::{Entry, EntryType};
use tracing::{debug, error, info};

use super::{
    disk::Disk,
    log::Position,
    machine::{Books, Machine, MachineError},
};

/// Entries that stay in the log behind a compaction, so that a node that is a little late needs no snapshot.
const KEPT_ENTRIES: u64 = 20;

impl<D: Disk, B: Books> Machine<D, B> {
    pub(super) fn install(&mut self, ready: &raft::Ready) -> Result<(), MachineError> {
        let snapshot = ready.snapshot();
        let position = Position::of(snapshot)
            .ok_or_else(|| MachineError::Books("a snapshot names no block".to_owned()))?;
        self.sync_books()?;
        self.node.mut_store().install(snapshot)?;
        self.applied = snapshot.get_metadata().index;
        self.roster = position.roster;
        self.behind = (self.books.height() <= position.block).then_some(position.block);
        if self.behind.is_none() {
            self.caught_up();
        }
        info!(
            last_block = position.block,
            height = self.books.height(),
            "the log continues behind blocks to be fetched"
        );
        Ok(())
    }

    /// The books have what the log's beginning stands for.
    pub(super) fn caught_up(&mut self) {
        self.node.mut_store().applied(self.applied, self.books.height() - 1);
        if self.log().roster().1 >= self.books.last_index() {
            self.books.set_ids(&self.roster.ids, self.roster.next_id);
        }
    }

    pub(super) fn apply(&mut self, entries: Vec<Entry>) -> Result<(), MachineError> {
        for mut entry in entries {
            if self.behind.is_some() {
                // They are in the log, and are read from it when the missing blocks are here.
                return Ok(());
            }
            if entry.index <= self.applied {
                continue;
            }
            match entry.get_entry_type() {
                EntryType::EntryNormal if !entry.context.is_empty() => self.apply_roster_change(&entry)?,
                EntryType::EntryNormal if !entry.data.is_empty() => {
                    let data = std::mem::take(&mut entry.data);
                    self.apply_block(entry.index, data.into())?;
                }
                EntryType::EntryConfChange => self.apply_member_change(&entry)?,
                // A new leader's first entry is empty; changes of several members at once are not made here.
                EntryType::EntryNormal | EntryType::EntryConfChangeV2 => {}
            }
            self.applied = entry.index;
            let last = self.books.height().saturating_sub(1);
            self.node.mut_store().applied(self.applied, last);
        }
        Ok(())
    }

    /// A block that cannot be the next one is passed over, by all consenters alike: a leader that proposes such things does not stop the
    /// channel.
    fn apply_block(&mut self, index: u64, data: Bytes) -> Result<(), MachineError> {
        let opened =
            stored_block::decode_at_most(data, MESSAGE_BYTES_MAX).map_err(|error| with_causes(&error));
        let opened = opened.and_then(|block| {
            let header = block.header.clone().ok_or("it has no header")?;
            Ok((block, header))
        });
        let (block, header) = match opened {
            Ok(opened) => opened,
            Err(reason) => return self.pass_over(index, &reason),
        };
        let height = self.books.height();
        if header.number < height {
            debug!(number = header.number, height, "the block is in the books already");
            return match self.books.is_configuration(&block) {
                true => self.follow_configuration(index, header.number),
                false => Ok(()),
            };
        }
        if let Err(reason) = self.books.check(&block) {
            return self.pass_over(index, &reason);
        }
        let sequence = self.books.sequence();
        let bytes = block.encoded_len() as u64;
        // A lone consenter's books also stand alone: nobody else could give back what they lost with the log.
        let is_alone = self.members().0.len() == 1;
        self.books.append(block, index, is_alone).map_err(MachineError::Books)?;
        if self.books.sequence() != sequence {
            self.follow_configuration(index, header.number)?;
        }
        self.uncompacted_bytes += bytes;
        let hash = self.books.hash_algorithm().block_hash(&header);
        if self.in_flight.front().is_some_and(|block| block.hash == hash)
            && let Some(agreed) = self.in_flight.pop_front()
        {
            for ticket in agreed.tickets {
                self.settle(ticket, Ok(()));
            }
        }
        Ok(())
    }

    /// A leader whose own proposal this was begins again from the books: what it proposed behind it cannot follow either.
    fn pass_over(&mut self, index: u64, reason: &str) -> Result<(), MachineError> {
        error!(index, reason, "an agreed entry is no block that can follow; it is passed over");
        if self.leads() && !self.in_flight.is_empty() {
            self.drop_in_hand();
        }
        Ok(())
    }

    /// Whether as many bytes were agreed on as lie between two snapshots.
    pub(super) fn is_compaction_due(&self) -> bool {
        self.uncompacted_bytes >= u64::from(self.books.raft_options().snapshot_interval_bytes)
    }

    pub(super) fn compact(&mut self) -> Result<(), MachineError> {
        if self.is_compaction_due() {
            self.sync_books()?;
            self.node.mut_store().compact(self.applied.saturating_sub(KEPT_ENTRIES))?;
            self.uncompacted_bytes = 0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use consort_crypto::preimage::envelopes_hash;
    use consort_protos::fabric::common::{Block, BlockHeader, Envelope};

    use super::{
        super::{
            machine::{Outbox, Settings},
            simulated::{CONSENTERS, MemoryBooks, MemoryDisk, Power},
        },
        *,
    };
    use crate::submission::{Kind, Submission};

    struct Nobody;

    impl Outbox for Nobody {
        fn send(
            &mut self,
            _to: u64,
            _message: raft::eraftpb::Message,
            _standing: consort_protos::consort::orderer::Standing,
        ) {
        }

        fn greet(&mut self, _to: u64, _hello: consort_protos::consort::orderer::Hello) {}
    }

    fn leader() -> Machine<MemoryDisk, MemoryBooks> {
        let power = Power::default();
        let books = MemoryBooks::new(1, &[1], power.clone());
        lead(MemoryDisk::new(power), books)
    }

    fn open(disk: MemoryDisk, books: MemoryBooks) -> Machine<MemoryDisk, MemoryBooks> {
        let mut next = 0;
        let random = move || {
            next += 1;
            next
        };
        let settings = Settings { random: Box::new(random), election_ticks: None };
        Machine::open(disk, books, settings).unwrap()
    }

    fn lead(disk: MemoryDisk, books: MemoryBooks) -> Machine<MemoryDisk, MemoryBooks> {
        let mut machine = open(disk, books);
        while machine.obstacle().is_some() {
            machine.pass(1).unwrap();
        }
        machine.campaign();
        machine.drive(&mut Nobody).unwrap();
        assert!(machine.leads());
        machine
    }

    fn submission(payload: String, kind: Kind) -> Submission {
        let original = Envelope { payload: payload.into(), ..Envelope::default() };
        let ordered = original.encode_to_vec().into();
        Submission { original, ordered, size: 7, kind, sequence: 0 }
    }

    fn block(number: u64, previous_hash: Vec<u8>) -> Vec<u8> {
        let envelopes = vec![Bytes::from_static(b"anything")];
        let data_hash = envelopes_hash(&envelopes).to_vec().into();
        let header = BlockHeader { number, previous_hash: previous_hash.into(), data_hash };
        consort_protos::block::assemble(header, envelopes).encode_to_vec()
    }

    /// CVE-2021-43669: a block with a bad header stopped Fabric's orderers. CVE-2023-46132: blocks were taken that do not link.
    #[test]
    fn a_leader_that_proposes_a_bad_header_or_no_next_block_does_not_stop_the_channel() {
        let mut machine = leader();
        let good = machine.books().last_hash().to_vec();
        let bad = [
            vec![0],
            vec![255; 40],
            Block::default().encode_to_vec(),
            Block { header: Some(BlockHeader::default()), ..Block::default() }.encode_to_vec(),
            block(1, vec![1; 32]),
            block(7, good.clone()),
            block(u64::MAX, good),
        ];
        for data in bad {
            machine.node.propose(Vec::new(), data).unwrap();
            machine.drive(&mut Nobody).unwrap();
        }
        machine.node.propose(vec![255; 9], Vec::new()).unwrap();
        machine.drive(&mut Nobody).unwrap();
        assert_eq!(machine.books().height(), 1);

        machine.submit(submission("message".to_owned(), Kind::Normal), 9);
        machine.cut_if_idle();
        machine.drive(&mut Nobody).unwrap();
        assert_eq!(machine.books().height(), 2);
        assert!(machine.take_outcomes().iter().any(|outcome| outcome.ticket == 9 && outcome.result.is_ok()));
    }

    #[test]
    fn a_snapshot_names_the_consenters_of_its_last_block_whenever_the_power_failed() {
        let mut cut_between = 0;
        for writes in 0..8 {
            let power = Power::default();
            let disk = MemoryDisk::new(power.clone());
            let books = MemoryBooks::new(1, &[1], power.clone());
            let mut machine = lead(disk.clone(), books.clone());
            power.fail_after(writes, true);
            machine.submit(submission(format!("{CONSENTERS} 1 2"), Kind::Config), 9);
            let failed = machine.drive(&mut Nobody).is_err();
            let noted = machine.log().roster().0.ids.len();
            drop(machine);
            power.restore();
            books.reopen();

            let machine = open(disk, books.clone());
            cut_between += usize::from(failed && books.height() == 2 && noted == 1);
            let snapshot = raft::Storage::snapshot(machine.log(), 0, 2).unwrap();
            let position = Position::of(&snapshot).unwrap();
            assert_eq!(position.block, books.height() - 1);
            assert_eq!(position.roster.ids, books.ids().0, "after {writes} writes");
        }
        assert!(cut_between > 0, "no failure came between the block and the note of its consenters");
    }
}
