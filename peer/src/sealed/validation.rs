//! The rules once more, when a block is judged: no endorser is believed.
//!
//! The call that the creator signed is executed over the books as they are before the block. What the transaction reads,
//! writes, tells and answers must be what comes out. Endorsements that say otherwise make it invalid, even if every organisation
//! gave one.
//!
//! A transaction whose reads are older than the books is left to the version check, which refuses it: what it should have written
//! cannot be told from the present books.

use consort_channel_config::ChannelBundle;
use consort_ledger::{StateSnapshot, TxSimulator};
use consort_msp::Identity;
use consort_protos::fabric::protos::TxValidationCode;
use consort_protos::rwset::TxReadWriteSet;
use consort_protos::transaction::{Invocation, Rejection, Transaction};

use super::SEALED;
use super::audit::ASKING_FUNCTIONS;
use super::chaincode::{self, Answer, Call};

/// Status of an answer that can be endorsed.
const STATUS_DONE: i32 = 200;

/// Why a transaction is not valid, or cannot be judged.
#[derive(Debug)]
pub enum Fault {
    /// It is invalid.
    Invalid(Rejection),
    /// The ledger could not be read.
    Unreadable(consort_ledger::Error),
}

fn invalid(reason: impl Into<String>) -> Fault {
    Fault::Invalid(Rejection::new(TxValidationCode::InvalidWriteset, reason))
}

/// Judges a transaction that calls `_sealed` or writes to its namespace; its creator's signature holds, and its endorsements satisfy
/// the policy. `state` is that before the block.
///
/// # Errors
/// [`Fault`].
pub fn judge(
    bundle: &ChannelBundle,
    state: &StateSnapshot,
    transaction: &Transaction,
    creator: &Identity,
) -> Result<(), Fault> {
    let (Some(endorser), Some(invocation)) = (transaction.endorser(), transaction.invocation()) else {
        return Err(invalid("the transaction is no invocation"));
    };
    if invocation.chaincode_id.name != SEALED {
        return Err(invalid(format!("only {SEALED} itself writes to its namespace")));
    }
    let arguments =
        endorser.arguments().map_err(|reason| invalid(format!("the call cannot be read: {reason}")))?;
    let (function, _) = chaincode::function(&arguments).map_err(|refusal| invalid(refusal.text))?;
    if ASKING_FUNCTIONS.contains(&function) {
        let silent =
            invocation.event.is_none() && invocation.rwset.namespaces.iter().all(|set| !set.is_written());
        return if silent { Ok(()) } else { Err(invalid("a question writes nothing and tells nothing")) };
    }
    if is_stale(&invocation.rwset, state)? {
        return Ok(());
    }
    let call = Call {
        bundle,
        creator,
        arguments: &arguments,
        tx_id: &transaction.tx_id,
        timestamp: transaction.channel_header.timestamp.unwrap_or_default(),
        block: state.height().get(),
    };
    let mut simulator = TxSimulator::new(state.clone(), transaction.tx_id.clone());
    let answer = chaincode::invoke(&call, &mut simulator)
        .map_err(|refusal| invalid(format!("{SEALED} refuses the call: {}", refusal.text)))?;
    if simulator.finish().rwset != invocation.rwset {
        return Err(invalid(format!("the endorsers wrote something else than {SEALED} does")));
    }
    if !tells(invocation, &transaction.tx_id, &answer) {
        return Err(invalid(format!("the endorsers told something else than {SEALED} does")));
    }
    Ok(())
}

/// Whether the transaction read something of the namespace that is not as it was. The version check makes it invalid then: a
/// version that is not that of the state before the block is never accepted.
fn is_stale(set: &TxReadWriteSet, state: &StateSnapshot) -> Result<bool, Fault> {
    for read in set.namespace(SEALED).map(|set| &set.reads[..]).unwrap_or_default() {
        let version = state.get(SEALED, &read.key).map_err(Fault::Unreadable)?.map(|value| value.version);
        if version != read.version {
            return Ok(true);
        }
    }
    Ok(false)
}

fn tells(invocation: &Invocation, tx_id: &str, answer: &Answer) -> bool {
    let event = match (&invocation.event, &answer.event) {
        (None, None) => true,
        (Some(told), Some((name, payload))) => {
            told.event_name == *name
                && told.payload == *payload
                && told.chaincode_id == SEALED
                && told.tx_id == tx_id
        }
        _ => false,
    };
    let response = invocation.action.response.as_ref();
    event
        && response
            .is_some_and(|response| response.status == STATUS_DONE && response.payload == answer.payload)
}
