//! An orderer that was the only consenter once, and whose disk does not know of the others.

use std::fs;

use bytes::Bytes;
use consort_crypto::preimage::block_hash;
use consort_protos::{
    consort::orderer::{Introduced, Introduction, cluster_client::ClusterClient},
    fabric::common::{Block, Status},
};
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

/// The first orderer's channel has stopped because of its other history; what its health says.
async fn until_stopped(network: &Network) -> String {
    eventually(async || {
        let (status, body) = network.operations(0, "/healthz").await;
        (status == 503 && body.contains("does not fit these books")).then_some(body)
    })
    .await
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
    assert!(until_stopped(&network).await.contains("consort orderer leave"));
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
    until_stopped(&network).await;

    assert_eq!(network.remove(0, CHANNEL).await.0, 204);
    assert_eq!(network.join(0, network.genesis.encode_to_vec()).await.0, 201);
    until_whole(&network).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_may_have_an_old_copy_go_on_alone_all_the_same() {
    let mut network = grown().await;
    for index in 0..3 {
        network.stop(index).await;
    }
    set_back(&network);
    network.start(0).await;
    network.order(0, &network.message("the others are lost")).await;
    network.start(1).await;
    until_stopped(&network).await;
    network.stop(0).await;
    network.stop(1).await;
    network.start(0).await;
    let (status, answer) = network.recover(0).await;
    assert_eq!(status, 200, "{answer}");
    network.order(0, &network.message("by an operator's word")).await;
    network.stop(0).await;
    network.start(0).await;
    network.order(0, &network.message("for good")).await;
}

fn showing(next: Block, configuration: &Block) -> Introduction {
    let channel = CHANNEL.to_owned();
    Introduction {
        channel,
        configuration: Some(configuration.clone()),
        next: Some(next),
        ..Introduction::default()
    }
}

/// Whoever can connect can introduce himself.
#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_learns_how_many_blocks_a_lone_orderer_has_and_nothing_that_he_shows_moves_it() {
    let network = Network::up(1, Choices::default()).await;
    network.order(0, &network.message("first")).await;
    let newest = network.block(0, 1).await;
    let mut stranger = ClusterClient::new(network.channel_of_stranger(0));
    let question = Introduction { channel: CHANNEL.to_owned(), number: 1, ..Introduction::default() };
    let told = stranger.introduce(question).await.unwrap().into_inner();
    assert_eq!(told, Introduced { listens: true, height: 2, has: false });

    let told = stranger.introduce(showing(newest.clone(), &network.genesis)).await.unwrap().into_inner();
    assert_eq!(told, Introduced { listens: true, ..Introduced::default() }, "it has that block");
    let mut elsewhere = newest.clone();
    elsewhere.header.as_mut().unwrap().previous_hash = Bytes::from_static(&[7; 32]);
    // With the signatures of another block, which it made itself.
    let mut forged = newest.clone();
    let header = forged.header.as_mut().unwrap();
    (header.number, header.previous_hash) = (2, block_hash(newest.header.as_ref().unwrap()).to_vec().into());
    let mut in_the_place_of_its_own = newest;
    in_the_place_of_its_own.header.as_mut().unwrap().data_hash = Bytes::from_static(&[7; 32]);
    for (shown, reason) in [
        (elsewhere, "does not follow one of this channel's"),
        (network.genesis.clone(), "the first block follows none"),
        (forged, "block 2:"),
        (in_the_place_of_its_own, "block 1:"),
    ] {
        let refused = stranger.introduce(showing(shown, &network.genesis)).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused:?}");
        assert!(refused.message().contains(reason), "{refused:?}");
    }
    assert_eq!(network.broadcast(0, network.message("it still leads")).await.status(), Status::Success);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_led_or_leads_others_listens_to_no_stranger() {
    let network = Network::up(3, Choices::default()).await;
    network.order(0, &network.message("first")).await;
    for index in 0..3 {
        let mut stranger = ClusterClient::new(network.channel_of_stranger(index));
        let question = || Introduction { channel: CHANNEL.to_owned(), ..Introduction::default() };
        eventually(async || {
            let told = stranger.introduce(question()).await.unwrap().into_inner();
            (told == Introduced::default()).then_some(())
        })
        .await;
    }
}
