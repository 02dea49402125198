//! An orderer that was the only consenter once, and whose disk does not know of the others.

use std::fs;

use consort_protos::fabric::common::Status;
use prost::Message;

use crate::{
    agreed,
    recovery::{change_consenters, copy, until_healthy, until_voters},
    support::{CHANNEL, Choices, Network, eventually},
};

/// Where the first orderer's folder of the channel was copied to while it was the only consenter.
const COPY: &str = "copy";

/// A channel that began with one orderer, whose folder was copied then, and that has three consenters by now.
async fn grown() -> Network {
    let mut network = Network::new(3, Choices { consenters: 1, ..Choices::default() });
    for index in 0..3 {
        network.start(index).await;
        assert_eq!(network.join(index, network.genesis.encode_to_vec()).await.0, 201);
    }
    network.order(0, &network.message("with one")).await;
    network.stop(0).await;
    copy(&network.channel_folder(0, CHANNEL), &network.folder(0).join(COPY));
    network.start(0).await;
    for index in 1..3 {
        let added = network.consenter(index);
        let with = network.update(0, |root| change_consenters(root, |all| all.push(added))).await;
        network.order(0, &with).await;
        until_voters(&network, &[0, index], index + 1).await;
    }
    network.order(1, &network.message("with three")).await;
    network.block(0, 4).await;
    network
}

/// Puts the copy in the place of what the first orderer, which does not run, has.
fn set_back(network: &Network) {
    let folder = network.channel_folder(0, CHANNEL);
    fs::remove_dir_all(&folder).unwrap();
    copy(&network.folder(0).join(COPY), &folder);
}

/// All three are consenters again and have the same blocks.
async fn until_whole(network: &Network) {
    until_healthy(network, 0).await;
    until_voters(network, &[0, 1, 2], 3).await;
    network.order(0, &network.message("with three again")).await;
    for number in 0..network.height(0).await {
        assert_eq!(
            agreed(&network.block(0, number).await),
            agreed(&network.block(1, number).await),
            "{number}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_from_when_an_orderer_was_alone_is_found_out_and_the_orderer_comes_back_as_a_newcomer() {
    let mut network = grown().await;
    network.stop(0).await;
    set_back(&network);
    network.start(0).await;
    until_whole(&network).await;
    assert_eq!(network.height(0).await, 6, "nothing was ordered with the old copy");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_disk_joined_by_the_genesis_block_that_names_one_consenter_is_found_out() {
    let mut network = grown().await;
    network.stop(0).await;
    fs::remove_dir_all(network.channel_folder(0, CHANNEL)).unwrap();
    network.start(0).await;
    assert_eq!(network.join(0, network.genesis.encode_to_vec()).await.0, 201);
    // Whoever insists all the while does not get anything ordered by it alone.
    network.order(0, &network.message("as soon as it can")).await;
    until_whole(&network).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_copy_that_nobody_could_reach_is_found_out_later_and_comes_back_if_it_ordered_nothing() {
    let mut network = grown().await;
    for index in 0..3 {
        network.stop(index).await;
    }
    set_back(&network);
    network.start(0).await;
    until_healthy(&network, 0).await;
    assert_eq!(network.height(0).await, 2);
    network.start(1).await;
    network.start(2).await;
    until_whole(&network).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_copy_that_has_gone_on_alone_stops_for_good_when_the_others_reach_it() {
    let mut network = grown().await;
    for index in 0..3 {
        network.stop(index).await;
    }
    set_back(&network);
    network.start(0).await;
    network.order(0, &network.message("of another history")).await;
    network.start(1).await;
    network.start(2).await;
    let unhealthy = async |network: &Network| {
        eventually(async || {
            let (status, body) = network.operations(0, "/healthz").await;
            (status == 503 && body.contains("does not fit these books")).then_some(body)
        })
        .await
    };
    assert!(unhealthy(&network).await.contains("consort orderer leave"));
    let refused = network.broadcast(0, network.message("refused")).await;
    assert_eq!(refused.status(), Status::ServiceUnavailable, "{refused:?}");
    network.order(1, &network.message("the others go on")).await;

    // It does not go on alone again, whoever is there.
    network.stop(0).await;
    network.stop(1).await;
    network.stop(2).await;
    network.start(0).await;
    eventually(async || {
        let (status, body) = network.operations(0, "/healthz").await;
        (status == 503 && body.contains("a copy from before they came")).then_some(())
    })
    .await;
    network.start(1).await;
    network.start(2).await;
    unhealthy(&network).await;

    assert_eq!(network.remove(0, CHANNEL).await.0, 204);
    assert_eq!(network.join(0, network.genesis.encode_to_vec()).await.0, 201);
    until_whole(&network).await;
}
