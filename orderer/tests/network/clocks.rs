//! Clocks that jump, and certificates that end.

use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

use consort_node::{Clock, SystemClock};
use consort_protos::fabric::{
    common::ConfigGroup,
    etcdraft::{ConfigMetadata, Consenter},
    orderer::ConsensusType,
};
use prost::Message;
use time::{Duration, OffsetDateTime};

use crate::support::{CHANNEL, Choices, Network, eventually};

/// The machine's clock, set forward or back.
#[derive(Debug, Default)]
struct Jumping(Mutex<Duration>);

impl Jumping {
    fn jump(&self, by: Duration) {
        *self.0.lock().unwrap() += by;
    }
}

impl Clock for Jumping {
    fn now(&self) -> OffsetDateTime {
        SystemClock.now() + *self.0.lock().unwrap()
    }

    fn monotonic(&self) -> Instant {
        SystemClock.monotonic()
    }
}

/// Beyond the end of every certificate here, and far before its beginning.
const JUMPS: [Duration; 2] = [Duration::days(400), Duration::days(-800)];

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_jump_stall_nobody_who_is_connected() {
    let mut network = Network::new(3, Choices::default());
    let clocks: Vec<Arc<Jumping>> = (0..3).map(|_| Arc::default()).collect();
    for (index, clock) in clocks.iter().enumerate() {
        network.start_with(index, Arc::<Jumping>::clone(clock)).await;
        assert_eq!(network.join(index, network.genesis.encode_to_vec()).await.0, 201);
    }
    network.order(0, &network.message("by the right time")).await;
    let leader = network.leader().await;
    for (place, index) in [leader, (leader + 1) % 3].into_iter().enumerate() {
        for (number, jump) in JUMPS.into_iter().enumerate() {
            clocks[index].jump(jump);
            let asked = (leader + 2) % 3;
            network.order(asked, &network.message(&format!("after jump {number} of {place}"))).await;
            network.block(asked, network.height(asked).await - 1).await;
        }
        clocks[index].jump(Duration::days(400));
    }
    assert_eq!(network.leader().await, leader, "no election was needed");
    network.until(leader, CHANNEL, ("consenter", "active", 6)).await;
    network.until((leader + 1) % 3, CHANNEL, ("consenter", "active", 6)).await;
}

/// Waits until so many nodes vote, in the eyes of one of them.
async fn until_voters(network: &Network, asked: usize, voters: usize) {
    eventually(async || {
        let (_, metrics) = network.operations(asked, "/metrics").await;
        metrics.contains(&format!("orderer_raft_voters{{channel=\"mychannel\"}} {voters}")).then_some(())
    })
    .await;
}

/// Puts another consenter in the place of one.
fn replace_consenter(root: &mut ConfigGroup, index: usize, consenter: Consenter) {
    let value = root.groups.get_mut("Orderer").unwrap().values.get_mut("ConsensusType").unwrap();
    let mut consensus = ConsensusType::decode(value.value.clone()).unwrap();
    let mut metadata = ConfigMetadata::decode(consensus.metadata.clone()).unwrap();
    metadata.consenters[index] = consenter;
    consensus.metadata = metadata.encode_to_vec().into();
    value.value = consensus.encode_to_vec().into();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_tls_certificate_is_replaced_by_configuration() {
    // Of four, three can start the channel without the expired one.
    let mut network = Network::up_as_processes(4, Choices { expired: Some(2), ..Choices::default() }).await;
    network.order(0, &network.message("by three")).await;
    network.order(1, &network.message("by three, again")).await;
    assert_eq!(network.describe(2, CHANNEL).await.1["height"], 1, "nobody talks to the expired one");
    network.renew_tls(2);
    let new = network.consenter(2);
    network.order(1, &network.update(0, |root| replace_consenter(root, 2, new)).await).await;
    network.stop(2).await;
    network.start_process(2).await;
    network.until(2, CHANNEL, ("consenter", "active", 4)).await;
    // It votes and acknowledges like the others: three of four go on.
    until_voters(&network, 1, 4).await;
    network.kill(0);
    network.order(2, &network.message("with the new one")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consenter_goes_on_with_a_new_key_and_a_new_certificate() {
    let mut network = Network::up_as_processes(3, Choices::default()).await;
    network.order(0, &network.message("with the old key")).await;
    until_voters(&network, 0, 3).await;
    network.rotate_tls(2);
    let new = network.consenter(2);
    network.order(0, &network.update(0, |root| replace_consenter(root, 2, new)).await).await;
    network.stop(2).await;
    network.start_process(2).await;
    network.until(2, CHANNEL, ("consenter", "active", 3)).await;
    network.kill(0);
    network.order(2, &network.message("the two that are left, one with a new key")).await;
}
