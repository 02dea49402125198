//! The whole way of a record: sealed, granted, requested, opened, revoked, audited.

use std::sync::Arc;

use consort_crypto::pre;
use consort_protos::consort::sealed::{
    AnsweredFragment, Audit, AuditPage, Event, GrantAnswer, GrantName, ListRecords, RecordPage,
    RequestAnswer, RequestName, Respond, SignedFragment, Validity, audit, response,
};
use consort_protos::sealed::{FRAGMENT_TAG, signed_message};
use consort_protos::transaction::Transaction;
use prost::Message;

use super::story::Story;
use super::*;

/// A right answer of a proxy, signed as the service signs it.
pub(super) fn signed_answer(peer: &SigningIdentity, answer: &AnsweredFragment) -> SignedFragment {
    let answer = Bytes::from(answer.encode_to_vec());
    let signature = peer.sign(&signed_message(FRAGMENT_TAG, &answer)).unwrap().into();
    SignedFragment { answer, identity: peer.serialized().clone(), signature }
}

async fn a_record_is_opened_by_its_reader_with_any_two_of_three(suite: pre::Suite) {
    let mut story = Story::without_shares(suite, |_, _| ()).await;
    for (proxy, deposit) in story.proxies.iter().zip(&story.granted.deposits) {
        let receipt = proxy.proxy.deposit(deposit).unwrap();
        assert_eq!((receipt.grant.as_str(), receipt.index), ("g1", deposit.index));
    }
    let tx_id = story.bench.request("g1", &story.record).await;
    story.proxies.iter().for_each(TestProxy::catch_up);
    let fragments: Vec<pre::Fragment> =
        story.proxies.iter().map(|proxy| proxy.fragment(suite, &tx_id, &story.bench.reader)).collect();
    let open = |fragments: &[pre::Fragment]| {
        story.offer.open(&story.granted, (&tx_id, &story.record), &story.sealed, fragments)
    };
    for pair in [[0, 1], [0, 2], [1, 2]] {
        assert_eq!(open(&pair.map(|index: usize| fragments[index].clone())).unwrap(), RECORD);
    }
    assert_eq!(open(&fragments[..1]), Err(pre::Error::TooFew { fragments: 1, threshold: 2 }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_of_p256_goes_the_whole_way() {
    a_record_is_opened_by_its_reader_with_any_two_of_three(pre::Suite::P256).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_of_sm2_goes_the_whole_way() {
    a_record_is_opened_by_its_reader_with_any_two_of_three(pre::Suite::Sm2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_answered_with_one_and_the_same_fragment() {
    let mut story = Story::new().await;
    let tx_id = story.bench.request("g1", &story.record).await;
    story.proxies[0].catch_up();
    let answer = || story.proxies[0].proxy.answer(&tx_id, &story.reader()).unwrap();
    let first = answer();
    assert_eq!(answer(), first);
    // The share comes once more, and the block once more: the answer stays.
    story.proxies[0].proxy.deposit(&story.granted.deposits[0]).unwrap();
    let ledger = story.bench.channel().ledger();
    let block = ledger.block(BlockNumber::new(story.bench.height() - 1)).unwrap().unwrap();
    story.proxies[0].proxy.follow(&CommittedBlock::from_stored(block), true).unwrap();
    assert_eq!(answer(), first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_that_comes_after_the_request_answers_it() {
    let mut story = Story::without_shares(pre::Suite::P256, |_, _| ()).await;
    let tx_id = story.bench.request("g1", &story.record).await;
    let proxy = &story.proxies[0];
    proxy.catch_up();
    let error = proxy.proxy.answer(&tx_id, &story.reader()).unwrap_err();
    assert!(error.to_string().contains("gave this proxy no share"), "{error}");
    proxy.proxy.deposit(&story.granted.deposits[0]).unwrap();
    proxy.proxy.answer(&tx_id, &story.reader()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revocation_erases_shares_and_answers() {
    let mut story = Story::new().await;
    let tx_id = story.bench.request("g1", &story.record).await;
    story.proxies[0].catch_up();
    story.proxies[0].proxy.answer(&tx_id, &story.reader()).unwrap();
    story.bench.revoke("g1").await;
    // At once, even before the proxy has come to the block.
    let proxy = &story.proxies[0];
    let error = proxy.proxy.answer(&tx_id, &story.reader()).unwrap_err();
    assert!(error.to_string().contains("was revoked"), "{error}");
    proxy.catch_up();
    assert_eq!((story.kept("shares"), story.kept("fragments")), (0, 0));
    let error = proxy.proxy.deposit(&story.granted.deposits[0]).unwrap_err();
    assert!(error.to_string().contains("was revoked"), "{error}");
    let (status, text) = story.refused_request().await;
    assert_eq!(status, 409);
    assert!(text.contains("was revoked"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_use_erases_the_share_but_keeps_its_answer() {
    let mut story = Story::with(|terms| terms.uses_max = 2).await;
    assert_eq!(story.kept("shares"), 1);
    let first = story.bench.request("g1", &story.record).await;
    let second = story.bench.request("g1", &story.record).await;
    // The ledger says that the grant is used up while the proxy is at neither block.
    story.proxies[0].catch_up();
    assert_eq!(story.kept("shares"), 0);
    for tx_id in [&first, &second] {
        story.proxies[0].proxy.answer(tx_id, &story.reader()).unwrap();
    }
    let (status, text) = story.refused_request().await;
    assert_eq!(status, 409);
    assert!(text.contains("used up: 2 of 2"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_of_some_blocks_ends_with_its_last_one() {
    // The grant is in block h, and requests count in block h + 1.
    let mut last = 0;
    let mut story = Story::without_shares(pre::Suite::P256, |height, terms| {
        last = height + 1;
        terms.validity = Some(Validity { not_after_block: last, ..Validity::default() });
    })
    .await;
    story.proxies[0].proxy.deposit(&story.granted.deposits[0]).unwrap();
    let tx_id = story.bench.request("g1", &story.record).await;
    assert_eq!(story.bench.height(), last + 1);
    story.proxies[0].catch_up();
    story.proxies[0].proxy.answer(&tx_id, &story.reader()).unwrap();
    assert_eq!(story.kept("shares"), 0, "erased with its last block");
    let (status, text) = story.refused_request().await;
    assert_eq!(status, 403);
    assert!(text.contains("ended with block"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_that_ends_by_time_is_erased_when_the_ledger_shows_a_later_one() {
    let last = prost_types::Timestamp { seconds: NOW + 60, nanos: 0 };
    let validity = Validity { not_after: Some(last), ..Validity::default() };
    let mut story = Story::with(|terms| terms.validity = Some(validity)).await;
    story.proxies[0].catch_up();
    assert_eq!(story.kept("shares"), 1);
    let next = name("clinic", "patient-7", 2);
    let sealed = pre::seal(&story.secret.public_key(), &record_context(CHANNEL, &next), RECORD).unwrap();
    let owner = Arc::clone(&story.bench.owner);
    let bench = &mut story.bench;
    let later = bench.prepare_at(&owner, "PutRecord", &put_record(&next, &sealed), NOW + 61).await.unwrap();
    assert_eq!(bench.commit(vec![later.envelope]).await, [TxValidationCode::Valid]);
    story.proxies[0].catch_up();
    assert_eq!(story.kept("shares"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_says_who_could_read_what_and_who_did_by_whose_leave() {
    let mut bench = Bench::new();
    let proxies = bench.proxies();
    let secret = bench.domain("clinic", pre::Suite::P256).await;
    let (record, other) = (name("clinic", "patient-7", 1), name("clinic", "patient-8", 1));
    bench.put(&secret, &record).await;
    bench.put(&secret, &other).await;
    let mut narrow = bench.grant_to_reader("narrow", "clinic", &secret, &proxies);
    narrow.terms.filter = Some(consort_protos::consort::sealed::Filter {
        keys: vec!["patient-8".to_owned()],
        prefixes: vec![],
    });
    bench.grant(&narrow).await;
    let granted = bench.grant(&bench.grant_to_reader("wide", "clinic", &secret, &proxies)).await;
    proxies[0].proxy.deposit(&granted.deposits[0]).unwrap();
    let tx_id = bench.request("wide", &record).await;
    proxies[0].catch_up();
    let answer = proxies[0].proxy.answer(&tx_id, &party(&bench.reader)).unwrap();
    let respond = Respond { answer: Some(signed_answer(&proxies[0].peer, &answer)) };
    let stranger = Arc::clone(&bench.stranger);
    bench.call(&stranger, "Respond", &respond).await;
    bench.revoke("wide").await;

    let by_record =
        Audit { about: Some(audit::About::Record(name("clinic", "patient-7", 0))), ..Audit::default() };
    let page: AuditPage = bench.ask("Audit", &by_record).await.unwrap();
    let [entry] = &page.entries[..] else { panic!("one grant covers the record: {page:?}") };
    let grant = entry.grant.as_ref().unwrap();
    let revocation = grant.status.as_ref().unwrap().revocation.as_ref().unwrap();
    assert_eq!(revocation.by, Some(party(&bench.owner)));
    assert_eq!(grant.revoked_in_block, bench.height() - 1);
    let [asked] = &entry.requests[..] else { panic!("one request: {page:?}") };
    assert_eq!(asked.request.as_ref().unwrap().reader, Some(party(&bench.reader)));
    assert_eq!(asked.responses.len(), 1);
    assert_eq!(asked.responses[0].finding, i32::from(response::Finding::Right));
    assert_eq!(asked.responses[0].peer, Some(party(&proxies[0].peer)));

    for about in [
        audit::About::Reader(party(&bench.reader)),
        audit::About::Owner(party(&bench.owner)),
        audit::About::Domain("clinic".to_owned()),
    ] {
        let mut names = Vec::new();
        let mut bookmark = String::new();
        loop {
            let input = Audit { about: Some(about.clone()), page_size: 1, bookmark };
            let page: AuditPage = bench.ask("Audit", &input).await.unwrap();
            for entry in page.entries {
                let terms = Terms::decode(entry.grant.unwrap().grant.unwrap().terms).unwrap();
                names.push(terms.grant);
            }
            bookmark = page.bookmark;
            if bookmark.is_empty() {
                break;
            }
        }
        assert_eq!(names, ["narrow", "wide"]);
    }
    let of_stranger = Audit { about: Some(audit::About::Reader(party(&bench.stranger))), ..Audit::default() };
    assert_eq!(bench.ask::<AuditPage>("Audit", &of_stranger).await.unwrap(), AuditPage::default());
    let list = ListRecords { domain: "clinic".to_owned(), ..ListRecords::default() };
    let records: RecordPage = bench.ask("ListRecords", &list).await.unwrap();
    assert_eq!(records.records, [record, other]);
    let request: RequestAnswer = bench.ask("GetRequest", &RequestName { tx_id }).await.unwrap();
    assert_eq!(request.responses.len(), 1);
    let grant: GrantAnswer = bench.ask("GetGrant", &GrantName { grant: "wide".to_owned() }).await.unwrap();
    assert_eq!(grant.revoked_in_block, bench.height() - 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_step_is_an_event() {
    let Story { mut bench, record, .. } = Story::new().await;
    bench.request("g1", &record).await;
    bench.revoke("g1").await;
    let mut events = Vec::new();
    for block in &bench.blocks {
        let entry = consort_protos::block::envelopes(block)[0].clone();
        let event = Transaction::open(entry).unwrap().invocation().unwrap().event.clone().unwrap();
        assert_eq!(Event::decode(event.payload.clone()).unwrap().domain, "clinic");
        events.push(event.event_name);
    }
    assert_eq!(
        events,
        [
            "sealed.domain-created",
            "sealed.record-put",
            "sealed.granted",
            "sealed.requested",
            "sealed.revoked"
        ]
    );
}
