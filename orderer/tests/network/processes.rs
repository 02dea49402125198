//! Orderer processes that are killed, stopped and started again under load.

use crate::{
    load::{Load, assert_nothing_lost},
    support::{Choices, Network},
};

/// Messages between two events, so that each finds a busy network.
const BETWEEN: usize = 40;

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_of_the_leader_and_of_followers_loses_nothing_that_was_acknowledged() {
    let mut network = Network::up_as_processes(3, Choices::default()).await;
    network.order(0, &network.message("the first")).await;
    let load = Load::start(&network, 3);
    load.progress(BETWEEN).await;
    for round in 0..4 {
        let leader = network.leader().await;
        let victim = if round % 2 == 0 { leader } else { (leader + 1) % 3 };
        network.kill(victim);
        load.progress(BETWEEN).await;
        network.start_process(victim).await;
        load.progress(BETWEEN).await;
    }
    // All at once, as in a power cut.
    for index in 0..3 {
        network.kill(index);
    }
    for index in 0..3 {
        network.start_process(index).await;
    }
    load.progress(BETWEEN).await;
    let acknowledged = load.end().await;
    assert_nothing_lost(&network, &[0, 1, 2], &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_fails_no_message_of_a_client_that_asks_again() {
    let mut network = Network::up_as_processes(3, Choices::default()).await;
    network.order(0, &network.message("the first")).await;
    let load = Load::start(&network, 3);
    for index in 0..3 {
        load.progress(BETWEEN).await;
        network.stop(index).await;
        // The one that a client asks may be down, the others must take its message within the patience of the test.
        network.order((index + 1) % 3, &network.message(&format!("while {index} is down"))).await;
        network.start_process(index).await;
    }
    load.progress(BETWEEN).await;
    let acknowledged = load.end().await;
    assert_nothing_lost(&network, &[0, 1, 2], &acknowledged).await;
    assert!(!network.log(0).contains("panicked"), "{}", network.log(0));
}
