//! ChaincodeEvents: order, resumption, slow and unwelcome readers.

use super::*;

fn events_request(
    test: &TestChannel,
    position: Option<seek_position::Type>,
    after: &str,
) -> SignedChaincodeEventsRequest {
    let client = &test.network.org1.client;
    let request = ChaincodeEventsRequest {
        channel_id: CHANNEL.to_owned(),
        chaincode_id: "basic".to_owned(),
        identity: client.serialized().clone(),
        start_position: position.map(|position| SeekPosition { r#type: Some(position) }),
        after_transaction_id: after.to_owned(),
    };
    let request = Bytes::from(request.encode_to_vec());
    let signature = client.sign(&request).expect("a signature").into();
    SignedChaincodeEventsRequest { request, signature }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaincode_events_come_in_order_and_can_be_resumed() {
    let (gateway, mut test, _) = Bench::new().await.gateway();
    let request = events_request(&test, Some(seek_position::Type::NextCommit(SeekNextCommit {})), "");
    let mut live = gateway.chaincode_events(Request::new(request)).await.expect("a stream").into_inner();
    let first = test.basic().event("created", b"1");
    let silent = test.basic();
    let second = test.basic().event("changed", b"2");
    let invalid = test.basic().endorsed_by(&[]).event("never", b"3");
    test.commit(vec![silent.build()]).await;
    test.commit(vec![first.build(), invalid.build(), second.build()]).await;
    let response = live.next().await.expect("an answer").expect("events");
    let names: Vec<&str> = response.events.iter().map(|event| event.event_name.as_str()).collect();
    assert_eq!((response.block_number, names), (3, vec!["created", "changed"]));
    let request = events_request(&test, None, &first.tx_id());
    let mut resumed = gateway.chaincode_events(Request::new(request)).await.expect("a stream").into_inner();
    let response = resumed.next().await.expect("an answer").expect("events");
    assert_eq!(response.events.len(), 1);
    assert_eq!(response.events[0].payload, Bytes::from_static(b"2"));
    let positions = [
        (seek_position::Type::Oldest(Default::default()), "Oldest"),
        (seek_position::Type::Newest(Default::default()), "Newest"),
    ];
    for (position, name) in positions {
        let request = events_request(&test, Some(position), "");
        let status =
            gateway.chaincode_events(Request::new(request)).await.map(drop).expect_err("not allowed");
        let text = format!("invalid start position type: *orderer.SeekPosition_{name}");
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, text.as_str()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_after_a_transaction_that_is_not_there_yet_begin_behind_it() {
    let (gateway, mut test, _) = Bench::new().await.gateway();
    let (early, known, late) = (
        test.basic().event("early", b"1"),
        test.basic().event("known", b"2"),
        test.basic().event("late", b"3"),
    );
    let request = events_request(&test, None, &known.tx_id());
    let mut stream = gateway.chaincode_events(Request::new(request)).await.expect("a stream").into_inner();
    test.commit(vec![early.build()]).await;
    test.commit(vec![known.build(), late.build()]).await;
    let response = stream.next().await.expect("an answer").expect("events");
    let names: Vec<&str> = response.events.iter().map(|event| event.event_name.as_str()).collect();
    assert_eq!((response.block_number, names), (3, vec!["late"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_other_chaincodes_and_without_a_name_are_left_out() {
    let (gateway, mut test, _) = Bench::new().await.gateway();
    let request = events_request(&test, None, "");
    let stranger = SignedChaincodeEventsRequest {
        signature: test.network.org2.client.sign(&request.request).expect("a signature").into(),
        ..request.clone()
    };
    let refused = gateway.chaincode_events(Request::new(stranger)).await.map(drop).expect_err("forged");
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::PermissionDenied, "access denied: channel [mychannel]")
    );
    let mut stream = gateway.chaincode_events(Request::new(request)).await.expect("a stream").into_inner();
    let policy = crate::testing::channel_policy("/Channel/Application/Endorsement");
    let definition = test.network.definition("basic2", &policy, &Default::default()).build();
    assert_eq!(test.commit(vec![definition]).await, [TxValidationCode::Valid]);
    let endorsers = [&test.network.org1.peer, &test.network.org2.peer];
    let other = test.network.transaction("basic2").endorsed_by(&endorsers).event("other", b"1");
    let (nameless, named) = (test.basic().event("", b"2"), test.basic().event("named", b"3"));
    let codes = test.commit(vec![other.build(), nameless.build(), named.build()]).await;
    assert_eq!(codes, [TxValidationCode::Valid; 3]);
    let response = stream.next().await.expect("an answer").expect("events");
    let names: Vec<&str> = response.events.iter().map(|event| event.event_name.as_str()).collect();
    assert_eq!(names, ["named"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_resume_after_any_committed_transaction() {
    let (gateway, mut test, _) = Bench::new().await.gateway();
    let first = test.basic().event("first", b"1");
    let silent = test.basic();
    let invalid = test.basic().endorsed_by(&[]).event("never", b"2");
    let other = test.basic().event("other", b"3");
    let second = test.basic().event("second", b"4");
    let later = test.basic().event("later", b"5");
    test.commit([&first, &silent, &invalid, &second].map(TransactionBuilder::build).to_vec()).await;
    test.commit(vec![other.build(), later.build()]).await;
    let seen = [(silent.tx_id(), "second", 2), (invalid.tx_id(), "second", 2), (other.tx_id(), "later", 3)];
    for (tx_id, name, block) in seen {
        let request = events_request(&test, None, &tx_id);
        let mut resumed =
            gateway.chaincode_events(Request::new(request)).await.expect("a stream").into_inner();
        let response = resumed.next().await.expect("an answer").expect("events");
        assert_eq!((response.events[0].event_name.as_str(), response.block_number), (name, block));
        assert_eq!(response.events.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_no_events_is_sent_away_with_the_reason() {
    let (gateway, mut test, _) = Bench::new().await.gateway();
    let gateway = gateway.slow_reader_wait(std::time::Duration::from_millis(20));
    let free = gateway.waiters.available_permits();
    let request = Request::new(events_request(&test, None, ""));
    let mut unread = gateway.chaincode_events(request).await.expect("a stream").into_inner();
    assert_eq!(gateway.waiters.available_permits(), free - 1);
    for _ in 0..RESPONSES_IN_FLIGHT + 2 {
        test.commit(vec![test.basic().event("unread", b"1").build()]).await;
    }
    tokio::time::timeout(PATIENCE, async {
        while gateway.waiters.available_permits() < free {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the place is free again while the client still does nothing");
    for _ in 0..RESPONSES_IN_FLIGHT {
        unread.next().await.expect("an answer").expect("events");
    }
    let reason = unread.next().await.expect("an answer").expect_err("sent away");
    assert_eq!(reason.code(), Code::ResourceExhausted);
    assert!(reason.message().contains("ask again from the last event on"), "{reason}");
    assert!(unread.next().await.is_none());
}

/// Longer than anything takes that is waited for here.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// Longer than any certificate of the test network lasts.
const AGES: std::time::Duration = std::time::Duration::from_secs(3_000 * 366 * 24 * 3600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_certificate_opens_no_door_and_ends_a_stream() {
    let bench = Bench::new().await;
    let clock = Arc::clone(&bench.clock);
    let (gateway, mut test, _) = bench.gateway();
    let request = Request::new(events_request(&test, None, ""));
    let mut live = gateway.chaincode_events(request).await.expect("a stream").into_inner();
    test.commit(vec![test.basic().event("one", b"1").build()]).await;
    live.next().await.expect("an answer").expect("events");
    clock.advance(AGES);
    test.commit(vec![test.basic().event("two", b"2").build()]).await;
    let status = live.next().await.expect("an answer").expect_err("expired");
    assert_eq!(
        (status.code(), status.message()),
        (Code::PermissionDenied, "access denied: channel [mychannel]")
    );
    let status = gateway.commit_status(Request::new(commit_status(&test, "0"))).await.expect_err("expired");
    assert_eq!(status.code(), Code::PermissionDenied);
    let request = Request::new(events_request(&test, None, ""));
    let status = gateway.chaincode_events(request).await.map(drop).expect_err("expired");
    assert_eq!(status.code(), Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_when_the_policy_is_changed_against_its_reader() {
    let (gateway, mut test, _) = Bench::new().await.gateway();
    let request = Request::new(events_request(&test, None, ""));
    let mut live = gateway.chaincode_events(request).await.expect("a stream").into_inner();
    test.commit(vec![test.basic().event("one", b"1").build()]).await;
    live.next().await.expect("an answer").expect("events");
    let configuration = test.network.configuration(&test.channel.bundle(), |root| {
        let application = root.groups.get_mut("Application").expect("an application group");
        let admins = application.policies["Admins"].policy.clone();
        let readers = application.policies.get_mut("Readers").expect("readers");
        readers.policy = admins;
    });
    assert_eq!(test.commit(vec![configuration]).await, [TxValidationCode::Valid]);
    let status = live.next().await.expect("an answer").expect_err("clients are no readers any more");
    assert_eq!(status.code(), Code::PermissionDenied);
}
