//! How much of the memory the requests of a listener may take, all together.
//!
//! A message may be as large as [`MESSAGE_BYTES_MAX`], and many clients may send one at the same time. So what a message holds
//! beyond a small part is paid from one budget as it arrives, and given back when the call is answered or, on a stream of
//! messages, when the next one is asked for. Nothing is paid for what a client only announces. Whoever finds the budget spent is
//! refused and told to come back: waiting would hold what has arrived already.
//!
//! A client that sends one message hears the refusal when it has sent everything, which is thrown away as it arrives: many clients take the
//! end of a stream that they still write to for a broken connection, and never see the status.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, header};
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tonic::metadata::MetadataValue;

use super::MESSAGE_BYTES_MAX;

/// What all large messages of a listener may hold together: five of the largest, or hundreds of chaincode packages.
const BYTES_MAX: usize = 512 * 1024 * 1024;
/// The part of a message that costs nothing. Nearly all messages are smaller, and pass without touching anything shared.
const FREE_BYTES: usize = 64 * 1024;
/// What is paid at once, so that a large message pays some hundred times and not with every TCP segment.
const STEP_BYTES: usize = 256 * 1024;
/// What is thrown away of a refused request before its stream ends at once: twice the largest message.
const DISCARDED_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;
/// When whoever was refused may come back, in milliseconds; a large message is worked on for about so long.
const PAUSE_MS: u64 = 1_000;
/// Standard trailer for such a pause (gRFC A6).
const PUSHBACK: &str = "grpc-retry-pushback-ms";
/// Before every message: whether it is compressed, and four bytes of length (gRPC over HTTP/2, "Length-Prefixed-Message").
const HEAD_BYTES: usize = 5;

/// The budget of one listener. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Budget(Arc<Semaphore>);

impl Default for Budget {
    fn default() -> Self {
        Self::of(BYTES_MAX)
    }
}

impl Budget {
    fn of(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes / STEP_BYTES)))
    }

    /// A call's account. It must live until the call is answered.
    pub(super) fn account(&self) -> Arc<Account> {
        Arc::new(Account { budget: Arc::clone(&self.0), paid: Mutex::new(None) })
    }
}

/// What one call has paid for its present message; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Account {
    budget: Arc<Semaphore>,
    paid: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Account {
    /// Pays for a message of which so many bytes have arrived.
    fn cover(&self, bytes: usize) -> Result<(), Status> {
        let Some(charged) = bytes.checked_sub(FREE_BYTES) else { return Ok(()) };
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let has = paid.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let lacking = charged.div_ceil(STEP_BYTES).saturating_sub(has);
        if lacking == 0 {
            return Ok(());
        }
        let lacking = u32::try_from(lacking).map_err(|_| spent())?;
        let more = Arc::clone(&self.budget).try_acquire_many_owned(lacking).map_err(|_| spent())?;
        match paid.as_mut() {
            Some(paid) => paid.merge(more),
            None => *paid = Some(more),
        }
        Ok(())
    }

    fn give_back(&self) {
        *self.paid.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn spent() -> Status {
    let mut status = Status::resource_exhausted(format!(
        "the large messages that this node reads have taken its {} MiB for them; try again in {PAUSE_MS} ms",
        BYTES_MAX >> 20
    ));
    status.metadata_mut().insert(PUSHBACK, MetadataValue::from(PAUSE_MS));
    status
}

/// As gRPC for Go says it, which Fabric's clients know.
fn too_large(bytes: usize) -> Status {
    Status::resource_exhausted(format!(
        "grpc: received message larger than max ({bytes} vs. {MESSAGE_BYTES_MAX})"
    ))
}

/// Whether a request's body consists of gRPC messages.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Services whose requests are streams of messages. Elsewhere a request is one message, which counts until it is answered.
const STREAMING: [&str; 4] = [
    "/orderer.AtomicBroadcast/",
    "/consort.orderer.Cluster/",
    "/consort.endorsing.Endorsing/",
    "/protos.Deliver/",
];

/// The body of a gRPC request, whose messages are paid for as they arrive.
pub(super) struct Paid<B> {
    body: B,
    account: Arc<Account>,
    progress: Progress,
    streams: bool,
    /// Why a request is refused, and how many of its bytes may still be thrown away before it hears so.
    refused: Option<(Status, usize)>,
}

impl<B> Paid<B> {
    /// The body of a request to this path.
    pub(super) fn new(body: B, path: &str, account: Arc<Account>) -> Self {
        let streams = STREAMING.iter().any(|service| path.starts_with(service));
        Self { body, account, progress: Progress::default(), streams, refused: None }
    }
}

/// Where in its messages a body is.
#[derive(Debug, Default)]
struct Progress {
    head: [u8; HEAD_BYTES],
    head_bytes: usize,
    /// Of the present message: what has come, and what has not.
    arrived: usize,
    missing: usize,
}

impl Progress {
    fn advance(&mut self, mut data: &[u8], account: &Account) -> Result<(), Status> {
        while !data.is_empty() {
            if self.missing == 0 {
                let part = data.len().min(HEAD_BYTES - self.head_bytes);
                self.head[self.head_bytes..self.head_bytes + part].copy_from_slice(&data[..part]);
                self.head_bytes += part;
                data = &data[part..];
                if self.head_bytes == HEAD_BYTES {
                    self.begin(account)?;
                }
                continue;
            }
            let part = data.len().min(self.missing);
            self.missing -= part;
            self.arrived += part;
            data = &data[part..];
            account.cover(self.arrived)?;
        }
        Ok(())
    }

    /// Gives back what a message cost that has come whole: whoever asks for more of a stream has taken it.
    fn next_is_asked_for(&mut self, account: &Account) {
        if self.missing == 0 && self.head_bytes == 0 && self.arrived > FREE_BYTES {
            account.give_back();
            self.arrived = 0;
        }
    }

    fn begin(&mut self, account: &Account) -> Result<(), Status> {
        let [_, length @ ..] = self.head;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > MESSAGE_BYTES_MAX {
            return Err(too_large(length));
        }
        // A message that began in the same bytes as the one before it ended.
        if self.arrived > FREE_BYTES {
            account.give_back();
        }
        *self = Self { missing: length, ..Self::default() };
        Ok(())
    }
}

impl<B> Body for Paid<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<axum::BoxError>,
{
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        if this.streams {
            this.progress.next_is_asked_for(&this.account);
        }
        loop {
            let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
            if let Some((status, left)) = this.refused.take() {
                let came = frame.and_then(Result::ok).map(|frame| frame.data_ref().map_or(0, Bytes::len));
                match came.and_then(|came| left.checked_sub(came)) {
                    Some(left) => this.refused = Some((status, left)),
                    None => return Poll::Ready(Some(Err(status.into()))),
                }
                continue;
            }
            let frame = match frame {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => return Poll::Ready(None),
            };
            let advanced = frame.data_ref().map_or(Ok(()), |data| this.progress.advance(data, &this.account));
            match advanced {
                Err(status) if !this.streams => this.refused = Some((status, DISCARDED_BYTES_MAX)),
                advanced => return Poll::Ready(Some(advanced.map(|()| frame).map_err(Into::into))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.refused.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    const MIB: usize = 1024 * 1024;

    fn head(length: usize) -> Vec<u8> {
        [vec![0], u32::try_from(length).unwrap().to_be_bytes().to_vec()].concat()
    }

    fn free(budget: &Budget) -> usize {
        budget.0.available_permits() * STEP_BYTES
    }

    #[test]
    fn a_message_pays_for_what_has_arrived_and_not_for_what_it_announces() {
        let budget = Budget::of(8 * MIB);
        let account = budget.account();
        let mut progress = Progress::default();
        progress.advance(&head(6 * MIB), &account).unwrap();
        progress.advance(&[0; FREE_BYTES], &account).unwrap();
        assert_eq!(free(&budget), 8 * MIB);
        progress.advance(&[0; MIB], &account).unwrap();
        assert_eq!(free(&budget), 7 * MIB);
        drop(account);
        assert_eq!(free(&budget), 8 * MIB, "an answered call gives everything back");
    }

    #[test]
    fn when_the_budget_is_spent_a_large_message_is_refused_and_a_small_one_passes() {
        let budget = Budget::of(2 * MIB);
        let (first, second, third) = (budget.account(), budget.account(), budget.account());
        let message = [head(2 * MIB), vec![0; 2 * MIB]].concat();
        Progress::default().advance(&message, &first).unwrap();
        let refused = Progress::default().advance(&message, &second).unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(refused.metadata().get(PUSHBACK).unwrap(), "1000");
        Progress::default().advance(&[head(1_000), vec![0; 1_000]].concat(), &third).unwrap();
        drop(first);
        Progress::default().advance(&message, &second).unwrap();
    }

    #[test]
    fn a_stream_of_messages_pays_for_one_at_a_time_however_it_is_cut() {
        let budget = Budget::of(2 * MIB);
        let account = budget.account();
        let mut progress = Progress::default();
        let messages =
            [head(MIB), vec![0; MIB], head(0), head(MIB), vec![0; MIB], head(7), vec![0; 7]].concat();
        for _ in 0..10 {
            for part in messages.chunks(9_999) {
                progress.advance(part, &account).unwrap();
            }
        }
        assert_eq!((progress.missing, progress.head_bytes), (0, 0));
        assert!(free(&budget) >= MIB, "{}", free(&budget));
    }

    #[tokio::test]
    async fn a_stream_that_is_idle_holds_nothing_and_a_single_request_holds_its_message() {
        let budget = Budget::of(2 * MIB);
        let message = Bytes::from([head(MIB), vec![0; MIB]].concat());
        for (path, held) in
            [("/orderer.AtomicBroadcast/Broadcast", 0), ("/protos.Endorser/ProcessProposal", MIB)]
        {
            let mut body = Paid::new(axum::body::Body::from(message.clone()), path, budget.account());
            let mut frames = 0;
            while let Some(frame) =
                std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
            {
                frame.unwrap();
                frames += 1;
            }
            assert!(frames > 0 && free(&budget) == 2 * MIB - held, "{path}: {}", free(&budget));
        }
        assert_eq!(free(&budget), 2 * MIB);
    }

    #[tokio::test]
    async fn a_refused_request_is_read_to_its_end_and_then_told_so() {
        let parts = futures::stream::iter([head(MESSAGE_BYTES_MAX + 1), vec![0; MIB], vec![0; MIB]]);
        let left = Arc::new(Mutex::new(3));
        let counted = Arc::clone(&left);
        let parts = futures::StreamExt::map(parts, move |part| {
            *counted.lock().unwrap() -= 1;
            Ok::<_, std::convert::Infallible>(Bytes::from(part))
        });
        let budget = Budget::of(2 * MIB);
        let body = axum::body::Body::from_stream(parts);
        let mut body = Paid::new(body, "/protos.Endorser/ProcessProposal", budget.account());
        let frame = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
        let refused = frame.unwrap().unwrap_err();
        assert_eq!(refused.downcast_ref::<Status>().unwrap().code(), Code::ResourceExhausted);
        assert_eq!((*left.lock().unwrap(), free(&budget)), (0, 2 * MIB), "nothing is kept of it");
    }

    #[test]
    fn what_is_larger_than_the_limit_is_refused_by_its_announcement() {
        let account = Budget::default().account();
        let refused = Progress::default().advance(&head(MESSAGE_BYTES_MAX + 1), &account).unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(refused.message(), "grpc: received message larger than max (104857601 vs. 104857600)");
    }
}
