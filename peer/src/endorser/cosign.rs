//! The endorser's share in an aggregate, beside its ordinary endorsement: a client of Fabric passes it over.

use consort_crypto::bls;
use consort_msp::SigningIdentity;
use consort_protos::consort::endorsement::Cosignature;

use crate::channel::ChannelHandle;
use crate::identities::table::entry_with_key;

/// Signs the payload with the BLS key of the newest entry whose key this peer holds. `None` where the channel knows no
/// aggregates, or no key of this peer is registered: then the peer endorses alone.
pub(super) fn cosign(
    channel: &ChannelHandle,
    signer: &SigningIdentity,
    payload: &[u8],
) -> Option<Cosignature> {
    let bundle = channel.bundle();
    if signer.bls_keys().is_empty() || !bundle.application().capabilities.aggregated_endorsements() {
        return None;
    }
    let snapshot = channel.ledger().snapshot();
    let registered = |key: &bls::SecretKey| {
        let entry = entry_with_key(&snapshot, key.public_key().as_bytes());
        let entry = entry.unwrap_or_else(|error| {
            tracing::error!(channel = %channel.id(), %error, "the table of identities cannot be read");
            None
        });
        entry.filter(|entry| entry.msp_id == signer.msp_id().as_str()).map(|entry| entry.number)
    };
    let keys = signer.bls_keys().iter();
    let (entry, key) =
        keys.filter_map(|key| Some((registered(key)?, key))).max_by_key(|(number, _)| *number)?;
    let signature = key.sign(&bls::endorsement(bundle.channel().as_str(), payload));
    Some(Cosignature { entry, signature: signature.to_bytes().to_vec().into() })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use consort_crypto::bls::{HashedMessage, SecretKey, Signature, verify_aggregate};
    use consort_protos::consort::identities::RetireArgs;
    use consort_protos::fabric::protos::TxValidationCode::Valid;

    use super::*;
    use crate::committer::aggregate_tests::Story;
    use crate::testing::CHANNEL;

    #[tokio::test]
    async fn a_peer_signs_with_the_newest_of_its_keys_that_counts() {
        let mut story = Story::new().await;
        let copies: Vec<SecretKey> =
            [1, 2, 3].map(|key: usize| SecretKey::from_pem(&story.keys[key].to_pem()).unwrap()).into();
        let newcomer = Arc::into_inner(story.test.network.org2.identity("peer")).unwrap();
        assert!(cosign(&story.test.channel, &newcomer, b"payload").is_none(), "it has no key");
        let newcomer = newcomer.with_bls_keys(copies);
        let signed = |story: &Story| {
            let share = cosign(&story.test.channel, &newcomer, b"payload").unwrap();
            (share.entry, Signature::from_bytes(&share.signature).unwrap())
        };
        let message = HashedMessage::new(&bls::endorsement(CHANNEL, b"payload"));
        let (entry, signature) = signed(&story);
        assert_eq!(entry, 1);
        assert!(verify_aggregate(&[story.keys[1].public_key()], &message, &signature));
        assert_eq!(story.commit(vec![story.register(1, &newcomer, 2)]).await, [Valid]);
        let (entry, signature) = signed(&story);
        assert_eq!(entry, 2);
        assert!(verify_aggregate(&[story.keys[2].public_key()], &message, &signature));
        let retire = story.call(1, "Retire", &RetireArgs { number: 2 }).unwrap();
        assert_eq!(story.commit(vec![retire]).await, [Valid]);
        assert_eq!(signed(&story).0, 1);
    }
}
