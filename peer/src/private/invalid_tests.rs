//! Private data of transactions that turned out invalid: kept and handed on, never readable.

use consort_ledger::Simulation;
use consort_protos::consort::privatedata::LackingCollection;
use consort_protos::fabric::protos::TxValidationCode;
use consort_protos::ids::Height;

use super::fetch::WANTED_MAX;
use super::status;
use super::tests::{BOTH, Consortium, ORG1, Peer, changed, collection, keep};

/// A write of a value that depends on the value before.
fn rival(consortium: &Consortium, value: &'static str) -> Simulation {
    consortium.simulate(|simulator| {
        simulator.private("basic", "both", "key").expect("may read");
        simulator.put_private("basic", "both", "key", value.into()).expect("may write");
    })
}

fn lacking(peer: &Peer) -> Vec<LackingCollection> {
    status(peer.channel()).expect("readable").lacking
}

fn code_of(peer: &Peer, tx_id: &str) -> TxValidationCode {
    peer.channel().ledger().transaction(tx_id).expect("readable").expect("there").1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_late_rival_wrote_is_searched_for_and_handed_on_and_never_read() {
    let mut consortium = Consortium::new(vec![collection("both", BOTH, 0, 0)]).await;
    let (first, late) = (rival(&consortium, "first"), rival(&consortium, "late"));
    let (first_id, first_envelope) = consortium.transaction(&first);
    let (late_id, late_envelope) = consortium.transaction(&late);
    keep(&consortium.one, &first_id, &first);
    keep(&consortium.one, &late_id, &late);
    let block = consortium.next(vec![first_envelope, late_envelope]);
    consortium.book.remove(&consortium.one);
    for peer in [&consortium.another, &consortium.two, &consortium.one] {
        peer.commit(block.clone(), true).await;
    }
    assert_eq!(code_of(&consortium.one, &late_id), TxValidationCode::MvccReadConflict);
    let late = late.private.collection("basic", "both").cloned();
    let held = |peer: &Peer| peer.channel().ledger().private_set(Height::new(2, 1), "basic", "both");
    assert_eq!(held(&consortium.one).expect("readable"), late);
    let found = &lacking(&consortium.another)[0];
    assert_eq!((found.sets, found.invalid, found.first_block), (2, 1, 2));

    consortium.book.add(&consortium.one);
    let another = &consortium.another;
    assert_eq!(another.private.search(another.channel(), true).await, 2);
    assert_eq!(lacking(another), []);
    assert_eq!(held(another).expect("readable"), late);
    assert_eq!(another.value("both", "key"), Some("first".into()));
    // Whoever got it late has it for others.
    consortium.book.remove(&consortium.one);
    let two = &consortium.two;
    assert_eq!(two.private.search(two.channel(), true).await, 2);
    assert_eq!(held(two).expect("readable"), late);
    assert_eq!(two.value("both", "key"), Some("first".into()));
    consortium.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_endorsed_is_asked_for_at_commit_unless_that_is_switched_off() {
    let mut consortium = Consortium::new(vec![collection("both", BOTH, 0, 0)]).await;
    for (peer, limit_ms) in [(&mut consortium.another, 20_000), (&mut consortium.two, 0)] {
        peer.private = changed(peer, |setup| setup.config.fetch_invalid_at_commit_ms = limit_ms);
    }
    let written = rival(&consortium, "written");
    let transaction = consortium.network.transaction("basic").set(written.rwset.clone());
    let transaction = transaction.endorsed_by(&[&consortium.network.org1.client]);
    let tx_id = transaction.tx_id();
    keep(&consortium.one, &tx_id, &written);
    let block = consortium.next(vec![transaction.build()]);
    for peer in [&consortium.another, &consortium.two, &consortium.one] {
        peer.commit(block.clone(), true).await;
        assert_eq!(code_of(peer, &tx_id), TxValidationCode::EndorsementPolicyFailure);
        assert_eq!(peer.value("both", "key"), None);
    }
    let set = written.private.collection("basic", "both").cloned();
    let held = |peer: &Peer| peer.channel().ledger().private_set(Height::new(2, 0), "basic", "both");
    assert_eq!(held(&consortium.another).expect("readable"), set);
    assert_eq!(lacking(&consortium.another), []);
    let two = &consortium.two;
    assert_eq!(held(two).expect("readable"), None, "it did not ask");
    assert_eq!((lacking(two)[0].sets, lacking(two)[0].invalid), (1, 1));
    assert_eq!(
        two.private.search(two.channel(), false).await,
        1,
        "what is newly missing is searched for at once"
    );
    assert_eq!(held(two).expect("readable"), set);
    consortium.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promises_that_nobody_can_keep_are_gone_through_in_parts() {
    let names: Vec<String> = (0..64).map(|number| format!("own{number}")).collect();
    let mut consortium =
        Consortium::new(names.iter().map(|name| collection(name, ORG1, 0, 0)).collect()).await;
    let written = consortium.simulate(|simulator| {
        for name in &names {
            simulator.put_private("basic", name, "key", "value".into()).expect("may write");
        }
    });
    let transactions = 8 * WANTED_MAX / names.len() + 1;
    let unendorsed = (0..transactions).map(|_| {
        let transaction = consortium.network.transaction("basic").set(written.rwset.clone());
        transaction.endorsed_by(&[&consortium.network.org1.client]).build()
    });
    let unendorsed = unendorsed.collect();
    let block = consortium.next(unendorsed);
    for peer in [&consortium.one, &consortium.two] {
        consortium.book.remove(peer);
    }
    let another = &consortium.another;
    another.commit(block, false).await;
    for asked in [8 * WANTED_MAX, names.len(), 8 * WANTED_MAX] {
        assert_eq!(another.private.search(another.channel(), true).await, 0);
        let progress = another.channel().search_progress();
        assert_eq!(progress.last_wanted, asked as u64);
        assert_eq!(progress.last_reason, "no other peer of the channel is known");
    }
    consortium.end().await;
}
