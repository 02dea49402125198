//! Joining endorsements into one signature, where channel and endorsers can.

use consort_channel_config::ChannelBundle;
use consort_crypto::bls::{self, HashedMessage, PublicKey, Signature};
use consort_ledger::StateSnapshot;
use consort_protos::consort::endorsement::AggregateEndorsement;
use consort_protos::entry::EntryNumber;
use consort_protos::signers;

use super::collection::Endorsed;
use crate::identities::table::Table;

/// Endorsers from which on they are joined: one alone is checked faster by its ordinary signature.
const ENDORSERS_MIN: usize = 2;

/// An endorser's share, which may still be wrong.
struct Share {
    /// Its place among the collected endorsements.
    position: usize,
    entry: u64,
    key: PublicKey,
    signature: Signature,
}

/// Joins what can be joined, and leaves the endorsements that cannot. The sum is checked once; when it does not hold, each share
/// is, and whose share is wrong endorses alone, with its ordinary signature.
pub(super) fn join(
    bundle: &ChannelBundle,
    snapshot: &StateSnapshot,
    payload: &[u8],
    mut endorsed: Vec<Endorsed>,
) -> (Vec<Endorsed>, Option<AggregateEndorsement>) {
    let mut shares = shares(bundle, snapshot, &endorsed);
    if shares.len() < ENDORSERS_MIN {
        return (endorsed, None);
    }
    let message = HashedMessage::new(&bls::endorsement(bundle.channel().as_str(), payload));
    if !holds(&shares, &message) {
        shares.retain(|share| is_right(share, &message, &endorsed[share.position], bundle));
    }
    let Some(aggregate) = sum(&shares) else { return (endorsed, None) };
    let mut position = 0;
    endorsed.retain(|_| {
        position += 1;
        shares.iter().all(|share| share.position != position - 1)
    });
    (endorsed, Some(aggregate))
}

/// The shares of endorsers that offer one by an entry of their own organisation, each entry once.
fn shares(bundle: &ChannelBundle, snapshot: &StateSnapshot, endorsed: &[Endorsed]) -> Vec<Share> {
    let mut shares: Vec<Share> = Vec::new();
    if !bundle.application().capabilities.aggregated_endorsements() {
        return shares;
    }
    let table = Table::new(bundle, snapshot);
    for (position, one) in endorsed.iter().enumerate() {
        let Some(share) = share(bundle, &table, position, one) else { continue };
        if shares.iter().all(|other| other.entry != share.entry) {
            shares.push(share);
        }
    }
    shares
}

fn share(bundle: &ChannelBundle, table: &Table<'_>, position: usize, endorsed: &Endorsed) -> Option<Share> {
    let offered = endorsed.cosignature.as_ref()?;
    let signer = table.signer(EntryNumber::new(offered.entry)?)?;
    let identity = bundle.msps().deserialize(&signer.serialized).ok()?;
    // The entry may be of the endorser's former certificate, but it must count for the same organisation.
    if identity.msp_id() != endorsed.identity.msp_id() || bundle.msps().validate(&identity).is_err() {
        return None;
    }
    let key = PublicKey::remembered(&signer.bls_key?).ok()?;
    let signature = Signature::from_bytes(&offered.signature).ok()?;
    signers::encode([offered.entry])?;
    Some(Share { position, entry: offered.entry, key, signature })
}

fn holds(shares: &[Share], message: &HashedMessage) -> bool {
    let keys: Vec<&PublicKey> = shares.iter().map(|share| &share.key).collect();
    let sum = bls::aggregate(shares.iter().map(|share| &share.signature));
    sum.is_some_and(|sum| bls::verify_aggregate(&keys, message, &sum))
}

fn is_right(share: &Share, message: &HashedMessage, endorsed: &Endorsed, bundle: &ChannelBundle) -> bool {
    let right = bls::verify_aggregate(&[&share.key], message, &share.signature);
    if !right {
        tracing::warn!(
            channel = %bundle.channel(), entry = share.entry, endorser = %endorsed.identity,
            "an endorser's share in the aggregate is wrong: it endorses alone"
        );
    }
    right
}

fn sum(shares: &[Share]) -> Option<AggregateEndorsement> {
    if shares.len() < ENDORSERS_MIN {
        return None;
    }
    let signature = bls::aggregate(shares.iter().map(|share| &share.signature))?;
    let signers = signers::encode(shares.iter().map(|share| share.entry))?;
    Some(AggregateEndorsement { signers, signature: signature.to_bytes().to_vec().into() })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use consort_msp::SigningIdentity;
    use consort_protos::consort::endorsement::Cosignature;
    use consort_protos::fabric::protos::Endorsement;
    use consort_protos::fabric::protos::TxValidationCode::Valid;

    use super::*;
    use crate::committer::aggregate_tests::Story;
    use crate::testing::CHANNEL;

    const PAYLOAD: &[u8] = b"a payload";

    /// What an endorser answered: by an entry, with the key of a number, over a payload.
    fn endorsed(
        story: &Story,
        who: &Arc<SigningIdentity>,
        entry: u64,
        key: usize,
        payload: &[u8],
    ) -> Endorsed {
        let signature = story.keys[key].sign(&bls::endorsement(CHANNEL, payload));
        Endorsed {
            identity: who.identity(story.test.channel.bundle().msps()).unwrap(),
            endorsement: Endorsement { endorser: who.serialized().clone(), signature: Bytes::new() },
            cosignature: Some(Cosignature { entry, signature: signature.to_bytes().to_vec().into() }),
        }
    }

    fn joined(story: &Story, all: Vec<Endorsed>) -> (Vec<Bytes>, Option<Vec<u64>>) {
        let channel = &story.test.channel;
        let (alone, aggregate) = join(&channel.bundle(), &channel.ledger().snapshot(), PAYLOAD, all);
        let signers = aggregate.map(|aggregate| signers::decode(&aggregate.signers).unwrap());
        (alone.into_iter().map(|one| one.endorsement.endorser).collect(), signers)
    }

    #[tokio::test]
    async fn whoever_signs_wrongly_endorses_alone() {
        let mut story = Story::new().await;
        let third = story.test.network.org2.identity("peer");
        assert_eq!(story.commit(vec![story.register(1, &third, 2)]).await, [Valid]);
        let (first, second) = (story.peer(0), story.peer(1));
        let right = |story: &Story| {
            vec![endorsed(story, &first, 0, 0, PAYLOAD), endorsed(story, &third, 2, 2, PAYLOAD)]
        };
        let mut all = right(&story);
        all.push(endorsed(&story, &second, 1, 1, PAYLOAD));
        assert_eq!(joined(&story, all), (vec![], Some(vec![0, 1, 2])));
        let wrong = [
            endorsed(&story, &second, 1, 1, b"another payload"),
            endorsed(&story, &second, 1, 3, PAYLOAD),
            // Somebody else's entry, one that is not there, and one without a bit.
            endorsed(&story, &second, 0, 0, PAYLOAD),
            endorsed(&story, &second, 9, 1, PAYLOAD),
            endorsed(&story, &second, 1 << 40, 1, PAYLOAD),
        ];
        for wrong in wrong {
            let mut all = right(&story);
            all.insert(1, wrong);
            assert_eq!(joined(&story, all), (vec![second.serialized().clone()], Some(vec![0, 2])));
        }
    }

    #[tokio::test]
    async fn one_share_alone_is_not_joined() {
        let story = Story::new().await;
        let (first, second) = (story.peer(0), story.peer(1));
        let mut all = vec![endorsed(&story, &first, 0, 0, PAYLOAD), endorsed(&story, &second, 1, 1, PAYLOAD)];
        all[1].cosignature = None;
        let both = vec![first.serialized().clone(), second.serialized().clone()];
        assert_eq!(joined(&story, all), (both.clone(), None));
        let all = vec![endorsed(&story, &first, 0, 0, PAYLOAD), endorsed(&story, &second, 1, 0, PAYLOAD)];
        assert_eq!(joined(&story, all), (both, None));
    }
}
