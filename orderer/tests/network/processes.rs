//! Orderer processes that are killed, stopped and started again under load.

use std::{path::Path, process::Command};

use consort_protos::fabric::common::{HeaderType, Status};
use prost::Message;

use crate::{
    load::{Load, assert_nothing_lost},
    support::{CHANNEL, Choices, Namespaces, Network, eventually, sign},
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

#[tokio::test(flavor = "multi_thread")]
async fn partitions_lose_nothing_and_the_cut_off_orderer_acknowledges_nothing() {
    let network = Network::up_as_processes(3, Choices { links: true, ..Choices::default() }).await;
    cut_leaders_off(network, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_between_network_namespaces_lose_nothing_either() {
    let namespaces = match Namespaces::new(3) {
        Ok(namespaces) => namespaces,
        Err(reason) => {
            eprintln!("skipped: this machine makes no network namespaces (root is needed): {reason}");
            return;
        }
    };
    let choices = Choices { namespaces: Some(namespaces), ..Choices::default() };
    let network = Network::up_as_processes(3, choices).await;
    cut_leaders_off(network, 2).await;
}

/// Cuts off whoever leads, again and again, under load: the others go on, it says that it cannot, and catches up when it is connected again.
async fn cut_leaders_off(mut network: Network, times: usize) {
    network.order(0, &network.message("the first")).await;
    let load = Load::start(&network, 3);
    for _ in 0..times {
        load.progress(BETWEEN).await;
        let leader = network.leader().await;
        network.cut(leader, true);
        let other = (leader + 1) % 3;
        network.order(other, &network.message("behind the cut")).await;
        // Once it knows that it is alone, it says so.
        eventually(async || {
            let answer = network.broadcast(leader, network.message("to the one that is alone")).await;
            assert_ne!(answer.status(), Status::Success, "{answer:?}");
            Some(())
        })
        .await;
        load.progress(BETWEEN).await;
        network.cut(leader, false);
    }
    load.progress(BETWEEN).await;
    let acknowledged = load.end().await;
    assert_nothing_lost(&network, &[0, 1, 2], &acknowledged).await;
    network.stop(0).await;
}

/// A small disk that ends with the test.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    /// Puts a disk of so many megabytes over a folder and copies into it what the folder holds; the reason when the machine forbids it.
    fn over(folder: &'a Path, megabytes: u32) -> Result<Self, String> {
        let aside = folder.with_extension("aside");
        std::fs::rename(folder, &aside).unwrap();
        std::fs::create_dir(folder).unwrap();
        let options = format!("size={megabytes}m");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(folder)
            .output()
            .unwrap();
        if !mount.status.success() {
            return Err(String::from_utf8_lossy(&mount.stderr).into_owned());
        }
        let disk = Self(folder);
        let copied = Command::new("cp").arg("-a").arg(aside.join(".")).arg(folder).status().unwrap();
        assert!(copied.success());
        Ok(disk)
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        // The processes have ended by now; should one hang on, the lazy way still detaches the folder.
        let _detached = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_that_channel_loudly_and_nothing_else() {
    let mut network = Network::up_as_processes(3, Choices::default()).await;
    let second = network.genesis_of("second");
    assert_eq!(network.join(0, second.encode_to_vec()).await.0, 201);
    network.order(0, &network.message("the first")).await;
    network.until(0, CHANNEL, ("consenter", "active", 2)).await;
    network.stop(0).await;
    let folder = network.channel_folder(0, CHANNEL);
    let disk = match SmallDisk::over(&folder, 24) {
        Ok(disk) => disk,
        Err(reason) => {
            eprintln!("skipped: this machine mounts no small disk (root is needed): {reason}");
            return;
        }
    };
    network.start_process(0).await;
    let mut acknowledged = Vec::new();
    // Nothing that could be compressed.
    let big: String = (0..32 * 1024).map(|_| format!("{:016x}", rand::random::<u64>())).collect();
    let mut number = 0;
    let health = eventually(async || {
        number += 1;
        let message = network.message(&format!("{number} {big}"));
        let response = network.broadcast(usize::from(number % 2 == 0), message.clone()).await;
        if response.status() == Status::Success {
            acknowledged.push(message.encode_to_vec().into());
        }
        let (status, health) = network.operations(0, "/healthz").await;
        (status == 503 && health.contains("No space left")).then_some(health)
    })
    .await;
    assert!(health.contains(&format!("{CHANNEL}: ")), "{health}");
    assert!(network.log(0).contains("the channel stops on this orderer"));
    assert_eq!(network.describe(0, CHANNEL).await.1["status"], "failed");
    let client = network.members.identity("client");
    let other = sign(&client, "second", HeaderType::EndorserTransaction, b"elsewhere".to_vec());
    eventually(async || {
        let answer = network.broadcast(1, network.message("on two orderers")).await;
        (answer.status() == Status::Success).then_some(())
    })
    .await;
    // The other channel of that orderer has a disk of its own here; it is one of three consenters that never came up, so it only answers.
    let answer = network.broadcast(0, other).await;
    assert_eq!((answer.status(), answer.info.as_str()), (Status::ServiceUnavailable, "no Raft leader"));
    assert_nothing_lost(&network, &[1, 2], &acknowledged).await;
    network.kill(0);
    drop(disk);
}
