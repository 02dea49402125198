//! What a node remembers of the others, on disk: which life of a log each spoke for, and how much it said to have on disk.
//!
//! A consenter whose disk was emptied or set back to an old copy cannot know by itself what it promised. Those to whom it promised do.

use std::collections::BTreeMap;

use consort_protos::consort::orderer::{Hello, Standing, verdict::Finding};
use prost::Message;

/// Ids that are remembered. A channel has far fewer consenters; the bound keeps one that claims many ids from filling the disk.
const REMEMBERED_MAX: usize = 1024;

/// By Raft id.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Memory {
    #[prost(btree_map = "uint64, message", tag = "1")]
    peers: BTreeMap<u64, Remembered>,
}

/// One consenter, by what it said.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Remembered {
    #[prost(fixed64, tag = "1")]
    incarnation: u64,
    #[prost(fixed64, tag = "2")]
    boot: u64,
    #[prost(uint64, tag = "3")]
    term: u64,
    #[prost(uint64, tag = "4")]
    index: u64,
    /// Whether it spoke under this id itself, and not only as a node that has none yet.
    #[prost(bool, tag = "5")]
    has_id: bool,
}

impl Memory {
    /// Judges a hello by what is remembered of `id`, and remembers it when nothing speaks against it. The hello must be on disk before
    /// the finding is told.
    pub(crate) fn hear(&mut self, id: u64, hello: &Hello) -> (Finding, Option<Remembered>) {
        let said = hello.standing.unwrap_or_default();
        let Some(known) = self.peers.get_mut(&id) else {
            if self.peers.len() >= REMEMBERED_MAX {
                return (Finding::Undecided, None);
            }
            self.peers.insert(id, Remembered::new(&said, hello.id != 0));
            return (Finding::Accepted, None);
        };
        if known.incarnation != said.incarnation {
            return (Finding::OtherIncarnation, Some(*known));
        }
        if known.boot == said.boot {
            known.has_id |= hello.id != 0;
            return (Finding::Accepted, None);
        }
        // Each start is counted on disk, so a lower or equal count is that of an old copy, or of a message that was under way for long, whose sender
        // does not mind. What was said in an earlier life must still be there: a log loses acknowledged entries only to a later term.
        let is_later = starts(said.boot) > starts(known.boot);
        if !is_later || (said.term, said.index) < (known.term, known.index) {
            return (Finding::Regressed, Some(*known));
        }
        let has_id = known.has_id || hello.id != 0;
        // The entries that a hello names are not all acknowledged: those that the term's leader does not have may still be lost.
        *known = match said.term > known.term {
            true => Remembered::new(&said, has_id),
            false => Remembered { boot: said.boot, has_id, ..*known },
        };
        (Finding::Accepted, None)
    }

    /// Whether a Raft message comes from the life of the log that was accepted under this id; then what it says is remembered.
    /// The second answer is whether anything new was learnt.
    pub(crate) fn note(&mut self, id: u64, said: &Standing) -> (bool, bool) {
        let Some(known) = self.peers.get_mut(&id) else { return (false, false) };
        if known.incarnation != said.incarnation || known.boot != said.boot || !known.has_id {
            return (false, false);
        }
        let rises = (said.term, said.index) > (known.term, known.index);
        if rises {
            (known.term, known.index) = (said.term, said.index);
        }
        (true, rises)
    }

    /// The incarnation that speaks under an id which it holds itself to own.
    pub(crate) fn speaker(&self, id: u64) -> Option<u64> {
        self.peers.get(&id).filter(|known| known.has_id).map(|known| known.incarnation)
    }

    /// Term and entry up to which an id has promised.
    #[cfg(test)]
    pub(crate) fn promised(&self, id: u64) -> Option<(u64, u64)> {
        self.peers.get(&id).map(Remembered::promised)
    }

    /// The start of the log that was accepted last under this id.
    pub(crate) fn boot(&self, id: u64) -> Option<u64> {
        self.peers.get(&id).map(|known| known.boot)
    }

    /// What is remembered of a log that says to have no id, and spoke under this one in another life: it is a copy from before it had it.
    pub(crate) fn spoke_before(&self, id: u64, said: &Standing) -> Option<Remembered> {
        let known = self.peers.get(&id).copied()?;
        (known.has_id && known.incarnation == said.incarnation && known.boot != said.boot).then_some(known)
    }

    /// Forgets all but these ids: the others will never speak again.
    pub(crate) fn retain(&mut self, ids: impl Fn(u64) -> bool) {
        self.peers.retain(|id, _| ids(*id));
    }
}

/// Draws the name of a life of the process: how often it was started with this log, and a part that no copy of the log has.
pub(crate) fn boot(starts: u64, random: u64) -> u64 {
    starts << u32::BITS | random & u64::from(u32::MAX)
}

fn starts(boot: u64) -> u64 {
    boot >> u32::BITS
}

impl Remembered {
    fn new(said: &Standing, has_id: bool) -> Self {
        Self { incarnation: said.incarnation, boot: said.boot, term: said.term, index: 0, has_id }
    }

    /// Term and index up to which it had promised.
    pub(crate) fn promised(&self) -> (u64, u64) {
        (self.term, self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(incarnation: u64, boot: u64, term: u64, index: u64) -> Standing {
        Standing { incarnation, boot: boot << 32, term, index, ..Standing::default() }
    }

    fn hello(id: u64, standing: Standing) -> Hello {
        Hello { standing: Some(standing), id }
    }

    #[test]
    fn a_log_that_was_created_anew_is_noticed() {
        let mut memory = Memory::default();
        assert_eq!(memory.hear(3, &hello(3, standing(7, 1, 0, 0))).0, Finding::Accepted);
        assert_eq!(memory.hear(3, &hello(3, standing(8, 2, 0, 0))).0, Finding::OtherIncarnation);
        assert_eq!(memory.hear(3, &hello(0, standing(8, 2, 0, 0))).0, Finding::OtherIncarnation);
    }

    #[test]
    fn a_log_that_was_set_back_is_noticed_whenever_it_is_heard() {
        let mut memory = Memory::default();
        memory.hear(3, &hello(3, standing(7, 1, 2, 10)));
        assert_eq!(memory.note(3, &standing(7, 1, 2, 25)), (true, true));
        assert_eq!(memory.hear(3, &hello(3, standing(7, 2, 2, 24))).0, Finding::Regressed);
        assert_eq!(memory.hear(3, &hello(3, standing(7, 2, 1, 99))).0, Finding::Regressed);
        assert_eq!(memory.note(3, &standing(7, 2, 9, 99)), (false, false), "what it says does not count");
        assert_eq!(memory.hear(3, &hello(3, standing(7, 2, 2, 25))).0, Finding::Accepted, "the same promise");
        assert_eq!(
            memory.hear(3, &hello(3, standing(7, 3, 3, 20))).0,
            Finding::Accepted,
            "cut off by a later term"
        );
    }

    #[test]
    fn a_copy_that_was_started_as_often_as_the_original_is_noticed() {
        let mut memory = Memory::default();
        memory.hear(3, &hello(3, Standing { boot: boot(4, 70), ..standing(7, 0, 2, 10) }));
        let copy = hello(3, Standing { boot: boot(4, 71), ..standing(7, 0, 2, 10) });
        assert_eq!(memory.hear(3, &copy).0, Finding::Regressed);
    }

    #[test]
    fn a_copy_from_before_it_had_its_id_is_noticed() {
        let mut memory = Memory::default();
        memory.hear(3, &hello(0, standing(7, 1, 0, 0)));
        assert_eq!(memory.spoke_before(3, &standing(7, 2, 0, 0)), None, "it never had one");
        memory.hear(3, &hello(3, standing(7, 2, 0, 0)));
        assert_eq!(memory.spoke_before(3, &standing(7, 2, 0, 0)), None, "a hello that was late");
        assert_eq!(memory.spoke_before(3, &standing(8, 3, 0, 0)), None, "another log");
        assert!(memory.spoke_before(3, &standing(7, 3, 0, 0)).is_some());
    }

    #[test]
    fn who_has_no_id_yet_sends_nothing_that_counts() {
        let mut memory = Memory::default();
        memory.hear(3, &hello(0, standing(7, 1, 0, 0)));
        assert_eq!(memory.note(3, &standing(7, 1, 1, 1)), (false, false));
        assert_eq!(memory.speaker(3), None);
        memory.hear(3, &hello(3, standing(7, 1, 0, 0)));
        assert_eq!(memory.note(3, &standing(7, 1, 1, 1)), (true, true));
        assert_eq!(memory.speaker(3), Some(7));
    }

    #[test]
    fn a_node_cannot_make_others_remember_without_end() {
        let mut memory = Memory::default();
        for id in 1..=REMEMBERED_MAX as u64 {
            memory.hear(id, &hello(id, standing(id, 1, 0, 0)));
        }
        assert_eq!(memory.hear(5000, &hello(5000, standing(1, 1, 0, 0))).0, Finding::Undecided);
    }
}
