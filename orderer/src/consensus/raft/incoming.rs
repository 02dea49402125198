//! Which messages of other consenters reach Raft: it relies on what they promise, and panics where a promise is broken.

use raft::{
    Raft, StateRole, Storage,
    eraftpb::{Message, MessageType, Snapshot},
};

use super::log::Position;

/// Checks a message before Raft takes it.
///
/// The commit of a heartbeat is cut to the end of the log. It lies beyond when this node has lost its log: the sender still counts on
/// entries that it acknowledged before, and sends them again.
///
/// # Errors
/// Why no consenter that keeps to Raft sends this message.
pub(crate) fn check<S: Storage>(raft: &Raft<S>, message: &mut Message) -> Result<(), &'static str> {
    if message.term == 0 {
        return Err("it has no term");
    }
    let last = raft.raft_log.last_index();
    match message.get_msg_type() {
        MessageType::MsgHeartbeat => {
            message.commit = message.commit.min(last);
            Ok(())
        }
        MessageType::MsgAppend => check_append(raft, message),
        MessageType::MsgSnapshot => check_snapshot(message.get_snapshot(), message.term),
        MessageType::MsgAppendResponse
            if raft.state == StateRole::Leader && message.term == raft.term && message.index > last =>
        {
            Err("it acknowledges entries that were never sent")
        }
        _ => Ok(()),
    }
}

/// The entries follow `index` without a gap; what comes before them is not older than what is agreed on.
fn check_append<S: Storage>(raft: &Raft<S>, message: &Message) -> Result<(), &'static str> {
    let mut before = (message.index, message.log_term);
    for entry in &message.entries {
        if before.0.checked_add(1) != Some(entry.index) {
            return Err("its entries are not contiguous");
        }
        if entry.term < before.1 || entry.term > message.term {
            return Err("the terms of its entries do not rise up to its own");
        }
        before = (entry.index, entry.term);
    }
    let committed = raft.raft_log.committed;
    let is_current = message.term >= raft.term && message.index >= committed;
    if is_current && raft.raft_log.term(committed).is_ok_and(|term| message.log_term < term) {
        return Err("its log contradicts what is agreed on");
    }
    Ok(())
}

/// A snapshot names its last block with the consenters there, and plain sets of voters and learners.
fn check_snapshot(snapshot: &Snapshot, message_term: u64) -> Result<(), &'static str> {
    let metadata = snapshot.get_metadata();
    if Position::of(snapshot).is_none_or(|position| position.roster.ids.is_empty()) {
        return Err("its snapshot names no block");
    }
    if metadata.index == 0 || metadata.index == u64::MAX || metadata.term == 0 || metadata.term > message_term
    {
        return Err("its snapshot has no place in the log");
    }
    let state = metadata.get_conf_state();
    let mut members: Vec<u64> = state.voters.iter().chain(&state.learners).copied().collect();
    members.sort_unstable();
    members.dedup();
    let is_plain = state.voters_outgoing.is_empty() && state.learners_next.is_empty() && !state.auto_leave;
    let is_set = members.len() == state.voters.len() + state.learners.len() && members.first() != Some(&0);
    if !is_plain || !is_set || state.voters.is_empty() {
        return Err("the voters of its snapshot are not a set of consenters");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use raft::{
        Config, RawNode,
        eraftpb::{Entry, HardState},
        storage::MemStorage,
    };

    use super::{super::roster::Roster, *};

    /// A follower in term 3 with the entries 1 to 3 of terms 1, 2 and 3, of which two are agreed on.
    fn follower() -> RawNode<MemStorage> {
        let storage = MemStorage::new_with_conf_state((vec![1, 2, 3], vec![]));
        storage.wl().append(&[entry(1, 1), entry(2, 2), entry(3, 3)]).unwrap();
        storage.wl().set_hardstate(HardState { term: 3, vote: 0, commit: 2 });
        RawNode::new(&Config::new(1), storage, &super::super::logger()).unwrap()
    }

    fn entry(index: u64, term: u64) -> Entry {
        Entry { index, term, ..Entry::default() }
    }

    fn message(kind: MessageType) -> Message {
        let mut message = Message { from: 2, to: 1, term: 3, ..Message::default() };
        message.set_msg_type(kind);
        message
    }

    fn append(index: u64, log_term: u64, entries: Vec<Entry>) -> Message {
        Message { index, log_term, entries, ..message(MessageType::MsgAppend) }
    }

    fn snapshot(data: Vec<u8>, voters: Vec<u64>) -> Message {
        let mut snapshot = Snapshot { data, ..Snapshot::default() };
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (9, 3);
        metadata.mut_conf_state().voters = voters;
        let mut message = message(MessageType::MsgSnapshot);
        message.set_snapshot(snapshot);
        message
    }

    /// Gives a message to a follower as the machine does; whether it was taken.
    fn takes(mut message: Message) -> bool {
        let mut node = follower();
        let taken = check(&node.raft, &mut message).is_ok();
        if taken {
            node.step(message).unwrap();
        }
        taken
    }

    #[test]
    fn the_commit_of_a_heartbeat_is_cut_to_the_end_of_the_log() {
        let mut node = follower();
        let mut heartbeat = Message { commit: 50, ..message(MessageType::MsgHeartbeat) };
        check(&node.raft, &mut heartbeat).unwrap();
        node.step(heartbeat).unwrap();
        assert_eq!(node.raft.raft_log.committed, 3);
    }

    #[test]
    fn appends_are_contiguous_and_do_not_contradict_what_is_agreed_on() {
        assert!(takes(append(3, 3, vec![entry(4, 3), entry(5, 3)])));
        assert!(
            takes(append(7, 3, vec![entry(8, 3)])),
            "it is rejected by Raft, which says where this log ends"
        );
        assert!(!takes(append(3, 3, vec![entry(5, 3)])));
        assert!(!takes(append(3, 3, vec![entry(4, 3), entry(4, 3)])));
        assert!(!takes(append(u64::MAX, 3, vec![entry(0, 3)])));
        assert!(!takes(append(3, 3, vec![entry(4, 2)])));
        assert!(!takes(append(3, 3, vec![entry(4, 9)])));
        assert!(!takes(append(7, 1, vec![])));
    }

    #[test]
    fn snapshots_name_a_block_and_a_set_of_voters() {
        let position = Position { block: 7, roster: Roster::genesis(3) }.encode_to_vec();
        assert!(takes(snapshot(position.clone(), vec![3, 1, 2])));
        assert!(!takes(snapshot(vec![255; 7], vec![1, 2, 3])));
        assert!(!takes(snapshot(vec![], vec![1, 2, 3])));
        assert!(!takes(snapshot(position.clone(), vec![1, 1, 2])));
        assert!(!takes(snapshot(position.clone(), vec![0, 1, 2])));
        assert!(!takes(snapshot(position, vec![])));
    }

    #[test]
    fn messages_without_a_term_are_the_nodes_own() {
        assert!(!takes(Message { term: 0, ..message(MessageType::MsgHeartbeat) }));
    }
}
