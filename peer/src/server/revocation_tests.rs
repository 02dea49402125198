//! A certificate is revoked by an update of the channel's configuration: every door of a running peer refuses it from then on,
//! and what it signed before stays valid.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use consort_msp::SigningIdentity;
use consort_protos::fabric::common::{Block, ConfigGroup, Envelope, Status as DeliverStatus};
use consort_protos::fabric::gateway::gateway_client::GatewayClient;
use consort_protos::fabric::gateway::{EvaluateRequest, SignedCommitStatusRequest};
use consort_protos::fabric::msp::{FabricMspConfig, MspConfig};
use consort_protos::fabric::protos::deliver_client::DeliverClient;
use consort_protos::fabric::protos::deliver_response::Type;
use consort_protos::fabric::protos::endorser_client::EndorserClient;
use consort_protos::fabric::protos::{CollectionConfigPackage, DeliverResponse, TxValidationCode};
use consort_protos::ids::{BlockNumber, ChannelId};
use prost::Message;
use tonic::{Code, Streaming};

use super::tests::{Prepared, Served, chain_info_by, now};
use crate::testing::{CHANNEL, Network, TransactionBuilder, channel_policy};

/// From the commit of the update to the refusal at every door.
const LIMIT: Duration = Duration::from_secs(5);

/// Puts a list of revoked certificates into Org1's MSP.
fn revoke(root: &mut ConfigGroup, list: &Bytes) {
    let application = root.groups.get_mut("Application").expect("an application group");
    let organisation = application.groups.get_mut("Org1MSP").expect("Org1");
    let value = organisation.values.get_mut("MSP").expect("an MSP");
    let mut msp = MspConfig::decode(value.value.clone()).expect("an MSP");
    let mut fabric = FabricMspConfig::decode(msp.config).expect("an MSP configuration");
    fabric.revocation_list.push(list.clone());
    msp.config = fabric.encode_to_vec().into();
    value.value = msp.encode_to_vec().into();
}

/// A running peer with the blocks that it got.
struct Running {
    served: Served,
    last: Block,
}

impl Running {
    fn network(&self) -> &Network {
        self.served.network()
    }

    async fn commit(&mut self, envelopes: Vec<Bytes>) -> TxValidationCode {
        let next = self.network().block_after(&self.last, envelopes);
        let channel = self.served.peer.channels.get(CHANNEL).expect("joined");
        crate::committer::feed(&channel, [next.clone()]).await;
        let number = BlockNumber::new(next.header.as_ref().expect("a header").number);
        self.last = next;
        let stored = channel.ledger().block(number).expect("readable").expect("stored");
        let flag = consort_protos::block::flags(&stored).expect("codes")[0];
        TxValidationCode::try_from(i32::from(flag)).expect("a code")
    }

    /// A transaction of `basic` by somebody, endorsed by both organisations.
    fn transaction(&self, creator: &Arc<SigningIdentity>) -> TransactionBuilder {
        let endorsers = [&self.network().org1.peer, &self.network().org2.peer];
        TransactionBuilder::new(Arc::clone(creator), "basic").endorsed_by(&endorsers)
    }

    async fn evaluate(&self, who: &SigningIdentity) -> Result<(), tonic::Status> {
        let request = EvaluateRequest {
            transaction_id: String::new(),
            channel_id: CHANNEL.to_owned(),
            proposed_transaction: Some(chain_info_by(who)),
            target_organizations: Vec::new(),
        };
        GatewayClient::new(self.served.connection.clone()).evaluate(request).await.map(drop)
    }

    async fn endorse(&self, who: &SigningIdentity) -> Result<(), tonic::Status> {
        EndorserClient::new(self.served.connection.clone())
            .process_proposal(chain_info_by(who))
            .await
            .map(drop)
    }

    async fn status_of(&self, who: &SigningIdentity, tx_id: &str) -> Result<(), tonic::Status> {
        let request = consort_protos::fabric::gateway::CommitStatusRequest {
            transaction_id: tx_id.to_owned(),
            channel_id: CHANNEL.to_owned(),
            identity: who.serialized().clone(),
        };
        let request = Bytes::from(request.encode_to_vec());
        let signature = who.sign(&request).expect("a signature").into();
        let signed = SignedCommitStatusRequest { request, signature };
        GatewayClient::new(self.served.connection.clone()).commit_status(signed).await.map(drop)
    }

    async fn stream(&self, who: &SigningIdentity) -> Streaming<DeliverResponse> {
        let channel = ChannelId::parse(CHANNEL).expect("a channel");
        let seek: Envelope =
            crate::deliver_client::from_block(&channel, 0, who, Bytes::new(), now()).expect("signed");
        let open = DeliverClient::new(self.served.connection.clone())
            .deliver_filtered(tokio_stream::StreamExt::chain(
                tokio_stream::once(seek),
                tokio_stream::pending(),
            ))
            .await;
        open.expect("a stream").into_inner()
    }
}

/// Blocks until the stream refuses; `None` when it ends otherwise.
async fn refusal(stream: &mut Streaming<DeliverResponse>) -> Option<DeliverStatus> {
    while let Ok(Some(answer)) = stream.message().await {
        if let Some(Type::Status(status)) = answer.r#type {
            return DeliverStatus::try_from(status).ok();
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_certificate_is_refused_at_every_door_and_its_past_stays_valid() {
    let served = Prepared::new().joined().await;
    let last = served.network().genesis.clone();
    let mut running = Running { served, last };
    let leaver = running.network().org1.identity("client");
    let stayer = running.network().org1.identity("client");
    let definition = running.network().definition(
        "basic",
        &channel_policy("/Channel/Application/Endorsement"),
        &CollectionConfigPackage::default(),
    );
    assert_eq!(running.commit(vec![definition.build()]).await, TxValidationCode::Valid);
    let old = running.transaction(&leaver);
    assert_eq!(running.commit(vec![old.build()]).await, TxValidationCode::Valid);
    running.evaluate(&leaver).await.expect("a member");
    running.endorse(&leaver).await.expect("a member");
    running.status_of(&leaver, &old.tx_id()).await.expect("a member");
    let mut live = running.stream(&leaver).await;

    let list = running.network().org1.revocation(&leaver);
    let channel = running.served.peer.channels.get(CHANNEL).expect("joined");
    let update = running.network().configuration(&channel.bundle(), |root| revoke(root, &list));
    assert_eq!(running.commit(vec![update]).await, TxValidationCode::Valid);
    let revoked = Instant::now();

    let refused = running.evaluate(&leaver).await.expect_err("no gateway");
    assert!(
        refused.message().contains("access denied") || refused.code() == Code::PermissionDenied,
        "{refused}"
    );
    let refused = running.endorse(&leaver).await.expect_err("no endorsement");
    assert!(refused.message().contains("access denied"), "{refused}");
    let refused = running.status_of(&leaver, &old.tx_id()).await.expect_err("no commit status");
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(
        refusal(&mut running.stream(&leaver).await).await,
        Some(DeliverStatus::Forbidden),
        "no events"
    );
    let ended = tokio::time::timeout(LIMIT, refusal(&mut live)).await.expect("an open stream ends");
    assert_eq!(ended, Some(DeliverStatus::Forbidden));
    assert!(revoked.elapsed() < LIMIT, "{:?}", revoked.elapsed());

    let fresh = running.transaction(&leaver).build();
    assert_eq!(running.commit(vec![fresh]).await, TxValidationCode::BadCreatorSignature);
    let (_, code) = channel.ledger().transaction(&old.tx_id()).expect("readable").expect("there");
    assert_eq!(code, TxValidationCode::Valid, "what was signed before stays");
    running.evaluate(&stayer).await.expect("others go on");
    let other = running.transaction(&stayer).build();
    assert_eq!(running.commit(vec![other]).await, TxValidationCode::Valid);
    drop((live, channel));
    running.served.stop().await;
}
