//! Orderers with real sockets, real TLS and real disks, in one process.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails where it stands")]

mod alone;
mod clocks;
mod delivering;
mod load;
mod participation;
mod processes;
mod recovery;
mod rest;
mod revocation;
mod support;

use std::time::{Duration, Instant};

use consort_channel_config::{ChannelBundle, profile::BatchProfile};
use consort_msp::{SigningIdentity, policy::SignedData};
use consort_protos::{
    block,
    consort::orderer::{
        StepRequest, Submission, Submissions, cluster_client::ClusterClient, step_request::Content,
    },
    entry::EntryNumber,
    fabric::{
        common::{
            Block, BlockMetadataIndex, ChannelHeader, ConfigGroup, Envelope, HeaderType, SignatureHeader,
            Status,
        },
        orderer::BatchSize,
    },
};
use prost::Message;
use tokio_stream::StreamExt as _;

use support::{CHANNEL, Choices, Network, Organisation, clients::sign_named, now, sign};

/// What all orderers must agree on; signatures are each one's own.
fn agreed(block: &Block) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let value = block::orderer_signatures(block).unwrap().unwrap().value;
    (
        block.header.as_ref().unwrap().encode_to_vec(),
        block.data.as_ref().unwrap().encode_to_vec(),
        value.to_vec(),
    )
}

fn assert_signed(bundle: &ChannelBundle, block: &Block) {
    let signatures = block::orderer_signatures(block).unwrap().unwrap();
    let [signature] = signatures.signatures.as_slice() else { panic!("exactly one signature is expected") };
    let header = block.header.as_ref().unwrap();
    let signed = SignedData {
        identity: SignatureHeader::decode(signature.signature_header.clone()).unwrap().creator,
        message: consort_crypto::preimage::block_signature(
            &signatures.value,
            &signature.signature_header,
            header,
        )
        .into(),
        signature: signature.signature.clone(),
    };
    bundle.policies().policy("/Channel/Orderer/BlockValidation").unwrap().evaluate(&[signed]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn three_orderers_deliver_the_same_signed_blocks_whoever_takes_the_message() {
    let network = Network::up(3, Choices::default()).await;
    let bundle = ChannelBundle::from_block(&network.genesis).unwrap();
    for index in 0..3 {
        let message = network.message(&format!("message {index}"));
        network.order(index, &message).await;
        let number = index as u64 + 1;
        let first = network.block(0, number).await;
        assert_eq!(
            block::envelopes(&first),
            [message.encode_to_vec()],
            "a lone message is a block of its own"
        );
        for other in 0..3 {
            let copy = network.block(other, number).await;
            assert_eq!(agreed(&copy), agreed(&first));
            assert_signed(&bundle, &copy);
        }
        let raft = block::raft_metadata(&first).unwrap().unwrap();
        assert_eq!((raft.consenter_ids, raft.next_consenter_id), (vec![1, 2, 3], 4));
        assert_eq!(block::metadata(&first, BlockMetadataIndex::LastConfig), None, "no bytes for index 0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_message_does_not_wait_for_the_batch_timeout() {
    let network = Network::up(1, Choices::default()).await;
    network.order(0, &network.message("first")).await;
    let start = Instant::now();
    let response = network.broadcast(0, network.message("second")).await;
    assert_eq!(response.status(), Status::Success);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_others_go_on_without_one_which_catches_up_when_it_is_back() {
    let mut network = Network::up(3, Choices::default()).await;
    network.order(0, &network.message("with three")).await;
    network.stop(0).await;
    network.order(1, &network.message("with two")).await;
    network.start(0).await;
    let (missed, there) = (network.block(0, 2).await, network.block(1, 2).await);
    assert_eq!(agreed(&missed), agreed(&there));
    network.order(0, &network.message("with three again")).await;
    assert_eq!(agreed(&network.block(2, 3).await), agreed(&network.block(0, 3).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stops_hands_over_so_that_nobody_waits_for_an_election() {
    // The election timeout is longer than the test's patience.
    let mut network = Network::up(3, Choices { election_tick: 4_000, ..Choices::default() }).await;
    network.order(0, &network.message("with three")).await;
    let leader = network.leader().await;
    network.stop(leader).await;
    network.order((leader + 1) % 3, &network.message("with two")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_there_after_all_were_stopped() {
    let mut network = Network::up(3, Choices::default()).await;
    network.order(0, &network.message("before")).await;
    for index in 0..3 {
        network.stop(index).await;
    }
    for index in 0..3 {
        network.start(index).await;
    }
    network.order(2, &network.message("after")).await;
    // The leader has agreed; the node that was asked follows in a moment.
    network.block(2, 2).await;
    assert_eq!(network.height(2).await, 3);
    let (before, after) = (network.block(1, 1).await, network.block(1, 2).await);
    assert_eq!(
        after.header.unwrap().previous_hash,
        consort_crypto::preimage::block_hash(&before.header.unwrap()).as_slice()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lags_behind_the_log_fetches_blocks_from_the_others() {
    let choices = Choices { snapshot_interval_bytes: 1, ..Choices::default() };
    let mut network = Network::up(3, choices).await;
    network.order(0, &network.message("with three")).await;
    network.stop(2).await;
    for number in 0..40 {
        network.order(0, &network.message(&format!("with two {number}"))).await;
    }
    let last = network.height(0).await - 1;
    network.start(2).await;
    assert_eq!(agreed(&network.block(2, last).await), agreed(&network.block(0, last).await));
    network.order(2, &network.message("with three again")).await;
    network.stop(2).await;
    network.start(2).await;
    assert_eq!(agreed(&network.block(2, last + 1).await), agreed(&network.block(1, last + 1).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_break_a_rule_are_refused_with_fabrics_statuses() {
    let batch =
        BatchProfile { absolute_max_bytes: 4000, preferred_max_bytes: 4000, ..Choices::default().batch };
    let network = Network::up(1, Choices { batch, ..Choices::default() }).await;
    network.order(0, &network.message("fine")).await;
    let client = network.members.identity("client");
    let transaction =
        |channel: &str, data: Vec<u8>| sign(&client, channel, HeaderType::EndorserTransaction, data);
    let expired = network.members.identity_until("client", now() - time::Duration::minutes(1));
    let stranger = Organisation::new("Org1MSP").identity("client");
    let refused = [
        (Envelope::default(), Status::BadRequest, "Message was empty"),
        (
            Envelope { payload: vec![255, 255].into(), ..Envelope::default() },
            Status::BadRequest,
            "could not determine",
        ),
        (transaction("elsewhere", vec![1]), Status::BadRequest, "channel does not exist"),
        (transaction(CHANNEL, vec![0; 4000]), Status::BadRequest, "exceeds maximum allowed 4000 bytes"),
        (
            sign(&client, CHANNEL, HeaderType::Config, vec![1]),
            Status::BadRequest,
            "message is of type that cannot be processed directly",
        ),
        (
            sign(&expired, CHANNEL, HeaderType::EndorserTransaction, vec![1]),
            Status::BadRequest,
            "broadcast client identity expired",
        ),
        (
            sign(&stranger, CHANNEL, HeaderType::EndorserTransaction, vec![1]),
            Status::Forbidden,
            "implicit policy evaluation failed - 0 sub-policies were satisfied, but this policy requires 1 of the 'Writers' \
             sub-policies to be satisfied: permission denied",
        ),
        (
            Envelope { signature: vec![1].into(), ..transaction(CHANNEL, vec![1]) },
            Status::Forbidden,
            "permission denied",
        ),
        (
            sign(&client, CHANNEL, HeaderType::ConfigUpdate, vec![1]),
            Status::BadRequest,
            "error applying config update to existing channel 'mychannel': ",
        ),
    ];
    for (envelope, status, info) in refused {
        let response = network.broadcast(0, envelope).await;
        assert_eq!(response.status(), status, "{response:?}");
        assert!(response.info.contains(info), "{response:?}");
    }
    assert_eq!(network.height(0).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creator_named_by_number_is_judged_by_the_certificate_beside_the_envelope() {
    let network = Network::up(1, Choices { registered_identities: true, ..Choices::default() }).await;
    let (client, other) = (network.members.identity("client"), network.members.identity("client"));
    let stranger = Organisation::new("Org1MSP").identity("client");
    let header = |kind: HeaderType| ChannelHeader {
        r#type: kind as i32,
        channel_id: CHANNEL.to_owned(),
        ..ChannelHeader::default()
    };
    let number = EntryNumber::new(7).unwrap().serialize();
    let transaction = header(HeaderType::EndorserTransaction);
    let bare = sign_named(&client, number.clone(), &transaction, vec![1]);
    let beside = |who: &SigningIdentity| Envelope { creator: who.serialized().clone(), ..bare.clone() };
    let foreign = sign_named(&stranger, number.clone(), &transaction, vec![1]);
    let update = sign_named(&client, number, &header(HeaderType::ConfigUpdate), vec![1]);
    let refused = [
        // No certificate, that of somebody else, that of nobody whom the channel knows.
        bare.clone(),
        beside(&other),
        beside(&stranger),
        Envelope { creator: stranger.serialized().clone(), ..foreign.clone() },
        Envelope { creator: client.serialized().clone(), ..foreign },
        // Only transactions name their creator so.
        Envelope { creator: client.serialized().clone(), ..update },
    ];
    for (case, envelope) in refused.into_iter().enumerate() {
        let response = network.broadcast(0, envelope).await;
        assert_eq!(response.status(), Status::Forbidden, "case {case}: {response:?}");
    }
    network.order(0, &beside(&client)).await;
    let ordered = network.block(0, 1).await;
    assert_eq!(block::envelopes(&ordered), [bare.encode_to_vec()], "the certificate is not in the block");
}

/// Another limit of messages in a block.
fn set_batch(root: &mut ConfigGroup, max_message_count: u32) {
    let value = root.groups.get_mut("Orderer").unwrap().values.get_mut("BatchSize").unwrap();
    let size = BatchSize::decode(value.value.clone()).unwrap();
    value.value = BatchSize { max_message_count, ..size }.encode_to_vec().into();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_stands_alone_and_is_in_force_afterwards() {
    let mut network = Network::up(3, Choices::default()).await;
    let genesis = ChannelBundle::from_block(&network.genesis).unwrap();
    let update = network.update(0, |root| set_batch(root, 7)).await;
    network.order(1, &update).await;
    for index in 0..3 {
        let config = network.block(index, 1).await;
        let bundle = ChannelBundle::from_block(&config).unwrap();
        assert_eq!((bundle.sequence(), bundle.orderer().batch.max_message_count), (1, 7));
        assert_eq!(
            block::last_config_index(&config).unwrap().get(),
            1,
            "a configuration is its own last one"
        );
        assert_signed(&genesis, &config);
    }
    network.order(2, &network.message("afterwards")).await;
    let next = network.block(0, 2).await;
    assert_eq!(block::last_config_index(&next).unwrap().get(), 1);
    assert_eq!(block::metadata(&next, BlockMetadataIndex::LastConfig).unwrap().as_ref(), [10, 2, 8, 1]);
    let again = network.broadcast(0, update).await;
    assert_eq!(again.status(), Status::BadRequest, "{again:?}");

    network.stop(0).await;
    network.start(0).await;
    network.order(0, &network.message("after a restart")).await;
    assert_eq!(block::last_config_index(&network.block(0, 3).await).unwrap().get(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_messages_fills_blocks_up_to_the_count() {
    let batch = BatchProfile { max_message_count: 5, ..Choices::default().batch };
    let network = Network::up(1, Choices { batch, ..Choices::default() }).await;
    network.order(0, &network.message("first")).await;
    let messages: Vec<Envelope> =
        (0..50).map(|number| network.message(&format!("message {number}"))).collect();
    let mut responses =
        network.client(0).broadcast(tokio_stream::iter(messages.clone())).await.unwrap().into_inner();
    for _ in &messages {
        assert_eq!(responses.message().await.unwrap().unwrap().status(), Status::Success);
    }
    let mut delivered = Vec::new();
    for number in 2..network.height(0).await {
        let block = network.block(0, number).await;
        assert!(block::envelopes(&block).len() <= 5);
        delivered.extend(
            block::envelopes(&block).iter().map(|envelope| Envelope::decode(envelope.clone()).unwrap()),
        );
    }
    assert_eq!(delivered, messages, "in the order in which they were sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_are_for_readers_only() {
    let network = Network::up(1, Choices::default()).await;
    network.order(0, &network.message("secret")).await;
    let seek = consort_protos::fabric::orderer::SeekInfo::default().encode_to_vec();
    let stranger = Organisation::new("Org9MSP").identity("client");
    let request = sign(&stranger, CHANNEL, HeaderType::DeliverSeekInfo, seek.clone());
    assert_eq!(network.deliver(0, request).await, Err(Status::Forbidden));
    let client = network.members.identity("client");
    let request = sign(&client, "elsewhere", HeaderType::DeliverSeekInfo, seek.clone());
    assert_eq!(network.deliver(0, request).await, Err(Status::NotFound));
    let request = sign(&client, CHANNEL, HeaderType::DeliverSeekInfo, seek);
    assert_eq!(network.deliver(0, request).await, Err(Status::BadRequest), "neither start nor stop");
    assert_eq!(network.deliver(0, Envelope::default()).await, Err(Status::BadRequest));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_consenters_may_send_raft_messages() {
    let network = Network::up(1, Choices::default()).await;
    network.order(0, &network.message("fine")).await;
    let mut stranger = ClusterClient::new(network.channel_of_stranger(0));
    let step = |channel: &str| StepRequest {
        channel: channel.to_owned(),
        content: Some(Content::RaftMessage(vec![1, 2, 3].into())),
        standing: None,
    };
    let mut answers = stranger.step(tokio_stream::once(step(CHANNEL))).await.unwrap().into_inner();
    let refused = answers.message().await.unwrap_err();
    assert_eq!(refused.message(), "certificate extracted from TLS connection isn't authorized");
    let mut answers = stranger.step(tokio_stream::once(step("elsewhere"))).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap_err().message(), "channel elsewhere doesn't exist");
}

/// CVE-2021-43667: a message without payload that is forwarded to the leader stopped Fabric's orderers.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_without_payload_that_is_forwarded_to_the_leader_is_refused() {
    let network = Network::up(3, Choices::default()).await;
    network.order(0, &network.message("before")).await;
    let leader = network.leader().await;
    let bad = [
        None,
        Some(Envelope::default()),
        Some(Envelope { payload: vec![255].into(), ..Envelope::default() }),
    ];
    let submissions =
        (1..).zip(bad).map(|(id, envelope)| Submission { id, envelope, config_sequence: Some(0) });
    let content = Some(Content::Submissions(Submissions { submissions: submissions.collect() }));
    let request = StepRequest { channel: CHANNEL.to_owned(), content, standing: None };
    let mut client = ClusterClient::new(network.channel_of(leader, (leader + 1) % 3));
    let requests = tokio_stream::once(request).chain(tokio_stream::pending());
    let mut answers = client.step(requests).await.unwrap().into_inner();
    let mut outcomes = Vec::new();
    while outcomes.len() < 3 {
        outcomes.extend(answers.message().await.unwrap().unwrap().outcomes);
    }
    outcomes.sort_by_key(|outcome| outcome.id);
    let statuses: Vec<Status> = outcomes.iter().map(|one| Status::try_from(one.status).unwrap()).collect();
    assert_eq!(statuses, [Status::BadRequest; 3], "{outcomes:?}");
    assert_eq!(outcomes[0].info, "Message was empty");
    network.order(leader, &network.message("after")).await;
    assert_eq!(network.leader().await, leader);
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_list_join_fetch_and_remove_channels() {
    let mut network = Network::new(1, Choices::default());
    network.start(0).await;
    let (client, base) = network.admin(0);
    let get = async |path: String| {
        let response = client.get(path).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    assert_eq!(get(base.clone()).await, (200, r#"{"systemChannel":null,"channels":null}"#.to_owned()));
    let (status, body) = network.join(0, b"nonsense".to_vec()).await;
    assert_eq!(status, 400, "{body}");
    let mut wrong = network.genesis.clone();
    wrong.header.as_mut().unwrap().data_hash = vec![0; 32].into();
    let (status, body) = network.join(0, wrong.encode_to_vec()).await;
    assert_eq!(status, 400);
    assert!(
        body.contains(
            "invalid join block: invalid block: Header.DataHash is different from Hash(block.Data)"
        ),
        "{body}"
    );

    let (status, body) = network.join(0, network.genesis.encode_to_vec()).await;
    let description = r#"{"name":"mychannel","url":"/participation/v1/channels/mychannel","consensusRelation":"consenter","status":"active","height":1}"#;
    assert_eq!((status, body.as_str()), (201, description));
    let (status, body) = network.join(0, network.genesis.encode_to_vec()).await;
    assert_eq!((status, body.as_str()), (405, r#"{"error":"cannot join: channel already exists"}"#));
    assert_eq!(get(format!("{base}/mychannel")).await, (200, description.to_owned()));
    let block =
        client.get(format!("{base}/mychannel/blocks/config")).send().await.unwrap().bytes().await.unwrap();
    assert_eq!(Block::decode(block).unwrap(), network.genesis);
    assert_eq!(
        get(format!("{base}/elsewhere")).await,
        (404, r#"{"error":"channel does not exist"}"#.to_owned())
    );

    let remove = client.delete(format!("{base}/mychannel")).send().await.unwrap();
    assert_eq!(remove.status().as_u16(), 204);
    assert_eq!(get(format!("{base}/mychannel")).await.0, 404);
    let (status, body) = network.join(0, network.genesis.encode_to_vec()).await;
    assert_eq!(status, 201, "{body}");
    network.order(0, &network.message("in the channel that was joined again")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics_know_whether_each_channel_has_a_leader() {
    let mut network = Network::up(3, Choices::default()).await;
    network.order(0, &network.message("fine")).await;
    let (status, body) = network.operations(0, "/healthz").await;
    assert_eq!(status, 200, "{body}");
    let mut leaders = 0;
    for index in 0..3 {
        let metrics = support::eventually(async || {
            let (_, metrics) = network.operations(index, "/metrics").await;
            metrics.contains("orderer_block_height{channel=\"mychannel\"} 2").then_some(metrics)
        })
        .await;
        leaders += usize::from(metrics.contains("orderer_is_leader{channel=\"mychannel\"} 1"));
    }
    assert_eq!(leaders, 1);
    let leader = network.leader().await;
    let (_, metrics) = network.operations(leader, "/metrics").await;
    for shown in [
        "orderer_raft_term{channel=\"mychannel\"} ",
        "orderer_submissions_total{channel=\"mychannel\"}",
        "orderer_raft_log_sync_seconds_count{channel=\"mychannel\"}",
        "orderer_blocks_cut_total{channel=\"mychannel\",reason=\"idle\"} ",
    ] {
        assert!(metrics.contains(shown), "{shown} is not in {metrics}");
    }
    let lags = support::eventually(async || {
        let (_, metrics) = network.operations(leader, "/metrics").await;
        let lags = metrics.lines().filter(|line| line.starts_with("orderer_raft_peer_lag_entries{"));
        let lags: Vec<String> = lags.map(str::to_owned).collect();
        (lags.len() == 2 && lags.iter().all(|line| line.ends_with(" 0"))).then_some(lags)
    })
    .await;
    assert!(!lags.iter().any(|line| line.contains(&format!("orderer{leader}."))), "{lags:?}");
    network.stop(1).await;
    network.stop(2).await;
    let unhealthy = support::eventually(async || {
        let (status, body) = network.operations(0, "/healthz").await;
        (status == 503).then_some(body)
    })
    .await;
    assert!(unhealthy.contains("mychannel: no Raft leader"), "{unhealthy}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_listener_refuses_who_has_no_certificate_of_its_roots() {
    let mut network = Network::new(1, Choices::default());
    network.start(0).await;
    let (_, base) = network.admin(0);
    let root = network.orderers.tls_ca.certificate().pem();
    let (host, port) =
        base.trim_start_matches("https://").split_once('/').unwrap().0.split_once(':').unwrap();
    let client = reqwest::Client::builder()
        .use_rustls_tls()
        .add_root_certificate(reqwest::Certificate::from_pem(root.as_bytes()).unwrap())
        .resolve(host, format!("127.0.0.1:{port}").parse().unwrap())
        .build()
        .unwrap();
    assert!(client.get(base).send().await.is_err());
}
