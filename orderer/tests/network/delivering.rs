//! What readers of blocks are answered, and how maintenance mode changes who may write and read.

use consort_msp::policy::parse;
use consort_protos::fabric::{
    common::{ChannelHeader, ConfigGroup, Envelope, HeaderType, Policy, Status},
    orderer::{
        ConsensusType, SeekInfo, SeekNewest, SeekNextCommit, SeekOldest, SeekPosition, SeekSpecified,
        consensus_type::State,
        deliver_response::Type,
        seek_info::{SeekBehavior, SeekErrorResponse},
        seek_position::Type::{Newest, NextCommit, Oldest, Specified},
    },
};
use prost::Message;

use crate::{
    set_batch,
    support::{CHANNEL, Choices, Network, clients::sign_named, eventually, sign},
};

fn seek(network: &Network, info: &SeekInfo) -> Envelope {
    let client = network.members.identity("client");
    sign(&client, CHANNEL, HeaderType::DeliverSeekInfo, info.encode_to_vec())
}

fn at(position: consort_protos::fabric::orderer::seek_position::Type) -> Option<SeekPosition> {
    Some(SeekPosition { r#type: Some(position) })
}

fn number(number: u64) -> Option<SeekPosition> {
    at(Specified(SeekSpecified { number }))
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_are_answered_by_their_blocks_and_one_status() {
    let network = Network::up(1, Choices::default()).await;
    for message in 1..4 {
        network.order(0, &network.message(&format!("message {message}"))).await;
    }
    let (oldest, newest, next) =
        (at(Oldest(SeekOldest {})), at(Newest(SeekNewest {})), at(NextCommit(SeekNextCommit {})));
    let fail = SeekBehavior::FailIfNotReady as i32;
    let cases = [
        (oldest, newest, 0, vec![0, 1, 2, 3], Status::Success),
        (oldest, oldest, 0, vec![0], Status::Success),
        (newest, newest, 0, vec![3], Status::Success),
        (number(1), number(2), 0, vec![1, 2], Status::Success),
        (number(2), number(9), fail, vec![2, 3], Status::NotFound),
        (next, number(9), fail, vec![], Status::NotFound),
        (number(4), number(4), fail, vec![], Status::NotFound),
        (number(5), number(9), 0, vec![], Status::NotFound),
        (number(2), number(1), 0, vec![], Status::BadRequest),
        (number(2), None, 0, vec![], Status::BadRequest),
        (None, number(2), 0, vec![], Status::BadRequest),
    ];
    for (start, stop, behavior, blocks, status) in cases {
        let info = SeekInfo { start, stop, behavior, ..SeekInfo::default() };
        assert_eq!(network.range(0, seek(&network, &info)).await, (blocks, status), "{info:?}");
    }
    let expired = network.members.identity_until("client", crate::now() - time::Duration::minutes(1));
    let info = SeekInfo { start: oldest, stop: newest, ..SeekInfo::default() };
    let request = sign(&expired, CHANNEL, HeaderType::DeliverSeekInfo, info.encode_to_vec());
    assert_eq!(network.range(0, request).await, (vec![], Status::Forbidden));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_for_blocks_holds_for_a_quarter_of_an_hour() {
    let network = Network::up(1, Choices::default()).await;
    network.order(0, &network.message("fine")).await;
    let client = network.members.identity("client");
    let info = SeekInfo { start: number(1), stop: number(1), ..SeekInfo::default() };
    let minute = 60;
    for (age, expected) in [
        (14 * minute, (vec![1], Status::Success)),
        (-14 * minute, (vec![1], Status::Success)),
        (16 * minute, (vec![], Status::BadRequest)),
        (-16 * minute, (vec![], Status::BadRequest)),
        (i64::MAX, (vec![], Status::BadRequest)),
    ] {
        let seconds = crate::now().unix_timestamp().saturating_sub(age);
        let header = ChannelHeader {
            r#type: HeaderType::DeliverSeekInfo as i32,
            channel_id: CHANNEL.to_owned(),
            timestamp: Some(prost_types::Timestamp { seconds, nanos: 0 }),
            ..ChannelHeader::default()
        };
        let request = sign_named(&client, client.serialized().clone(), &header, info.encode_to_vec());
        assert_eq!(network.range(0, request).await, expected, "{age} seconds old");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_leader_only_who_asked_for_best_effort_is_served() {
    let mut network = Network::up(3, Choices::default()).await;
    network.order(0, &network.message("fine")).await;
    network.block(0, 1).await;
    network.stop(1).await;
    network.stop(2).await;
    eventually(async || (network.operations(0, "/healthz").await.0 == 503).then_some(())).await;
    let info = SeekInfo { start: number(0), stop: number(1), ..SeekInfo::default() };
    assert_eq!(network.range(0, seek(&network, &info)).await, (vec![], Status::ServiceUnavailable));
    let info = SeekInfo { error_response: SeekErrorResponse::BestEffort as i32, ..info };
    assert_eq!(network.range(0, seek(&network, &info)).await, (vec![0, 1], Status::Success));
    let refused = network.broadcast(0, network.message("to nobody")).await;
    assert_eq!((refused.status(), refused.info.as_str()), (Status::ServiceUnavailable, "no Raft leader"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_who_reads_nothing_holds_up_neither_writers_nor_other_readers() {
    let network = Network::up(1, Choices::default()).await;
    let stalled = network.read_from(0, 0).await;
    // More than its connection takes without being read.
    let large = "x".repeat(512 * 1024);
    for message in 0..32 {
        network.order(0, &network.message(&format!("{message} {large}"))).await;
    }
    let (oldest, newest) = (at(Oldest(SeekOldest {})), at(Newest(SeekNewest {})));
    let info = SeekInfo { start: oldest, stop: newest, ..SeekInfo::default() };
    let all: Vec<u64> = (0..=32).collect();
    assert_eq!(network.range(0, seek(&network, &info)).await, (all, Status::Success));
    drop(stalled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_who_loses_the_right_to_read_sees_no_block_from_then_on() {
    let network = Network::up(1, Choices::default()).await;
    network.order(0, &network.message("one")).await;
    let mut stream = network.read_from(0, 0).await;
    for number in 0..2 {
        let Some(Type::Block(block)) = stream.message().await.unwrap().unwrap().r#type else { panic!() };
        assert_eq!(block.header.unwrap().number, number);
    }
    let update = network
        .update(0, |root| {
            let readers = root.policies.get_mut("Readers").unwrap();
            let value = parse("OR('OrdererMSP.member')").unwrap().encode_to_vec().into();
            readers.policy = Some(Policy { r#type: 1, value });
        })
        .await;
    network.order(0, &update).await;
    let last = stream.message().await.unwrap().unwrap().r#type;
    assert_eq!(last, Some(Type::Status(Status::Forbidden as i32)));
    assert_eq!(stream.message().await.unwrap(), None);
}

fn set_state(root: &mut ConfigGroup, state: State) {
    let value = root.groups.get_mut("Orderer").unwrap().values.get_mut("ConsensusType").unwrap();
    let mut consensus = ConsensusType::decode(value.value.clone()).unwrap();
    consensus.set_state(state);
    value.value = consensus.encode_to_vec().into();
}

#[tokio::test(flavor = "multi_thread")]
async fn in_maintenance_only_orderers_write_configurations_and_read() {
    let network = Network::up(3, Choices::default()).await;
    network.order(0, &network.message("before")).await;
    let mixed = network
        .update(0, |root| {
            set_state(root, State::Maintenance);
            set_batch(root, 7);
        })
        .await;
    let refused = network.broadcast(0, mixed).await;
    assert_eq!(
        (refused.status(), refused.info.as_str()),
        (
            Status::BadRequest,
            "config update for existing channel did not pass maintenance checks: config transaction inspection failed: config update \
             contain more then just the ConsensusType value in the Orderer group"
        )
    );
    network.order(0, &network.update(0, |root| set_state(root, State::Maintenance)).await).await;
    for index in 0..3 {
        network.until(index, CHANNEL, ("consenter", "active", 3)).await;
        let refused = network.broadcast(index, network.message("during")).await;
        assert_eq!(
            (refused.status(), refused.info.as_str()),
            (Status::ServiceUnavailable, "normal transactions are rejected: maintenance mode")
        );
    }
    let info = SeekInfo { start: number(0), stop: number(0), ..SeekInfo::default() };
    assert_eq!(network.range(0, seek(&network, &info)).await, (vec![], Status::Forbidden));
    let orderer = network.orderers.identity("orderer");
    let request = sign(&orderer, CHANNEL, HeaderType::DeliverSeekInfo, info.encode_to_vec());
    assert_eq!(network.range(0, request).await, (vec![0], Status::Success));
    network.order(1, &network.update(0, |root| set_batch(root, 7)).await).await;
    // The next update is computed from what the second orderer has, which may hear of this one last.
    network.until(1, CHANNEL, ("consenter", "active", 4)).await;
    network.order(1, &network.update(1, |root| set_state(root, State::Normal)).await).await;
    network.order(2, &network.message("after")).await;
}
