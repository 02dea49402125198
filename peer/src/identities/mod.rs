//! The channel's own table of identities: members register a certificate once, and transactions then name their signers by
//! the number of its entry instead of carrying the certificate (capability `CONSORT_REGISTERED_IDENTITIES`).
//!
//! Entries lie in the namespace `_identities` ([`state`]) and are changed by the functions of the system chaincode of the same name
//! ([`functions`]). [`table`] says who stands behind a number; [`rules`] says when a change of the table is valid.
//!
//! What an entry is and is not:
//!
//! - A number names one certificate for ever. A renewal is a new entry; both count until the old one is retired.
//! - An entry decides nothing by itself. Chain, revocation, expiry and roles of its certificate are the MSP's, under the
//!   configuration that the block is judged by. So a revocation counts from the configuration that carries it, as for every
//!   other identity.
//! - A transaction is judged by the table as the block before its own left it: an entry counts from the block after the one
//!   that registers it. Retiring counts at once, also for transactions of the same block that come after it.
//! - Who names an unknown or retired entry is nobody: a creator gives `BAD_CREATOR_SIGNATURE`, an endorser does not count.
//!
//! Who may change what: the entries of an organisation are changed by transactions that one of its administrators signed
//! (the organisation's `Admins` policy) and that satisfy the organisation's own `Endorsement` policy. No endorsement can stand
//! in for either, and none can write anything but what the function called would write: every validator runs the function
//! again over the same state and compares.

pub mod functions;
pub(crate) mod rules;
pub mod state;
pub(crate) mod table;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use consort_protos::entry::EntryNumber;

use crate::channel::ChannelHandle;
use table::Table;

/// Namespace of the entries, and the name of the system chaincode.
pub const IDENTITIES: &str = "_identities";

/// A signer of the channel with its certificate: as it is when it carries one, and the table's when it is named by number.
/// What the table does not have stays as it is, and is refused wherever a certificate is needed.
#[must_use]
pub fn with_certificate(channel: &ChannelHandle, signer: &Bytes) -> Bytes {
    if EntryNumber::of_serialized(signer).is_none() {
        return signer.clone();
    }
    let (bundle, snapshot) = (channel.bundle(), channel.ledger().snapshot());
    let table = Table::new(&bundle, &snapshot);
    let found = table.certificate_of(signer);
    if let Some(error) = table.failure() {
        tracing::error!(channel = %channel.id(), %error, "the table of identities cannot be read");
    }
    found.unwrap_or_else(|| signer.clone())
}

/// The same; an entry that is not here yet is waited for: a client knows its entry from the first peer that has the block.
pub(crate) async fn with_certificate_within(
    channel: &ChannelHandle,
    signer: &Bytes,
    limit: Duration,
) -> Bytes {
    let mut heights = channel.watch_height();
    let named = async {
        loop {
            let found = with_certificate(channel, signer);
            if EntryNumber::of_serialized(&found).is_none() || heights.changed().await.is_err() {
                return found;
            }
        }
    };
    tokio::time::timeout(limit, named).await.unwrap_or_else(|_| signer.clone())
}
