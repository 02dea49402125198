//! From a delivered block to a committed one.
//!
//! ```text
//!  Intake     block::verify                                                     ahead of the signatures of the block before
//!  Committer  structure::open (rayon) ─► aggregate::settle                      ahead of the commit of the block before
//!             validator::validate (threads of its own) ─► Ledger::commit ─► ChannelHandle::publish
//! ```
//!
//! [`block`], [`structure`], [`governance`] and [`validator`] are pure. What may be done ahead is what depends on nothing
//! that the block before can change, except its configuration: after a configuration block, [`pipeline::Intake`] waits
//! for the commit; and except the table of identities: what named an entry that has changed is opened again. Everything that looks at the state (duplicate ids, definitions, policies of keys) is done after it.

mod aggregate;
pub mod block;
mod dependencies;
mod endorsement;
pub mod governance;
pub mod pipeline;
mod private;
pub mod structure;
pub mod validator;
#[cfg(test)]
pub(crate) use self::golden_tests::{feed, feed_until_it_stops, golden as golden_block};
#[cfg(test)]
pub(crate) mod aggregate_tests;
#[cfg(test)]
mod disk_tests;
#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod history_tests;
#[cfg(test)]
mod kill_tests;
#[cfg(test)]
mod mutation_tests;
#[cfg(test)]
mod reference_table_tests;
#[cfg(test)]
mod reference_tests;
#[cfg(test)]
mod serial_tests;
