//! The peer's block events (`protos.Deliver`): whole blocks, summaries, and blocks with private data.
//!
//! The stream itself is served by [`consort_node::deliver`]; here is what a reader gets of a block, and which policy guards
//! it. Summaries carry no payloads, so that they may be shown to more readers.

mod private;

use std::sync::Arc;

use bytes::Bytes;
use consort_channel_config::ChannelBundle;
use consort_node::deliver::{self, BlockSource, Condition, Deliver, Form, Responses};
use consort_node::dial::with_causes;
use consort_node::server::PeerCertificate;
use consort_node::{Clock, Tasks};
use consort_protos::fabric::common::{Block, Envelope, HeaderType, Status};
use consort_protos::fabric::protos::deliver_response::Type;
use consort_protos::fabric::protos::deliver_server::Deliver as DeliverService;
use consort_protos::fabric::protos::{
    BlockAndPrivateData, ChaincodeEvent, DeliverResponse, FilteredBlock, FilteredChaincodeAction,
    FilteredTransaction, FilteredTransactionActions, filtered_transaction,
};
use consort_protos::ids::BlockNumber;
use tokio::sync::watch;
use tonic::{Request, Response, Streaming};

use crate::channel::{ChannelHandle, CommittedBlock};
use crate::gateway::event_of;
use crate::registry::Channels;

/// Resource that guards whole blocks, with and without private data.
const BLOCKS: &str = "event/Block";
/// Resource that guards summaries.
const FILTERED_BLOCKS: &str = "event/FilteredBlock";

impl deliver::Channels for Channels {
    type Source = ChannelHandle;

    fn source(&self, channel: &str) -> Option<Arc<ChannelHandle>> {
        self.get(channel)
    }
}

impl BlockSource for ChannelHandle {
    fn heights(&self) -> watch::Receiver<u64> {
        self.watch_height()
    }

    fn block(&self, number: BlockNumber) -> Result<Option<Block>, String> {
        self.ledger().block(number).map_err(|error| with_causes(&error))
    }

    fn bundle(&self) -> Arc<ChannelBundle> {
        ChannelHandle::bundle(self)
    }

    fn serves_past(&self) -> bool {
        true
    }

    fn condition(&self) -> watch::Receiver<Condition> {
        self.watch_condition()
    }
}

/// The service.
#[derive(Clone, Debug)]
pub struct BlockEvents {
    deliver: Deliver<Channels>,
}

impl BlockEvents {
    /// `tls_binding`: the listener requires client certificates, so that each request must name the one it came with.
    #[must_use]
    pub fn new(channels: Arc<Channels>, clock: Arc<dyn Clock>, tasks: &Tasks, tls_binding: bool) -> Self {
        Self { deliver: Deliver::new(channels, clock, tasks.clone(), tls_binding) }
    }

    fn serve<F: Form<ChannelHandle>>(
        &self,
        form: F,
        request: Request<Streaming<Envelope>>,
    ) -> Result<Response<Responses<F::Response>>, tonic::Status> {
        let peer = request.extensions().get::<PeerCertificate>().cloned();
        self.deliver.serve(form, request.into_inner(), peer).map(Response::new)
    }
}

#[tonic::async_trait]
impl DeliverService for BlockEvents {
    type DeliverStream = Responses<DeliverResponse>;

    async fn deliver(
        &self,
        request: Request<Streaming<Envelope>>,
    ) -> Result<Response<Self::DeliverStream>, tonic::Status> {
        self.serve(Whole, request)
    }

    type DeliverFilteredStream = Responses<DeliverResponse>;

    async fn deliver_filtered(
        &self,
        request: Request<Streaming<Envelope>>,
    ) -> Result<Response<Self::DeliverFilteredStream>, tonic::Status> {
        self.serve(Filtered, request)
    }

    type DeliverWithPrivateDataStream = Responses<DeliverResponse>;

    async fn deliver_with_private_data(
        &self,
        request: Request<Streaming<Envelope>>,
    ) -> Result<Response<Self::DeliverWithPrivateDataStream>, tonic::Status> {
        self.serve(WithPrivateData, request)
    }
}

fn response(content: Type) -> DeliverResponse {
    DeliverResponse { r#type: Some(content) }
}

fn status(status: Status) -> DeliverResponse {
    response(Type::Status(status as i32))
}

/// Blocks as they are stored.
struct Whole;

impl Form<ChannelHandle> for Whole {
    type Response = DeliverResponse;

    fn policy<'a>(&self, bundle: &'a ChannelBundle) -> &'a str {
        bundle.acl(BLOCKS)
    }

    fn status(&self, code: Status) -> DeliverResponse {
        status(code)
    }

    fn block(&self, _: &ChannelHandle, block: Block, _: &Bytes) -> Result<DeliverResponse, String> {
        Ok(response(Type::Block(block)))
    }
}

/// Summaries.
struct Filtered;

impl Form<ChannelHandle> for Filtered {
    type Response = DeliverResponse;

    fn policy<'a>(&self, bundle: &'a ChannelBundle) -> &'a str {
        bundle.acl(FILTERED_BLOCKS)
    }

    fn status(&self, code: Status) -> DeliverResponse {
        status(code)
    }

    fn block(&self, source: &ChannelHandle, block: Block, _: &Bytes) -> Result<DeliverResponse, String> {
        Ok(response(Type::FilteredBlock(filtered(source.id().as_str(), &CommittedBlock::from_stored(block)))))
    }
}

/// Blocks with the private data that this peer holds and that the reader may see.
struct WithPrivateData;

impl Form<ChannelHandle> for WithPrivateData {
    type Response = DeliverResponse;

    fn policy<'a>(&self, bundle: &'a ChannelBundle) -> &'a str {
        bundle.acl(BLOCKS)
    }

    fn status(&self, code: Status) -> DeliverResponse {
        status(code)
    }

    fn block(&self, source: &ChannelHandle, block: Block, reader: &Bytes) -> Result<DeliverResponse, String> {
        let private_data_map = private::readable(source, consort_protos::block::number(&block), reader)?;
        let content = BlockAndPrivateData { block: Some(block), private_data_map };
        Ok(response(Type::BlockAndPrivateData(content)))
    }
}

/// The summary of a block: ids, kinds and codes of its transactions, and their chaincode events without payloads.
fn filtered(channel: &str, block: &CommittedBlock) -> FilteredBlock {
    let transactions = block.transactions().iter().zip(block.codes()).map(|(transaction, code)| {
        let Some(transaction) = transaction else {
            // The genesis block's configuration has no creator, and so does not open as a transaction.
            let config = consort_protos::block::is_config(block.block());
            let kind = if config { HeaderType::Config } else { HeaderType::Message };
            return FilteredTransaction {
                r#type: kind as i32,
                tx_validation_code: *code as i32,
                ..FilteredTransaction::default()
            };
        };
        let actions = event_of(transaction).map(|event| FilteredChaincodeAction {
            chaincode_event: Some(ChaincodeEvent { payload: Bytes::new(), ..event.clone() }),
        });
        let data = (transaction.kind == HeaderType::EndorserTransaction).then(|| {
            filtered_transaction::Data::TransactionActions(FilteredTransactionActions {
                chaincode_actions: actions.into_iter().collect(),
            })
        });
        FilteredTransaction {
            txid: transaction.tx_id.clone(),
            r#type: transaction.kind as i32,
            tx_validation_code: *code as i32,
            data,
        }
    });
    FilteredBlock {
        channel_id: channel.to_owned(),
        number: block.number().get(),
        filtered_transactions: transactions.collect(),
    }
}

#[cfg(test)]
mod tests {
    use consort_protos::fabric::protos::TxValidationCode;

    use std::time::Duration;

    use consort_msp::SigningIdentity;
    use consort_node::{ManualClock, SystemClock};
    use futures::StreamExt;
    use time::OffsetDateTime;
    use time::macros::datetime;

    use super::*;
    use crate::committer::golden_block;
    use crate::deliver_client::from_block;
    use crate::testing::configuration::guard;
    use crate::testing::{Network, TestChannel};

    const NOW: OffsetDateTime = datetime!(2026-01-01 00:00 UTC);

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_reader_that_takes_nothing_is_dropped_with_the_reason() {
        let mut test = TestChannel::new().await;
        for _ in 0..12 {
            let envelope = test.basic().build();
            test.commit(vec![envelope]).await;
        }
        let tasks = Tasks::new();
        let clock = Arc::new(SystemClock);
        let deliver = Deliver::new(Arc::clone(&test.channels), clock, tasks.clone(), false)
            .slow_reader_wait(Duration::from_millis(20));
        let signer = &test.network.org1.peer;
        let request =
            from_block(test.channel.id(), 0, signer, Bytes::new(), SystemClock.now()).expect("signed");
        let requests = futures::stream::iter([Ok(request)]).chain(futures::stream::pending());
        let answers = deliver.serve(Whole, requests.boxed(), None).expect("served");
        tokio::time::timeout(Duration::from_secs(20), async {
            while !answers.is_over() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the stream's task ends although nothing is taken");
        let answers: Vec<_> = answers.collect().await;
        tasks.shutdown(Duration::from_secs(10)).await.expect("everything ends");
        let (last, blocks) = answers.split_last().expect("answers");
        assert!(blocks.iter().all(Result::is_ok) && blocks.len() < 13, "{} blocks", blocks.len());
        let reason = last.as_ref().expect_err("the last word is the reason");
        assert_eq!(reason.code(), tonic::Code::ResourceExhausted);
        assert!(reason.message().contains("no block was taken"), "{reason}");
    }

    /// What a reader gets first of the channel's blocks in a form.
    async fn first<F>(test: &TestChannel, form: F, reader: &SigningIdentity) -> Type
    where
        F: Form<ChannelHandle, Response = DeliverResponse>,
    {
        let clock = Arc::new(ManualClock::new(NOW));
        let request = from_block(test.channel.id(), 0, reader, Bytes::new(), NOW).expect("signed");
        answer(test, form, request, clock).await
    }

    /// What is answered first to a request at a time.
    async fn answer<F>(test: &TestChannel, form: F, request: Envelope, clock: Arc<dyn Clock>) -> Type
    where
        F: Form<ChannelHandle, Response = DeliverResponse>,
    {
        let tasks = Tasks::new();
        let deliver = Deliver::new(Arc::clone(&test.channels), clock, tasks.clone(), false);
        let requests = futures::stream::iter([Ok(request)]).chain(futures::stream::pending());
        let mut answers = deliver.serve(form, requests.boxed(), None).expect("served");
        let first = answers.next().await.expect("an answer").expect("a message").r#type.expect("content");
        drop(answers);
        tasks.shutdown(Duration::from_secs(10)).await.expect("everything ends");
        first
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn requests_that_come_late_early_or_with_an_expired_certificate_get_fabrics_statuses() {
        const AGES: Duration = Duration::from_secs(3_000 * 366 * 24 * 3600);
        let test = TestChannel::new().await;
        let client = Arc::clone(&test.network.org1.client);
        let at = |time: OffsetDateTime| {
            from_block(test.channel.id(), 0, &client, Bytes::new(), time).expect("signed")
        };
        let clock = || Arc::new(ManualClock::new(NOW));
        let status = |answer: Type| match answer {
            Type::Status(code) => Status::try_from(code).expect("a status"),
            other => panic!("blocks: {other:?}"),
        };
        for minutes in [-16, 16] {
            let request = at(NOW + time::Duration::minutes(minutes));
            assert_eq!(status(answer(&test, Whole, request, clock()).await), Status::BadRequest);
        }
        let near = at(NOW - time::Duration::minutes(14));
        assert!(matches!(answer(&test, Whole, near, clock()).await, Type::Block(_)));
        let later = clock();
        later.advance(AGES);
        let request = at(later.now());
        assert_eq!(status(answer(&test, Whole, request, later).await), Status::Forbidden);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn blocks_and_summaries_are_guarded_each_as_the_channel_says() {
        const GUARD: &str = "/Channel/Application/Org1MSP/Admins";
        let refused =
            |answer: &Type| matches!(answer, Type::Status(code) if *code == Status::Forbidden as i32);
        let network = Network::altered(&[], |root| guard(root, &[BLOCKS], GUARD));
        let test = TestChannel::of(network).await;
        let (client, admin) = (Arc::clone(&test.network.org1.client), test.network.org1.identity("admin"));
        assert!(refused(&first(&test, Whole, &client).await));
        assert!(refused(&first(&test, WithPrivateData, &client).await));
        assert!(matches!(first(&test, Filtered, &client).await, Type::FilteredBlock(_)));
        assert!(matches!(first(&test, Whole, &admin).await, Type::Block(_)));
        assert!(matches!(first(&test, WithPrivateData, &admin).await, Type::BlockAndPrivateData(_)));
        let network = Network::altered(&[], |root| guard(root, &[FILTERED_BLOCKS], GUARD));
        let test = TestChannel::of(network).await;
        let client = Arc::clone(&test.network.org1.client);
        assert!(refused(&first(&test, Filtered, &client).await));
        assert!(matches!(first(&test, Whole, &client).await, Type::Block(_)));
    }

    #[test]
    fn a_summary_has_every_transaction_and_no_payload() {
        // Block 30 of the golden channel sets an event, block 40 has three transactions with codes 0, 11 and 11.
        let summary = filtered("mychannel", &CommittedBlock::from_stored(golden_block(30)));
        let Some(filtered_transaction::Data::TransactionActions(actions)) =
            &summary.filtered_transactions[0].data
        else {
            panic!("an endorser transaction has actions")
        };
        let event = actions.chaincode_actions[0].chaincode_event.as_ref().expect("an event");
        assert!(event.payload.is_empty() && !event.event_name.is_empty());
        let summary = filtered("mychannel", &CommittedBlock::from_stored(golden_block(40)));
        let codes: Vec<i32> =
            summary.filtered_transactions.iter().map(|transaction| transaction.tx_validation_code).collect();
        let conflict = TxValidationCode::MvccReadConflict as i32;
        assert_eq!(codes, [0, conflict, conflict]);
        assert!(summary.filtered_transactions.iter().all(|transaction| transaction.txid.len() == 64));
    }
}
