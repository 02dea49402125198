//! The service `consort.privatedata.PrivateData`: what other peers hand over, and what they ask for.

use std::sync::Arc;

use consort_msp::Identity;
use consort_node::dial::with_causes;
use consort_node::server::PeerCertificate;
use consort_protos::consort::privatedata::body::Content;
use consort_protos::consort::privatedata::private_data_server::PrivateData as PrivateDataService;
use consort_protos::consort::privatedata::{
    Body, Fetch, FetchAnswer, Found, Push, PushAnswer, Signed, Wanted,
};
use consort_protos::ids::{BlockNumber, Height};
use consort_protos::rwset::{PrivateCollection, PrivateReadWriteSet};
use prost::Message;
use tonic::{Request, Response, Status};

use super::collections::Rules;
use super::fetch::WANTED_MAX;
use super::{PrivateData, message};
use crate::channel::ChannelHandle;

/// Bytes of sets in one answer; what does not fit is asked for again. One larger set goes alone.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// Length of a transaction id: a hash of 32 bytes in hexadecimal.
const TX_ID_BYTES: usize = 64;

/// A call whose author is a peer of the channel.
struct Call {
    channel: Arc<ChannelHandle>,
    author: Arc<Identity>,
    content: Content,
}

impl PrivateData {
    fn open(&self, request: Request<Signed>) -> Result<Call, Status> {
        // One text for every reason: who is no member learns nothing, not even which channels exist.
        let denied = || Status::permission_denied("access denied");
        let certificate = request.extensions().get::<PeerCertificate>().cloned();
        let signed = request.into_inner();
        let mut body = Body::decode(signed.body.clone()).map_err(|_| denied())?;
        let content = body.content.take().ok_or_else(denied)?;
        let setup = self.setup();
        let channel = setup.channels.get(&body.channel).ok_or_else(denied)?;
        let own = setup.signer.get().serialized().clone();
        let now = setup.clock.now();
        let author = message::verify(&signed, &body, &channel.bundle(), certificate.as_ref(), &own, now)
            .map_err(|reason| {
                tracing::info!(channel = %channel.id(), %reason, "a call about private data was refused");
                denied()
            })?;
        Ok(Call { channel, author, content })
    }

    /// Keeps what an endorser hands over, when both are members.
    fn keep(&self, channel: &ChannelHandle, author: &Arc<Identity>, push: Push) -> Result<(), Status> {
        let malformed = || Status::invalid_argument("malformed");
        if push.tx_id.len() != TX_ID_BYTES || !push.tx_id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(malformed());
        }
        let sets =
            PrivateReadWriteSet::from_message(push.sets.unwrap_or_default()).map_err(|_| malformed())?;
        let own = self.setup().signer.get().msp_id().clone();
        let mut rules = Rules::new(channel);
        for namespace in &sets.namespaces {
            for set in &namespace.collections {
                let rule = rules.now(&namespace.namespace, set.name()).map_err(Status::internal)?;
                let both =
                    rule.is_some_and(|rule| rule.includes(author) && rule.organisations.contains(&own));
                if !both {
                    tracing::warn!(
                        channel = %channel.id(), author = %author, namespace = %namespace.namespace,
                        collection = set.name(), "private data of a collection without this peer or its sender was refused"
                    );
                    return Err(Status::permission_denied("access denied"));
                }
            }
        }
        let ledger = channel.ledger();
        let internal = |error: consort_ledger::Error| Status::internal(with_causes(&error));
        // It came too late for its block: there it is missing, and searched for.
        if sets.is_empty() || ledger.contains_tx(&push.tx_id).map_err(internal)? {
            return Ok(());
        }
        ledger.transient().put(&push.tx_id, BlockNumber::new(ledger.height()), &sets).map_err(|error| {
            tracing::warn!(channel = %channel.id(), author = %author, error = %with_causes(&error), "private data was not kept");
            Status::resource_exhausted("private data was not kept")
        })
    }

    /// Finds what a member asks for.
    fn find(channel: &ChannelHandle, author: &Arc<Identity>, fetch: &Fetch) -> Result<FetchAnswer, Status> {
        if fetch.wanted.len() > WANTED_MAX {
            return Err(Status::invalid_argument("too many sets"));
        }
        let mut rules = Rules::new(channel);
        let (mut found, mut bytes, mut refused) = (Vec::new(), 0, 0_usize);
        let mut looked_at = 0;
        for (index, wanted) in (0_u32..).zip(&fetch.wanted) {
            let block = BlockNumber::new(wanted.block);
            let collection = (wanted.namespace.as_str(), wanted.collection.as_str());
            if !rules.may_have(author, collection, block).map_err(Status::internal)? {
                refused += 1;
                looked_at += 1;
                continue;
            }
            let Some(set) = held(channel, wanted).map_err(|error| Status::internal(with_causes(&error)))?
            else {
                looked_at += 1;
                continue;
            };
            bytes += set.bytes().len();
            if bytes > ANSWER_BYTES_MAX && !found.is_empty() {
                break;
            }
            looked_at += 1;
            found.push(Found { index, set: set.bytes().clone() });
        }
        if refused > 0 {
            tracing::warn!(
                channel = %channel.id(), author = %author, sets = refused,
                "a peer asked for private data of collections that it is no member of"
            );
            if refused == fetch.wanted.len() {
                return Err(Status::permission_denied("access denied"));
            }
        }
        Ok(FetchAnswer { found, looked_at })
    }
}

/// A set in the books, or waiting for its block.
fn held(
    channel: &ChannelHandle,
    wanted: &Wanted,
) -> Result<Option<PrivateCollection>, consort_ledger::Error> {
    let ledger = channel.ledger();
    let place = Height::new(wanted.block, wanted.transaction);
    if let Some(set) = ledger.private_set(place, &wanted.namespace, &wanted.collection)? {
        return Ok(Some(set));
    }
    let waiting = ledger.transient().sets(&wanted.tx_id)?;
    let hash = ledger.hash_algorithm();
    Ok(waiting
        .iter()
        .filter_map(|sets| sets.collection(&wanted.namespace, &wanted.collection))
        .find(|set| hash.hash(set.bytes())[..] == wanted.hash[..])
        .cloned())
}

/// Runs what reads and writes the disk away from the threads that serve connections.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<Response<T>, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Status::internal("the call ended unexpectedly"))?.map(Response::new)
}

#[tonic::async_trait]
impl PrivateDataService for PrivateData {
    async fn push(&self, request: Request<Signed>) -> Result<Response<PushAnswer>, Status> {
        let private = self.clone();
        blocking(move || {
            let Call { channel, author, content } = private.open(request)?;
            let Content::Push(push) = content else { return Err(Status::invalid_argument("not a push")) };
            private.keep(&channel, &author, push).map(|()| PushAnswer {})
        })
        .await
    }

    async fn fetch(&self, request: Request<Signed>) -> Result<Response<FetchAnswer>, Status> {
        let private = self.clone();
        blocking(move || {
            let Call { channel, author, content } = private.open(request)?;
            let Content::Fetch(fetch) = content else { return Err(Status::invalid_argument("not a fetch")) };
            Self::find(&channel, &author, &fetch)
        })
        .await
    }
}
