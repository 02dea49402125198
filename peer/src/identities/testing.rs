//! Changes of the table of identities, for tests.

use std::sync::Arc;

use bytes::Bytes;
use consort_ledger::{StateSnapshot, TxSimulator};
use consort_msp::SigningIdentity;

use super::functions::{Call, perform};
use super::{IDENTITIES, table};
use crate::channel::ChannelHandle;
use crate::testing::TransactionBuilder;

/// The transaction that a call becomes over a state, not endorsed yet; none when the function refuses.
pub(crate) fn change(
    channel: &ChannelHandle,
    snapshot: StateSnapshot,
    creator: &Arc<SigningIdentity>,
    arguments: &[Bytes],
) -> Option<TransactionBuilder> {
    let bundle = channel.bundle();
    let identity = creator.identity(bundle.msps()).expect("an identity of the channel");
    let mut simulator = TxSimulator::new(snapshot, String::new());
    perform(&Call { creator: &identity, arguments, bundle: &bundle }, &mut simulator).ok()?;
    let mut builder = TransactionBuilder::new(Arc::clone(creator), IDENTITIES);
    builder.version = "syscc".to_owned();
    builder.arguments = arguments.to_vec();
    Some(builder.set(simulator.finish().rwset))
}

/// The number of the entry that an identity has now, if it counts.
pub(crate) fn number_of(channel: &ChannelHandle, signer: &SigningIdentity) -> Option<u64> {
    let identity = signer.identity(channel.bundle().msps()).ok()?;
    let entry = table::entry_of(&channel.ledger().snapshot(), &identity).expect("readable");
    entry.map(|entry| entry.number)
}
