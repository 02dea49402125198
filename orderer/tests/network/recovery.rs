//! Orderers that lose what they remember, and consenters that come and go.

use std::{fs, path::Path};

use consort_protos::{
    block,
    fabric::{
        common::{ConfigGroup, Status},
        etcdraft::{ConfigMetadata, Consenter},
        orderer::ConsensusType,
    },
};
use prost::Message;

use crate::{
    agreed,
    support::{CHANNEL, Choices, Network, eventually},
};

/// Waits until so many consenters vote, in the eyes of each of these orderers.
pub(crate) async fn until_voters(network: &Network, orderers: &[usize], voters: usize) {
    for index in orderers {
        eventually(async || {
            let (_, metrics) = network.operations(*index, "/metrics").await;
            metrics
                .contains(&format!("orderer_raft_voters{{channel=\"{CHANNEL}\"}} {voters}\n"))
                .then_some(())
        })
        .await;
    }
}

pub(crate) async fn until_healthy(network: &Network, index: usize) {
    eventually(async || (network.operations(index, "/healthz").await.0 == 200).then_some(())).await;
}

/// Waits until the newest block at an orderer names the consenters by these Raft ids.
async fn until_ids(network: &Network, index: usize, ids: [u64; 3]) {
    eventually(async || {
        let newest = network.block(index, network.height(index).await - 1).await;
        (block::raft_metadata(&newest).unwrap()?.consenter_ids == ids).then_some(())
    })
    .await;
}

pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => {
                fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
        }
    }
}

/// Fabric #3639: its orderers panic or fork when a write-ahead log is lost.
#[tokio::test(flavor = "multi_thread")]
async fn an_orderer_with_an_empty_disk_must_not_vote_and_is_admitted_anew() {
    let mut network = Network::up(3, Choices::default()).await;
    network.order(0, &network.message("with three")).await;
    until_voters(&network, &[0, 1, 2], 3).await;
    network.stop(2).await;
    network.order(0, &network.message("with two")).await;
    fs::remove_dir_all(network.channel_folder(2, CHANNEL)).unwrap();
    // With one of the two that remember it away, nobody may be elected: the empty one would vote for anybody.
    network.stop(0).await;
    network.start(2).await;
    assert_eq!(network.join(2, network.genesis.encode_to_vec()).await.0, 201);
    let unhealthy = eventually(async || {
        let (status, body) = network.operations(2, "/healthz").await;
        (status == 503 && body.contains("spoke with another log before")).then_some(body)
    })
    .await;
    assert!(unhealthy.contains("must not vote"), "{unhealthy}");
    assert_eq!(network.broadcast(1, network.message("refused")).await.status(), Status::ServiceUnavailable);

    network.start(0).await;
    until_healthy(&network, 2).await;
    until_voters(&network, &[0, 1, 2], 3).await;
    network.order(2, &network.message("with three again")).await;
    // It has an id that made no promises.
    until_ids(&network, 2, [1, 2, 4]).await;
    assert_eq!(agreed(&network.block(2, 3).await), agreed(&network.block(0, 3).await));
    network.stop(0).await;
    network.order(1, &network.message("the one that came back votes")).await;
}

/// Fabric #3223: orderers that are restored at different heights fork.
#[tokio::test(flavor = "multi_thread")]
async fn orderers_that_are_restored_from_old_copies_are_found_out() {
    let mut network = Network::up(3, Choices::default()).await;
    network.order(0, &network.message("in every copy")).await;
    network.block(2, 1).await;
    network.stop(2).await;
    let (folder, old) = (network.channel_folder(2, CHANNEL), network.folder(2).join("copy"));
    copy(&folder, &old);
    network.start(2).await;
    network.order(2, &network.message("in two copies")).await;
    network.block(2, 2).await;
    for index in 0..3 {
        network.stop(index).await;
    }
    fs::remove_dir_all(&folder).unwrap();
    copy(&old, &folder);
    for index in 0..3 {
        network.start(index).await;
    }
    network.order(0, &network.message("after all were restored")).await;
    until_voters(&network, &[0, 1, 2], 3).await;
    for number in 1..network.height(0).await {
        assert_eq!(agreed(&network.block(2, number).await), agreed(&network.block(0, number).await));
    }
    network.order(2, &network.message("with its new id")).await;
    until_ids(&network, 2, [1, 2, 4]).await;
}

/// Two of three lose their disks: what the third has is all that there is.
#[tokio::test(flavor = "multi_thread")]
async fn a_channel_whose_majority_lost_its_disks_goes_on_by_an_operators_word() {
    let mut network = Network::up(3, Choices::default()).await;
    network.order(0, &network.message("with three")).await;
    until_voters(&network, &[0, 1, 2], 3).await;
    let (status, refused) = network.recover(0).await;
    assert_eq!((status, refused.contains("has a leader")), (409, true), "{refused}");
    network.block(0, 1).await;
    // Both are away before one of them comes back: else the two others might admit it anew, and no majority would be lost.
    for lost in [1, 2] {
        network.stop(lost).await;
        fs::remove_dir_all(network.channel_folder(lost, CHANNEL)).unwrap();
    }
    for lost in [1, 2] {
        network.start(lost).await;
        assert_eq!(network.join(lost, network.genesis.encode_to_vec()).await.0, 201);
    }
    let unhealthy = eventually(async || {
        let (status, body) = network.operations(2, "/healthz").await;
        (status == 503 && body.contains("must not vote")).then_some(body)
    })
    .await;
    assert!(unhealthy.contains("consort orderer recover"), "{unhealthy}");
    // The former leader learns from the silence that it leads nobody.
    eventually(async || (network.recover(0).await.0 == 200).then_some(())).await;
    network.order(0, &network.message("with one")).await;
    until_voters(&network, &[0, 1, 2], 3).await;
    network.order(1, &network.message("with three again")).await;
    until_ids(&network, 2, [1, 4, 5]).await;
    for number in 1..network.height(0).await {
        assert_eq!(agreed(&network.block(2, number).await), agreed(&network.block(0, number).await));
    }
    for index in 0..3 {
        network.stop(index).await;
    }
    for index in 1..3 {
        network.start(index).await;
    }
    network.order(1, &network.message("the two that came back vote")).await;
}

/// Two of three would be a majority, but cannot know that the third, or one of them, never ran.
#[tokio::test(flavor = "multi_thread")]
async fn a_channel_begins_with_fewer_orderers_by_an_operators_word_and_the_others_join_later() {
    let mut network = Network::new(3, Choices::default());
    for index in 0..2 {
        network.start(index).await;
        assert_eq!(network.join(index, network.genesis.encode_to_vec()).await.0, 201);
    }
    let (_, unhealthy) = network.operations(0, "/healthz").await;
    assert!(unhealthy.contains("consort orderer recover"), "{unhealthy}");
    assert_eq!(network.recover(0).await.0, 200);
    network.order(1, &network.message("with two")).await;
    until_voters(&network, &[0, 1], 2).await;
    network.start(2).await;
    assert_eq!(network.join(2, network.genesis.encode_to_vec()).await.0, 201);
    until_voters(&network, &[0, 1, 2], 3).await;
    network.stop(0).await;
    network.order(2, &network.message("the last one votes")).await;
}

pub(crate) fn change_consenters(root: &mut ConfigGroup, change: impl FnOnce(&mut Vec<Consenter>)) {
    let value = root.groups.get_mut("Orderer").unwrap().values.get_mut("ConsensusType").unwrap();
    let mut consensus = ConsensusType::decode(value.value.clone()).unwrap();
    let mut metadata = ConfigMetadata::decode(consensus.metadata.clone()).unwrap();
    change(&mut metadata.consenters);
    consensus.metadata = metadata.encode_to_vec().into();
    value.value = consensus.encode_to_vec().into();
}

/// Fabric #3992: an orderer that is evicted and added again loops.
#[tokio::test(flavor = "multi_thread")]
async fn consenters_are_removed_and_added_by_configuration() {
    let mut network = Network::up(3, Choices::default()).await;
    network.order(0, &network.message("with three")).await;
    until_voters(&network, &[0, 1, 2], 3).await;
    let third = network.consenter(2);
    let without =
        network.update(0, |root| change_consenters(root, |consenters| drop(consenters.remove(2)))).await;
    network.order(0, &without).await;
    until_voters(&network, &[0, 1], 2).await;
    network.order(1, &network.message("with two")).await;
    let height = network.height(1).await;
    network.until(2, CHANNEL, ("follower", "active", height)).await;

    let with = network.update(0, |root| change_consenters(root, |consenters| consenters.push(third))).await;
    network.order(0, &with).await;
    until_voters(&network, &[0, 1, 2], 3).await;
    network.stop(0).await;
    network.order(2, &network.message("with the one that came back")).await;
    until_ids(&network, 2, [1, 2, 4]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_consenters_that_would_lose_the_quorum_is_refused_with_the_reason() {
    let mut network = Network::up(3, Choices::default()).await;
    network.order(0, &network.message("with three")).await;
    let leader = network.leader().await;
    until_active(&network, leader, 3).await;
    let (away, other) = ((leader + 1) % 3, (leader + 2) % 3);
    network.stop(away).await;
    until_active(&network, leader, 2).await;
    let without_other =
        network.update(leader, |root| change_consenters(root, |all| drop(all.remove(other)))).await;
    let refused = network.broadcast(leader, without_other).await;
    assert_eq!(refused.status(), Status::BadRequest, "{refused:?}");
    let reason = "1 out of 2 nodes are alive, configuration will result in quorum loss";
    assert!(refused.info.contains(reason), "{refused:?}");
    network.order(other, &network.message("both go on")).await;
}

/// Waits until an orderer has heard from so many consenters, itself among them.
async fn until_active(network: &Network, index: usize, active: usize) {
    let wanted = format!("orderer_raft_active{{channel=\"{CHANNEL}\"}} {active}\n");
    eventually(async || network.operations(index, "/metrics").await.1.contains(&wanted).then_some(())).await;
}
