//! Who may speak under which Raft id: agreed on in the log itself, so that every node which has the log knows it.
//!
//! A consenter of the configuration has one Raft id at a time, and an id belongs to one incarnation of a node's log for ever. A node
//! that lost its log therefore never speaks under the id that made promises for the lost one: it is given a fresh id.

use std::collections::BTreeMap;

use prost::Message;

/// The Raft ids of the consenters with the incarnations that own them.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Roster {
    /// Ids in the order of the configured list.
    #[prost(uint64, repeated, tag = "1")]
    pub(crate) ids: Vec<u64>,
    /// The next id that is given away.
    #[prost(uint64, tag = "2")]
    pub(crate) next_id: u64,
    /// The incarnation that owns an id.
    #[prost(btree_map = "uint64, fixed64", tag = "3")]
    pub(crate) owners: BTreeMap<u64, u64>,
}

/// An entry of the log that changes the roster. It stands in the entry's context; such an entry has no block.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RosterChange {
    #[prost(enumeration = "RosterChangeKind", tag = "1")]
    pub(crate) kind: i32,
    /// The id of the consenter before the change.
    #[prost(uint64, tag = "2")]
    pub(crate) id: u64,
    #[prost(fixed64, tag = "3")]
    pub(crate) incarnation: u64,
}

/// What changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum RosterChangeKind {
    /// Nothing.
    None = 0,
    /// The incarnation owns the id from now on.
    Own = 1,
    /// The consenter leaves its id and gets a fresh one, which this incarnation owns.
    Readmit = 2,
}

impl RosterChange {
    pub(crate) fn own(id: u64, incarnation: u64) -> Self {
        Self { kind: RosterChangeKind::Own as i32, id, incarnation }
    }

    pub(crate) fn readmit(id: u64, incarnation: u64) -> Self {
        Self { kind: RosterChangeKind::Readmit as i32, id, incarnation }
    }
}

impl Roster {
    /// The roster of a channel that has only its genesis block: ids in the order of the list, owned by nobody yet.
    pub(crate) fn genesis(consenters: u64) -> Self {
        Self { ids: (1..=consenters).collect(), next_id: consenters + 1, owners: BTreeMap::new() }
    }

    /// Whether an incarnation owns an id.
    pub(crate) fn is_owned_by(&self, id: u64, incarnation: u64) -> bool {
        self.owners.get(&id) == Some(&incarnation)
    }

    /// Applies an entry; whether anything changed. What does not fit, as another entry came first, changes nothing.
    pub(crate) fn apply(&mut self, change: &RosterChange) -> bool {
        let Some(position) = self.ids.iter().position(|id| *id == change.id) else { return false };
        if self.owners.values().any(|owner| *owner == change.incarnation) {
            return false;
        }
        match change.kind() {
            RosterChangeKind::None => false,
            RosterChangeKind::Own => {
                if self.owners.contains_key(&change.id) {
                    return false;
                }
                self.owners.insert(change.id, change.incarnation);
                true
            }
            RosterChangeKind::Readmit => {
                self.owners.remove(&change.id);
                self.owners.insert(self.next_id, change.incarnation);
                self.ids[position] = self.next_id;
                self.next_id += 1;
                true
            }
        }
    }

    /// Follows a configuration block, which names the ids in its metadata; whether anything changed.
    pub(crate) fn follow(&mut self, ids: &[u64], next_id: u64) -> bool {
        if self.ids == ids && self.next_id == next_id {
            return false;
        }
        self.ids = ids.to_vec();
        self.next_id = next_id;
        self.owners.retain(|id, _| ids.contains(id));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_belongs_to_one_incarnation_for_ever() {
        let mut roster = Roster::genesis(3);
        assert!(roster.apply(&RosterChange::own(2, 70)));
        assert!(!roster.apply(&RosterChange::own(2, 71)));
        assert!(roster.is_owned_by(2, 70));
    }

    #[test]
    fn a_readmitted_consenter_keeps_its_place_and_gets_an_id_that_nobody_had() {
        let mut roster = Roster::genesis(3);
        roster.apply(&RosterChange::own(2, 70));
        assert!(roster.apply(&RosterChange::readmit(2, 71)));
        assert_eq!((roster.ids.as_slice(), roster.next_id), ([1, 4, 3].as_slice(), 5));
        assert!(roster.is_owned_by(4, 71) && !roster.owners.contains_key(&2));
        assert!(!roster.apply(&RosterChange::readmit(2, 72)), "the id has gone");
        assert!(!roster.apply(&RosterChange::readmit(4, 71)), "it is asked for twice");
    }

    #[test]
    fn who_leaves_the_configuration_owns_nothing_any_more() {
        let mut roster = Roster::genesis(3);
        roster.apply(&RosterChange::own(3, 70));
        assert!(roster.follow(&[1, 2], 4));
        assert!(roster.owners.is_empty());
        assert!(!roster.follow(&[1, 2], 4));
    }
}
