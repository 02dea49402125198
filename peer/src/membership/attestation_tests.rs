//! What peers sign together about their books, and what counts for nothing.

use consort_channel_config::ChannelBundle;
use consort_channel_config::attestation::{self, AttestationError, aggregate, share, verify, verify_share};
use consort_crypto::bls::{Owner, SecretKey};
use consort_msp::SigningIdentity;
use consort_node::Tasks;
use consort_protos::consort::attestations::{Attestation, Attester, Share, State};
use consort_protos::consort::identities::BlsKey;

use super::tests::{PATIENCE, commit_first, peer};
use crate::attested::Attested;
use crate::channel::ChannelHandle;
use crate::testing::{CHANNEL, JoinedPeer, Network};

fn network() -> Network {
    let mut network = Network::new(&[]);
    network.org1.peer = network.org1.attesting_peer();
    network.org2.peer = network.org2.attesting_peer();
    network
}

fn state() -> State {
    State {
        channel: CHANNEL.to_owned(),
        height: 7,
        header_hash: vec![1; 32].into(),
        commit_hash: vec![2; 32].into(),
    }
}

fn attester(signer: &SigningIdentity) -> Attester {
    Attester { identity: signer.serialized().clone(), bls: None }
}

fn share_of(signer: &SigningIdentity, state: State) -> Share {
    share(state, attester(signer), &signer.bls_keys()[0])
}

struct Case {
    network: Network,
    bundle: ChannelBundle,
    shares: [Share; 2],
}

fn case() -> Case {
    let network = network();
    let bundle = ChannelBundle::from_block(&network.genesis).expect("a configuration");
    let shares = [&network.org1.peer, &network.org2.peer].map(|signer| share_of(signer, state()));
    Case { network, bundle, shares }
}

#[test]
fn an_attestation_is_checked_with_nothing_but_the_configuration() {
    let Case { network, bundle, shares } = case();
    let attestation = aggregate(&shares).expect("a sum");
    let attesters = verify(&bundle, &attestation).expect("both organisations signed");
    let names: Vec<String> = attesters.iter().map(|attester| attester.identity.to_string()).collect();
    assert_eq!(names, ["peer.Org1MSP (Org1MSP)", "peer.Org2MSP (Org2MSP)"]);
    assert_eq!(attestation.signature.len(), 48);
    assert!(matches!(
        verify(&bundle, &aggregate(&shares[..1]).expect("a sum")),
        Err(AttestationError::TooFew(_))
    ));
    // A revoked certificate takes its key along.
    let list = network.org1.revocation(&network.org1.peer);
    let next =
        network.configuration(&bundle, |root| crate::testing::configuration::revoke(root, "Org1MSP", &list));
    let next = consort_protos::transaction::Transaction::open(next).expect("a transaction");
    let next = bundle.apply(&next.config().expect("a configuration").envelope).expect("applied");
    assert!(matches!(verify(&next, &attestation), Err(AttestationError::Attester { .. })));
}

#[test]
fn a_registered_key_counts_by_its_proof_for_this_channel_and_certificate() {
    let Case { network, bundle, shares } = case();
    let (signer, secret) = (network.org1.identity("peer"), SecretKey::generate().expect("a key"));
    let registered = |msp_id: &str, holder: &SigningIdentity, channel: &str| {
        let proof = secret.prove(&Owner::new(msp_id, holder.certificate().public_key(), channel));
        let bls = BlsKey {
            public_key: secret.public_key().as_bytes().to_vec().into(),
            proof: proof.to_bytes().to_vec().into(),
        };
        share(state(), Attester { identity: signer.serialized().clone(), bls: Some(bls) }, &secret)
    };
    let good = registered("Org1MSP", &signer, CHANNEL);
    verify(&bundle, &aggregate(&[good.clone(), shares[1].clone()]).expect("a sum")).expect("it counts");
    for wrong in [
        registered("Org2MSP", &signer, CHANNEL),
        registered("Org1MSP", &network.org1.peer, CHANNEL),
        registered("Org1MSP", &signer, "other"),
        registered("Org1MSP", &signer, ""),
    ] {
        assert!(matches!(verify_share(&bundle, &wrong), Err(AttestationError::Attester { .. })));
    }
    // Without a key of its own it is nobody.
    let mut bare = good;
    bare.attester.as_mut().expect("an attester").bls = None;
    assert!(matches!(verify_share(&bundle, &bare), Err(AttestationError::Attester { .. })));
}

#[test]
fn what_is_changed_or_claimed_does_not_hold() {
    let Case { network, bundle, shares } = case();
    let good = aggregate(&shares).expect("a sum");
    let refused = |change: &dyn Fn(&mut Attestation)| {
        let mut changed = good.clone();
        change(&mut changed);
        verify(&bundle, &changed).expect_err("it does not hold")
    };
    let of_state = |change: fn(&mut State)| refused(&|all| change(all.state.as_mut().expect("a state")));
    assert_eq!(of_state(|state| state.height = 8), AttestationError::Signature);
    assert_eq!(of_state(|state| state.commit_hash = vec![3; 32].into()), AttestationError::Signature);
    assert_eq!(of_state(|state| state.header_hash = vec![3; 32].into()), AttestationError::Signature);
    assert!(matches!(
        of_state(|state| state.channel = "other".to_owned()),
        AttestationError::OtherChannel { .. }
    ));
    assert!(matches!(
        of_state(|state| state.commit_hash = vec![3; 31].into()),
        AttestationError::Malformed(_)
    ));
    // One who did not sign, one who stands there twice, one who is no peer, nobody.
    let absent = network.org1.attesting_peer();
    assert_eq!(refused(&|all| all.attesters.push(attester(&absent))), AttestationError::Signature);
    assert_eq!(refused(&|all| drop(all.attesters.pop())), AttestationError::Signature);
    let twice = refused(&|all| all.attesters.push(all.attesters[0].clone()));
    assert!(matches!(twice, AttestationError::Malformed(_)), "{twice}");
    let client = refused(&|all| all.attesters[0] = attester(&network.org1.client));
    assert!(matches!(client, AttestationError::Attester { .. }), "{client}");
    let stranger = crate::testing::Organisation::new("Org1MSP").attesting_peer();
    let stranger = refused(&|all| all.attesters[0] = attester(&stranger));
    assert!(matches!(stranger, AttestationError::Attester { .. }), "{stranger}");
    assert_eq!(refused(&|all| all.attesters.clear()), AttestationError::Signature);
    // The point at infinity, garbage, nothing.
    let mut infinity = vec![0; 48];
    infinity[0] = 0xc0;
    for signature in [infinity, vec![0xff; 48], Vec::new()] {
        let error = refused(&|all| all.signature = signature.clone().into());
        assert!(matches!(error, AttestationError::Malformed(_) | AttestationError::Signature), "{error}");
    }
    assert!(attestation::decode(&[0xff]).is_err());
    assert!(verify(&bundle, &Attestation::default()).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_put_together_what_they_agree_on() {
    let tasks = Tasks::new();
    let network = network();
    let first = peer(&network, &network.org1, Vec::new(), &tasks).await;
    let second = peer(&network, &network.org2, vec![first.endpoint.clone()], &tasks).await;
    let block = network.block_after(&network.genesis, vec![definition(&network, "one")]);
    for joined in [&first.joined, &second.joined] {
        crate::committer::feed(&joined.channel, [block.clone()]).await;
    }
    second.wait(|others| others.iter().any(|other| other.height == 2)).await;
    for peer in [&first, &second] {
        peer.membership.attest(&peer.joined.channel);
        let attestation = peer.joined.channel.attestation().expect("both have signed");
        let state = attestation.state.clone().expect("a state");
        assert_eq!((state.height, state.channel.as_str()), (2, CHANNEL));
        assert_eq!(verify(&peer.joined.channel.bundle(), &attestation).expect("it holds").len(), 2);
        assert!(peer.joined.channel.diverging().is_empty());
    }
    tasks.shutdown(PATIENCE).await.expect("everything ends");
}

fn definition(network: &Network, chaincode: &str) -> bytes::Bytes {
    let policy = crate::testing::spelled_policy("OR('Org1MSP.peer')");
    network.definition(chaincode, &policy, &crate::testing::collections()).build()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_attests_other_books_is_named() {
    let tasks = Tasks::new();
    let network = network();
    let first = peer(&network, &network.org1, Vec::new(), &tasks).await;
    let second = peer(&network, &network.org2, vec![first.endpoint.clone()], &tasks).await;
    commit_first(&network, &first.joined, "one").await;
    commit_first(&network, &second.joined, "another").await;
    second.wait(|others| others.iter().any(|other| other.height == 2)).await;
    first.membership.attest(&first.joined.channel);
    assert!(first.joined.channel.attestation().is_none());
    let named: Vec<String> = first.joined.channel.diverging().into_iter().map(|peer| peer.endpoint).collect();
    assert_eq!(named, std::slice::from_ref(&second.endpoint));
    tasks.shutdown(PATIENCE).await.expect("everything ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attestation_is_found_again_at_the_next_start_if_it_is_about_these_books() {
    let tasks = Tasks::new();
    let network = network();
    let first = peer(&network, &network.org1, Vec::new(), &tasks).await;
    let second = peer(&network, &network.org2, vec![first.endpoint.clone()], &tasks).await;
    let block = network.block_after(&network.genesis, vec![definition(&network, "one")]);
    for joined in [&first.joined, &second.joined] {
        crate::committer::feed(&joined.channel, [block.clone()]).await;
    }
    second.wait(|others| others.iter().any(|other| other.height == 2)).await;
    let channel = &first.joined.channel;
    first.membership.attest(channel);
    let made = channel.attestation().expect("both have signed");
    let folder = first.joined.folder().join("channels").join(CHANNEL);
    let again =
        |channel: &ChannelHandle| Attested::load(&folder, channel.ledger(), &channel.bundle()).newest();
    assert_eq!(again(channel), Some(made));
    // A backup from before the attested height, and other books.
    let other = JoinedPeer::new(&network.genesis);
    assert_eq!(again(&other.channel), None);
    commit_first(&network, &other, "another").await;
    assert_eq!(again(&other.channel), None);
    // Half a file, one changed byte, nothing.
    let file = folder.join("attestation");
    let whole = std::fs::read(&file).expect("the file");
    let mut changed = whole.clone();
    *changed.last_mut().expect("bytes") ^= 1;
    for bytes in [&whole[..whole.len() / 2], &changed, &[]] {
        std::fs::write(&file, bytes).expect("written");
        assert_eq!(again(channel), None);
    }
    tasks.shutdown(PATIENCE).await.expect("everything ends");
}
