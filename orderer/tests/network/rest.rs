//! Orderers that rest because nobody wants anything, and what ends that.

use std::process::Command;

use crate::support::{CHANNEL, Choices, Network, eventually};

/// Three processes whose clocks run slowly.
async fn resting() -> Network {
    let network = Network::up_as_processes(3, Choices::default()).await;
    network.order(0, &network.message("the last one for long")).await;
    let rests = format!("orderer_raft_rests{{channel=\"{CHANNEL}\"}} 1");
    for index in 0..3 {
        eventually(async || network.operations(index, "/metrics").await.1.contains(&rests).then_some(()))
            .await;
    }
    network
}

fn signal(network: &Network, index: usize, signal: &str) {
    let process = network.process_id(index).to_string();
    assert!(Command::new("kill").args([signal, &process]).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_ends_while_all_rest_is_missed_although_nobody_wants_anything() {
    let mut network = resting().await;
    let leader = network.leader().await;
    network.kill(leader);
    let next = network.leader().await;
    assert_ne!(next, leader);
    network.order(next, &network.message("on goes the channel")).await;
    assert_eq!(network.height(next).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_hangs_while_all_rest_is_missed_with_the_next_message_to_a_follower() {
    let network = resting().await;
    let leader = network.leader().await;
    signal(&network, leader, "-STOP");
    let follower = (leader + 1) % 3;
    network.order(follower, &network.message("on goes the channel")).await;
    signal(&network, leader, "-CONT");
    network.block(leader, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_ordered_at_once_while_all_rest() {
    let network = resting().await;
    for index in 0..3 {
        network.order(index, &network.message(&format!("message {index}"))).await;
    }
    for index in 0..3 {
        network.block(index, 4).await;
    }
}
