//! A running peer and messages of the largest sizes.

use bytes::Bytes;
use consort_node::server::MESSAGE_BYTES_MAX;
use consort_protos::fabric::gateway::EvaluateRequest;
use consort_protos::fabric::gateway::gateway_client::GatewayClient;
use consort_protos::fabric::protos::SignedProposal;
use consort_protos::fabric::protos::endorser_client::EndorserClient;
use tonic::Code;

use super::tests::{Prepared, chain_info};
use crate::testing::CHANNEL;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_beyond_the_limit_is_refused_and_one_within_it_is_judged() {
    let served = Prepared::new().joined().await;
    let connection = served.connection.clone();
    let of =
        |bytes: usize| SignedProposal { proposal_bytes: Bytes::from(vec![0; bytes]), ..Default::default() };

    let refused = EndorserClient::new(connection.clone()).process_proposal(of(MESSAGE_BYTES_MAX)).await;
    let refused = refused.expect_err("one byte of the head is too much");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().starts_with("grpc: received message larger than max"), "{refused}");

    let evaluate = EvaluateRequest {
        channel_id: CHANNEL.to_owned(),
        proposed_transaction: Some(of(MESSAGE_BYTES_MAX - 1_000)),
        ..EvaluateRequest::default()
    };
    let judged = GatewayClient::new(connection.clone()).evaluate(evaluate).await.expect_err("no proposal");
    assert_eq!(judged.code(), Code::InvalidArgument, "{judged}");

    let fine = EndorserClient::new(connection).process_proposal(chain_info(served.network())).await;
    assert_eq!(fine.expect("the connection goes on").into_inner().response.expect("a response").status, 200);
}
