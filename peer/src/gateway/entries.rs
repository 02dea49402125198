//! Signers by number: what the gateway does so that its clients need not know of the table of identities.

use bytes::Bytes;
use consort_protos::entry::EntryNumber;
use consort_protos::envelope::OpenEnvelope;
use consort_protos::fabric::common::Envelope;
use consort_protos::fabric::protos::Endorsement;

use super::collection::Endorsed;
use crate::channel::ChannelHandle;
use crate::identities::table::{entry_of, serialized};
use crate::identities::with_certificate;

/// Names every endorser by the number of its entry that has one, and by its certificate otherwise. The signatures stay as they
/// are: they cover the certificate, which validators take from the entry.
pub(super) fn by_number(channel: &ChannelHandle, endorsements: Vec<Endorsed>) -> Vec<Endorsement> {
    if !channel.bundle().application().capabilities.registered_identities() {
        return endorsements.into_iter().map(|endorsed| endorsed.endorsement).collect();
    }
    let snapshot = channel.ledger().snapshot();
    let shortened = |Endorsed { identity, endorsement, .. }: Endorsed| {
        let entry = entry_of(&snapshot, &identity).unwrap_or_else(|error| {
            tracing::error!(channel = %channel.id(), %error, "the table of identities cannot be read");
            None
        });
        // An endorser that writes its certificate in another form has signed other bytes than the entry gives.
        let entry = entry.filter(|entry| serialized(entry) == endorsement.endorser);
        match entry.and_then(|entry| EntryNumber::new(entry.number)) {
            Some(number) => Endorsement { endorser: number.serialize(), ..endorsement },
            None => endorsement,
        }
    };
    endorsements.into_iter().map(shortened).collect()
}

/// The organisation of a signer, if the channel knows it.
pub(super) fn organisation_of(channel: &ChannelHandle, signer: &Bytes) -> Option<String> {
    let identity = channel.bundle().msps().deserialize(signer).ok()?;
    Some(identity.msp_id().to_string())
}

/// A transaction on its way to the orderers, who keep no table: the certificate of a creator named by number goes beside it.
pub(super) fn for_orderers(channel: &ChannelHandle, envelope: Envelope) -> Envelope {
    if !channel.bundle().application().capabilities.registered_identities() {
        return Envelope { creator: Bytes::new(), ..envelope };
    }
    let Ok(open) = OpenEnvelope::from_message(envelope.clone()) else { return envelope };
    let creator = match EntryNumber::of_serialized(&open.creator) {
        Some(_) => with_certificate(channel, &open.creator),
        None => Bytes::new(),
    };
    Envelope { creator, ..envelope }
}
