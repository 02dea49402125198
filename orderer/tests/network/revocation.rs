//! Consenters whose TLS certificates are revoked by a list in the channel's configuration.

use bytes::Bytes;
use consort_crypto::certificate::Certificate;
use consort_protos::{
    consort::orderer::{StepRequest, cluster_client::ClusterClient, step_request::Content},
    fabric::{
        common::{ConfigGroup, Status},
        msp::{FabricMspConfig, MspConfig},
    },
};
use prost::Message;

use super::support::{CHANNEL, Choices, Network};

/// Puts a list of revoked certificates into the MSP of the orderers.
fn publish(root: &mut ConfigGroup, list: Bytes) {
    let orderer = root.groups.get_mut("Orderer").unwrap();
    let value = orderer.groups.get_mut("OrdererMSP").unwrap().values.get_mut("MSP").unwrap();
    let mut msp = MspConfig::decode(value.value.clone()).unwrap();
    let mut fabric = FabricMspConfig::decode(msp.config).unwrap();
    fabric.revocation_list = vec![list];
    msp.config = fabric.encode_to_vec().into();
    value.value = msp.encode_to_vec().into();
}

fn certificate(network: &Network, index: usize) -> Certificate {
    Certificate::from_pem(&network.consenter(index).client_tls_cert).unwrap()
}

/// What an orderer answers to a Raft message on a connection.
async fn step(connection: tonic::transport::Channel) -> String {
    let content = Some(Content::RaftMessage(vec![1, 2, 3].into()));
    let request = StepRequest { channel: CHANNEL.to_owned(), content, standing: None };
    let mut answers =
        ClusterClient::new(connection).step(tokio_stream::once(request)).await.unwrap().into_inner();
    answers.message().await.unwrap_err().message().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_consenter_takes_no_part_and_a_majority_is_never_revoked() {
    let network = Network::up(3, Choices::default()).await;
    network.order(0, &network.message("before")).await;
    let leader = network.leader().await;
    let (second, third) = ((leader + 1) % 3, (leader + 2) % 3);
    assert_ne!(
        step(network.channel_of(second, leader)).await,
        "",
        "a member's nonsense is refused as nonsense"
    );

    let list = network.orderers.revoke_tls(&[certificate(&network, leader)]);
    let update = network.update(second, |root| publish(root, list)).await;
    network.order(second, &update).await;

    // The others elect one of themselves and go on.
    for (index, text) in [(second, "after, by the second"), (third, "after, by the third")] {
        network.order(index, &network.message(text)).await;
    }
    for connection in [network.channel_of(second, leader), network.channel_of_key(second, leader)] {
        let refused = step(connection).await;
        assert!(refused.contains("The certificate has been revoked"), "{refused}");
    }
    let revoked = [certificate(&network, leader), certificate(&network, second)];
    let list = network.orderers.revoke_tls(&revoked);
    let update = network.update(second, |root| publish(root, list)).await;
    let refused = network.broadcast(third, update).await;
    assert_eq!(refused.status(), Status::BadRequest);
    assert!(refused.info.contains("only 1 of 3 would be left, which is no majority"), "{}", refused.info);
}
