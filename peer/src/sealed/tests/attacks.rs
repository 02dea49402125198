//! What an adversary tries: endorsers that lie, shares and capsules in the wrong place, proxies from old backups, wrong fragments,
//! requests that were never made, and looking at disks.

use std::path::Path;
use std::sync::Arc;

use consort_crypto::pre;
use consort_protos::consort::sealed::proxy_server::Proxy as _;
use consort_protos::consort::sealed::{
    AnsweredFragment, DescribeRequest, Description, DomainName, Grant, Receipt, Respond, Response, Validity,
    response,
};
use consort_protos::fabric::common::Envelope;
use consort_protos::fabric::protos::{ChaincodeAction, ChaincodeEvent, Endorsement, ProposalResponsePayload};
use consort_protos::rwset::{TxReadWriteSet, Write};
use consort_protos::sealed::{DESCRIPTION_TAG, FRAGMENT_TAG, RECEIPT_TAG};
use consort_protos::transaction::Transaction;
use tonic::{Code, Request};

use super::journey::signed_answer;
use super::story::Story;
use super::*;

/// A prepared call, changed in what it did and endorsed again by peers of both organisations.
fn lie(
    bench: &Bench,
    caller: &SigningIdentity,
    prepared: &Prepared,
    change: impl FnOnce(&mut ChaincodeAction),
) -> Bytes {
    forge(caller, prepared, &[&bench.network.org1.peer, &bench.network.org2.peer], change)
}

/// What an endorser changes about its answer.
type Lie = Box<dyn Fn(&mut ChaincodeAction)>;

fn forge(
    caller: &SigningIdentity,
    prepared: &Prepared,
    endorsers: &[&Arc<SigningIdentity>],
    change: impl FnOnce(&mut ChaincodeAction),
) -> Bytes {
    use consort_protos::fabric::common::Payload;
    use consort_protos::fabric::protos::{ChaincodeActionPayload, Transaction as Message};
    let mut envelope = Envelope::decode(prepared.envelope.clone()).unwrap();
    let mut payload = Payload::decode(envelope.payload).unwrap();
    let mut transaction = Message::decode(payload.data).unwrap();
    let mut action_payload = ChaincodeActionPayload::decode(transaction.actions[0].payload.clone()).unwrap();
    let mut endorsed = action_payload.action.take().unwrap();
    let mut response = ProposalResponsePayload::decode(endorsed.proposal_response_payload).unwrap();
    let mut action = ChaincodeAction::decode(response.extension).unwrap();
    change(&mut action);
    response.extension = action.encode_to_vec().into();
    endorsed.proposal_response_payload = response.encode_to_vec().into();
    endorsed.endorsements = endorsers
        .iter()
        .map(|peer| Endorsement {
            endorser: peer.serialized().clone(),
            signature: peer
                .sign(&preimage::endorsement(&endorsed.proposal_response_payload, peer.serialized()))
                .unwrap()
                .into(),
        })
        .collect();
    action_payload.action = Some(endorsed);
    transaction.actions[0].payload = action_payload.encode_to_vec().into();
    payload.data = transaction.encode_to_vec().into();
    envelope.payload = payload.encode_to_vec().into();
    envelope.signature = caller.sign(&envelope.payload).unwrap().into();
    envelope.encode_to_vec().into()
}

fn change_writes(action: &mut ChaincodeAction, change: impl FnOnce(&mut Vec<Write>)) {
    let mut set = TxReadWriteSet::decode(&action.results).unwrap();
    change(&mut set.namespaces[0].writes);
    action.results = set.encode();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn not_even_all_organisations_together_can_rewrite_a_grant() {
    let mut story = Story::new().await;
    let bench = &mut story.bench;
    let (owner, reader) = (Arc::clone(&bench.owner), Arc::clone(&bench.reader));
    let mut terms = story.offer.terms.clone();
    terms.reader = Some(party(&bench.stranger));
    let rewritten = Grant { terms: terms.encode_to_vec().into(), ..Grant::default() };
    let rewrite =
        Write { key: "grant/g1".to_owned(), is_delete: false, value: rewritten.encode_to_vec().into() };
    let revoke = Revoke { grant: "g1".to_owned(), reason: String::new() };
    let asking = request("g1", &story.record);
    // Of a revocation: it also rewrites the grant, it does nothing, it writes something else, it tells something else or nothing.
    let also = rewrite.clone();
    let lies: Vec<Lie> = vec![
        Box::new(move |action| change_writes(action, |writes| writes.insert(0, also.clone()))),
        Box::new(|action| change_writes(action, Vec::clear)),
        Box::new(move |action| change_writes(action, |writes| *writes = vec![rewrite.clone()])),
        Box::new(|action| {
            let mut event = ChaincodeEvent::decode(action.events.clone()).unwrap();
            event.event_name = "sealed.granted".to_owned();
            action.events = event.encode_to_vec().into();
        }),
        Box::new(|action| action.events = Bytes::new()),
    ];
    for change in lies {
        let prepared = bench.prepare(&owner, "Revoke", &revoke).await.unwrap();
        let lie = lie(bench, &owner, &prepared, change);
        assert_eq!(bench.commit(vec![lie]).await, [TxValidationCode::InvalidWriteset]);
    }
    // A request that has not read the grant.
    let prepared = bench.prepare(&reader, "Request", &asking).await.unwrap();
    let unread = lie(bench, &reader, &prepared, |action| {
        let mut set = TxReadWriteSet::decode(&action.results).unwrap();
        set.namespaces[0].reads.clear();
        action.results = set.encode();
    });
    assert_eq!(bench.commit(vec![unread]).await, [TxValidationCode::InvalidWriteset]);
    // The calls as they are stay good.
    bench.call(&reader, "Request", &asking).await;
    bench.call(&owner, "Revoke", &revoke).await;
    // A peer that gets all blocks at once, and checks the next one while it commits one, comes to the same.
    let other = JoinedPeer::new(&bench.network.genesis);
    feed(&other.channel, bench.blocks.iter().cloned()).await;
    for number in (0..bench.height()).map(BlockNumber::new) {
        let hash = |channel: &ChannelHandle| channel.ledger().commit_hash(number).unwrap();
        assert_eq!(hash(&other.channel), hash(bench.channel()), "commit hash of block {number}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_may_call_is_not_valid_however_it_is_endorsed() {
    let mut story = Story::new().await;
    let bench = &mut story.bench;
    let owner = Arc::clone(&bench.owner);
    let revoke = Revoke { grant: "g1".to_owned(), reason: String::new() };
    let revocation = bench.prepare(&owner, "Revoke", &revoke).await.unwrap();
    // The stranger's call with the writes of the owner's.
    let stranger = Arc::clone(&bench.stranger);
    let (signed, tx_id) = proposal(&stranger, "Revoke", &revoke, NOW);
    let opened = Transaction::open(revocation.envelope.clone()).unwrap();
    let payload = opened.endorser().unwrap().proposal_response_payload.clone();
    let opened = Proposal::open(&signed).unwrap();
    let mut response = ProposalResponsePayload::decode(payload).unwrap();
    response.proposal_hash = preimage::proposal_hash(
        &opened.channel_header_bytes,
        &opened.signature_header_bytes,
        &opened.payload_without_transient(),
    )
    .to_vec()
    .into();
    let mut envelope = prepared_envelope(&opened, response.encode_to_vec().into(), Vec::new(), None);
    envelope.signature = stranger.sign(&envelope.payload).unwrap().into();
    let stolen = Prepared { tx_id, envelope: envelope.encode_to_vec().into() };
    let stolen = lie(bench, &stranger, &stolen, |_| ());
    assert_eq!(bench.commit(vec![stolen]).await, [TxValidationCode::InvalidWriteset]);
    // A question that writes.
    let asked =
        bench.prepare(&stranger, "GetDomain", &DomainName { domain: "clinic".to_owned() }).await.unwrap();
    let writing = lie(bench, &stranger, &asked, |action| {
        action.results =
            crate::testing::writes(SEALED, vec![crate::testing::write("grant/g1", b"x")]).encode();
    });
    assert_eq!(bench.commit(vec![writing]).await, [TxValidationCode::InvalidWriteset]);
    bench.call(&stranger, "GetDomain", &DomainName { domain: "clinic".to_owned() }).await;
    // Another chaincode that writes to the namespace, which only endorsers together can make up.
    let policy = crate::testing::channel_policy("/Channel/Application/Endorsement");
    let definition = bench.network.definition("basic", &policy, &crate::testing::collections()).build();
    assert_eq!(bench.commit(vec![definition]).await, [TxValidationCode::Valid]);
    let foreign = bench
        .network
        .transaction("basic")
        .set(crate::testing::writes(SEALED, vec![crate::testing::write("grant/g1", b"x")]))
        .endorsed_by(&[&bench.network.org1.peer, &bench.network.org2.peer])
        .build();
    assert_eq!(bench.commit(vec![foreign]).await, [TxValidationCode::InvalidWriteset]);
    // One organisation alone does not even satisfy the channel's policy.
    let alone = forge(&owner, &revocation, &[&bench.network.org1.peer], |_| ());
    assert_eq!(bench.commit(vec![alone]).await, [TxValidationCode::EndorsementPolicyFailure]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_does_not_overtake_a_revocation() {
    let mut story = Story::new().await;
    let bench = &mut story.bench;
    let owner = Arc::clone(&bench.owner);
    let revoke = Revoke { grant: "g1".to_owned(), reason: String::new() };
    let asked = bench.prepare(&bench.reader, "Request", &request("g1", &story.record)).await.unwrap();
    let revocation = bench.prepare(&owner, "Revoke", &revoke).await.unwrap();
    let codes = bench.commit(vec![revocation.envelope, asked.envelope]).await;
    assert_eq!(codes, [TxValidationCode::Valid, TxValidationCode::MvccReadConflict]);
    story.proxies[0].catch_up();
    let error = story.proxies[0].proxy.answer(&asked.tx_id, &story.reader()).unwrap_err();
    assert!(error.to_string().contains("no valid transaction"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_use_is_one_use_also_within_a_block() {
    let mut story = Story::with(|terms| terms.uses_max = 1).await;
    let bench = &mut story.bench;
    let first = bench.prepare(&bench.reader, "Request", &request("g1", &story.record)).await.unwrap();
    let second = bench.prepare(&bench.reader, "Request", &request("g1", &story.record)).await.unwrap();
    let third = bench.prepare(&bench.reader, "Request", &request("g1", &story.record)).await.unwrap();
    let codes = bench.commit(vec![first.envelope, second.envelope]).await;
    assert_eq!(codes, [TxValidationCode::Valid, TxValidationCode::MvccReadConflict]);
    assert_eq!(bench.commit(vec![third.envelope]).await, [TxValidationCode::MvccReadConflict]);
    story.proxies[0].catch_up();
    story.proxies[0].proxy.answer(&first.tx_id, &story.reader()).unwrap();
    for tx_id in [&second.tx_id, &third.tx_id] {
        assert!(story.proxies[0].proxy.answer(tx_id, &story.reader()).is_err());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_grant_is_over_whatever_clocks_say() {
    // The grant is in block 3, so that requests count in blocks 4 and 5.
    let mut story = Story::with(|terms| {
        terms.validity = Some(Validity { not_after_block: 5, ..Validity::default() });
    })
    .await;
    let bench = &mut story.bench;
    assert_eq!(bench.height(), 4);
    // Endorsed in time, by peers whose clocks say whatever they say, and ordered too late.
    let late = bench.prepare(&bench.reader, "Request", &request("g1", &story.record)).await.unwrap();
    bench.pass_a_block().await;
    bench.pass_a_block().await;
    assert_eq!(bench.commit(vec![late.envelope]).await, [TxValidationCode::InvalidWriteset]);
    // A proxy that was not running in between has the share until it comes to the last block.
    story.proxies[1].catch_up();
    assert!(story.proxies[1].proxy.answer(&late.tx_id, &story.reader()).is_err());
    let shares = story.bench.folder.path().join("proxy1/channel/shares");
    assert_eq!(std::fs::read_dir(shares).unwrap().count(), 0);
    let error = story.proxies[1].proxy.deposit(&story.granted.deposits[1]).unwrap_err();
    assert!(error.to_string().contains("has expired"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_serves_its_own_grant_proxy_and_channel_only() {
    let mut story = Story::new().await;
    let bench = &mut story.bench;
    let second = bench.grant_to_reader("g2", "clinic", &story.secret, &story.proxies);
    let other = bench.grant(&second).await;
    let proxy = &story.proxies[0].proxy;
    let wrong = |deposit: &DepositRequest, reason: &str| {
        let error = proxy.deposit(deposit).unwrap_err().to_string();
        assert!(error.contains(reason), "{reason}: {error}");
    };
    // As it was sealed, under another grant; and another proxy's share.
    wrong(
        &DepositRequest { grant: "g2".to_owned(), ..story.granted.deposits[0].clone() },
        "does not have the hash",
    );
    wrong(&other.deposits[1], "this peer is proxy 1");
    wrong(&DepositRequest { index: 1, ..other.deposits[1].clone() }, "does not have the hash");
    wrong(&DepositRequest { grant: "g3".to_owned(), ..other.deposits[0].clone() }, "there is no grant");
    // Grants of an owner who lies about what was sealed: another channel's context, another grant's share.
    let key = story.proxies[0].keys.secret(pre::Suite::P256).public_key();
    let share = |granted: &Granted| granted.split.shares[0].to_bytes();
    let replays = [
        ("g4", share_context("otherchannel", "g4", 1), share(&other), "cannot be opened"),
        ("g5", share_context(CHANNEL, "g5", 1), share(&story.granted), "does not fit its commitment"),
    ];
    for (grant, context, share, reason) in replays {
        let offer = bench.grant_to_reader(grant, "clinic", &story.secret, &story.proxies);
        let mut granted = offer.split();
        let sealed_share = Bytes::from(pre::seal_to(&key, &context, &share[..]).unwrap());
        granted.message.commitments[0].sealed_share_sha256 = sha256(&sealed_share).to_vec().into();
        let owner = Arc::clone(&bench.owner);
        bench.call(&owner, "Grant", &granted.message).await;
        wrong(&DepositRequest { sealed_share, ..granted.deposits[0].clone() }, reason);
    }
    // A fragment under one grant does not pass under another, although reader, record and proxy are the same.
    let tx_id = bench.request("g1", &story.record).await;
    story.proxies[0].catch_up();
    let fragment = story.proxies[0].fragment(pre::Suite::P256, &tx_id, &bench.reader);
    let error = second.open(&other, (&tx_id, &story.record), &story.sealed, &[fragment]).unwrap_err();
    assert_eq!(error, pre::Error::Fragment { index: 1 });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_reader_gets_an_answer_and_only_to_a_committed_request() {
    let mut story = Story::new().await;
    let prepared = {
        let bench = &story.bench;
        bench.prepare(&bench.reader, "Request", &request("g1", &story.record)).await.unwrap()
    };
    let service =
        service(&story.proxies[0].peer, &story.bench.folder.path().join("service"), Heard(Vec::new()));
    let tasks = consort_node::Tasks::new();
    service.start(story.bench.channel(), &tasks);
    let ask = |asker: &SigningIdentity, tx_id: &str| Request::new(question(asker, tx_id));
    // Endorsed, but never committed.
    let refused = service.answer(ask(&story.bench.reader, &prepared.tx_id)).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound, "{refused}");
    story.bench.commit(vec![prepared.envelope]).await;
    for other in [&story.bench.owner, &story.bench.stranger] {
        let refused = service.answer(ask(other, &prepared.tx_id)).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    }
    // The reader's name on a question that somebody else signed, and somebody of no organisation.
    let mut forged = question(&story.bench.stranger, &prepared.tx_id);
    forged.identity = story.bench.reader.serialized().clone();
    assert_eq!(service.answer(Request::new(forged)).await.unwrap_err().code(), Code::PermissionDenied);
    let nobody = Organisation::new("Org2MSP").member("client", "researcher");
    assert_eq!(
        service.answer(ask(&nobody, &prepared.tx_id)).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    let garbage = SignedQuestion { question: vec![0xff; 10].into(), ..SignedQuestion::default() };
    assert_eq!(service.answer(Request::new(garbage)).await.unwrap_err().code(), Code::InvalidArgument);
    // The reader itself is told why this proxy has nothing: its keys are not those that the grant names.
    let refused = service.answer(ask(&story.bench.reader, &prepared.tx_id)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert!(refused.message().contains("none of its proxies"), "{refused}");
    tasks.shutdown(Duration::from_secs(10)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn descriptions_receipts_and_answers_are_signed_by_the_peer() {
    let mut bench = Bench::new();
    let peer = bench.network.org1.member("peer", "peer0");
    let service = service(&peer, &bench.folder.path().join("service"), Heard(Vec::new()));
    let tasks = consort_node::Tasks::new();
    service.start(bench.channel(), &tasks);
    let signer = peer.identity(bench.channel().bundle().msps()).unwrap();
    let describe = DescribeRequest { channel: CHANNEL.to_owned() };
    let signed = service.describe(Request::new(describe)).await.unwrap().into_inner();
    signer.verify(&signed_message(DESCRIPTION_TAG, &signed.description), &signed.signature).unwrap();
    let description = Description::decode(signed.description).unwrap();
    assert_eq!(description.peer, Some(party(&peer)));

    let secret = bench.domain("clinic", pre::Suite::P256).await;
    let record = name("clinic", "patient-7", 1);
    let sealed = bench.put(&secret, &record).await;
    let mut offer = bench.grant_to_reader("g1", "clinic", &secret, &[]);
    offer.terms.threshold = 1;
    offer.terms.proxies = vec![ProxyOf {
        index: 1,
        peer: description.peer,
        encryption_key: description.keys[0].public_key.clone(),
        endpoint: description.endpoint,
    }];
    let granted = bench.grant(&offer).await;
    let signed = service.deposit(Request::new(granted.deposits[0].clone())).await.unwrap().into_inner();
    signer.verify(&signed_message(RECEIPT_TAG, &signed.receipt), &signed.signature).unwrap();
    let receipt = Receipt::decode(signed.receipt).unwrap();
    assert_eq!(receipt.sealed_share_sha256, granted.message.commitments[0].sealed_share_sha256);
    let tx_id = bench.request("g1", &record).await;
    let asked = Request::new(question(&bench.reader, &tx_id));
    let signed = service.answer(asked).await.unwrap().into_inner();
    signer.verify(&signed_message(FRAGMENT_TAG, &signed.answer), &signed.signature).unwrap();
    let answer = AnsweredFragment::decode(signed.answer.clone()).unwrap();
    let fragment = pre::Fragment::from_bytes(pre::Suite::P256, &answer.fragment).unwrap();
    assert_eq!(offer.open(&granted, (&tx_id, &record), &sealed, &[fragment]).unwrap(), RECORD);
    let stranger = Arc::clone(&bench.stranger);
    bench.call(&stranger, "Respond", &Respond { answer: Some(signed) }).await;
    tasks.shutdown(Duration::from_secs(10)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_fragment_names_its_proxy_and_nobody_else() {
    let mut story = Story::new().await;
    let tx_id = story.bench.request("g1", &story.record).await;
    let again = story.bench.request("g1", &story.record).await;
    story.proxies.iter().for_each(TestProxy::catch_up);
    let reader = story.reader();
    let answers: Vec<AnsweredFragment> =
        story.proxies.iter().map(|proxy| proxy.proxy.answer(&tx_id, &reader).unwrap()).collect();
    let of_another_request = story.proxies[0].proxy.answer(&again, &reader).unwrap().fragment;
    let mut flipped = answers[0].fragment.to_vec();
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    let swapped = answers[1].fragment.clone();
    let stranger = Arc::clone(&story.bench.stranger);
    let liar = &story.proxies[0].peer;
    let wrong = |fragment: Bytes| AnsweredFragment { fragment, ..answers[0].clone() };
    for fragment in [Bytes::from(flipped), swapped, of_another_request, Bytes::from_static(b"none")] {
        let respond = Respond { answer: Some(signed_answer(liar, &wrong(fragment))) };
        let prepared = story.bench.prepare(&stranger, "Respond", &respond).await.unwrap();
        let opened = Transaction::open(prepared.envelope).unwrap();
        let action = &opened.invocation().unwrap().action;
        let found = Response::decode(action.response.clone().unwrap().payload).unwrap();
        assert_eq!(found.finding, i32::from(response::Finding::Wrong));
        assert_eq!(found.peer, Some(party(liar)));
        assert_eq!(opened.invocation().unwrap().event.as_ref().unwrap().event_name, "sealed.accused");
    }
    // An accusation stands beside the right answer, each once.
    let accusation = Respond { answer: Some(signed_answer(liar, &wrong(Bytes::from_static(b"none")))) };
    story.bench.call(&stranger, "Respond", &accusation).await;
    let right = Respond { answer: Some(signed_answer(liar, &answers[0])) };
    story.bench.call(&stranger, "Respond", &right).await;
    assert_eq!(story.bench.prepare(&stranger, "Respond", &right).await.err().unwrap().0, 409);
    // Nobody is accused by what another one signed, or by a bad signature.
    let framed = Respond { answer: Some(signed_answer(&story.proxies[1].peer, &wrong(Bytes::new()))) };
    assert_eq!(story.bench.prepare(&stranger, "Respond", &framed).await.err().unwrap().0, 400);
    let mut forged = signed_answer(liar, &wrong(Bytes::new()));
    forged.signature = signed_answer(&stranger, &wrong(Bytes::new())).signature;
    let forged = Respond { answer: Some(forged) };
    assert_eq!(story.bench.prepare(&stranger, "Respond", &forged).await.err().unwrap().0, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_proxies_and_the_reader_open_nothing_with_all_that_they_heard() {
    let mut story = Story::new().await;
    let tx_id = story.bench.request("g1", &story.record).await;
    let again = story.bench.request("g1", &story.record).await;
    story.proxies[0].catch_up();
    let heard = [&tx_id, &again]
        .map(|request| story.proxies[0].fragment(pre::Suite::P256, request, &story.bench.reader));
    let open = |offer: &Offer, fragments: &[pre::Fragment]| {
        offer.open(&story.granted, (&tx_id, &story.record), &story.sealed, fragments).unwrap_err()
    };
    assert_eq!(open(&story.offer, &heard[..1]), pre::Error::TooFew { fragments: 1, threshold: 2 });
    let twice = pre::Error::Duplicate { index: 1 };
    assert_eq!(open(&story.offer, &[heard[0].clone(), heard[0].clone()]), twice);
    assert_eq!(open(&story.offer, &heard), twice, "of two requests");
    assert_eq!(open(&story.offer, &heard[1..]), pre::Error::Fragment { index: 1 }, "of another request");
    // As if the grant said that one is enough.
    let mut alone = story.offer;
    alone.terms.threshold = 1;
    assert_eq!(open(&alone, &heard[..1]), pre::Error::Closed);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_from_an_old_backup_erases_the_share_and_answers_nobody_before() {
    let mut story = Story::new().await;
    let tx_id = story.bench.request("g1", &story.record).await;
    let folder = story.bench.folder.path().to_owned();
    // A backup of the proxy's folder while the share is there; nothing was answered yet.
    let backup = folder.join("backup");
    copy(&folder.join("proxy0"), &backup);
    let blocks_then = story.bench.blocks.clone();
    story.bench.revoke("g1").await;
    story.proxies[0].catch_up();

    // The folder alone was restored: the ledger knows of the revocation.
    let peer = Arc::clone(&story.proxies[0].peer);
    let restored = TestProxy::open(Arc::clone(&peer), story.bench.channel(), &backup);
    assert_eq!(std::fs::read_dir(backup.join("channel/shares")).unwrap().count(), 1);
    assert!(restored.proxy.answer(&tx_id, &story.reader()).is_err());
    restored.catch_up();
    assert_eq!(std::fs::read_dir(backup.join("channel/shares")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(backup.join("channel/fragments")).unwrap().count(), 0);

    // The ledger was restored as well, and other organisations say that there is more.
    let whole = folder.join("whole");
    copy(&folder.join("proxy1/keys"), &whole.join("keys"));
    copy(&folder.join("proxy1/channel"), &whole.join("channels").join(CHANNEL));
    let old = JoinedPeer::new(&story.bench.network.genesis);
    feed(&old.channel, blocks_then.iter().cloned()).await;
    let now = story.bench.height();
    let heard = Heard(vec![
        (Organisation::new("Org1MSP"), now),
        (Organisation::new("Org2MSP"), old.channel.ledger().height()),
    ]);
    let service = service(&story.proxies[1].peer, &whole, heard);
    let tasks = consort_node::Tasks::new();
    service.start(&old.channel, &tasks);
    let refused = service.answer(Request::new(question(&story.bench.reader, &tx_id))).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert!(refused.message().contains("catches up first"), "{refused}");
    feed(&old.channel, story.bench.blocks[blocks_then.len()..].iter().cloned()).await;
    let refused = service.answer(Request::new(question(&story.bench.reader, &tx_id))).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert!(refused.message().contains("was revoked"), "{refused}");
    tasks.shutdown(Duration::from_secs(10)).await.unwrap();
    let shares = whole.join("channels").join(CHANNEL).join("shares");
    assert_eq!(std::fs::read_dir(shares).unwrap().count(), 0);
}

/// Whether any file below a folder holds the bytes.
fn holds(folder: &Path, wanted: &[u8]) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            holds(&path, wanted)
        } else {
            std::fs::read(&path).unwrap().windows(wanted.len()).any(|window| window == wanted)
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_byte_of_a_plain_record_or_share_is_on_any_disk_or_in_any_block() {
    let mut story = Story::new().await;
    let tx_id = story.bench.request("g1", &story.record).await;
    story.proxies.iter().for_each(TestProxy::catch_up);
    let fragments: Vec<pre::Fragment> = story.proxies[..2]
        .iter()
        .map(|proxy| proxy.fragment(pre::Suite::P256, &tx_id, &story.bench.reader))
        .collect();
    let opened =
        story.offer.open(&story.granted, (&tx_id, &story.record), &story.sealed, &fragments).unwrap();
    assert_eq!(opened, RECORD);
    let blocks: Vec<u8> = story.bench.blocks.iter().flat_map(Message::encode_to_vec).collect();
    let in_blocks = |wanted: &[u8]| blocks.windows(wanted.len()).any(|window| window == wanted);
    let (books, proxies) = (story.bench.peer.folder(), story.bench.folder.path());
    // What is there is found.
    let ciphertext = &story.sealed.ciphertext[..];
    assert!(in_blocks(ciphertext) && holds(books, ciphertext));
    let share_file = &story.granted.deposits[0].sealed_share[..];
    assert!(holds(proxies, share_file) && !holds(books, share_file) && !in_blocks(share_file));
    let mut secrets: Vec<(String, Vec<u8>)> = vec![
        ("the record".to_owned(), RECORD.to_vec()),
        ("the domain's key".to_owned(), story.secret.to_bytes().to_vec()),
        ("the reader's key".to_owned(), story.offer.reader_secret.to_bytes().to_vec()),
    ];
    for share in &story.granted.split.shares {
        // Without the index in front.
        secrets.push((format!("share {}", share.index()), share.to_bytes()[2..].to_vec()));
    }
    for (what, secret) in secrets {
        let in_hex = hex::encode(&secret).into_bytes();
        for form in [&secret[..], &in_hex[..]] {
            assert!(!in_blocks(form), "{what} is in a block");
            assert!(!holds(books, form), "{what} is in a ledger's folder");
            assert!(!holds(proxies, form), "{what} is in a proxy's folder");
        }
    }
    let debug = format!("{:?} {:?} {:?}", story.proxies[0].proxy, story.proxies[0].keys, story.granted.split);
    let secret = hex::encode(&story.granted.split.shares[0].to_bytes()[2..]);
    assert!(!debug.contains(&secret));
}
