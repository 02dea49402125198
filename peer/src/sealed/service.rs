//! The service `consort.sealed.Proxy`: descriptions, shares and answers, at the edge of the proxies.
//!
//! A caller is known by what it signs, not by its connection. Waiting is bounded: a reader asks as soon as its request is
//! committed somewhere, and this peer may come to that block a moment later.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use consort_msp::SigningIdentity;
use consort_node::renewal::Current;
use consort_node::{Clock, Tasks};
use consort_protos::consort::sealed::{
    DepositRequest, DescribeRequest, Description, Party, Question, SignedDescription, SignedFragment,
    SignedQuestion, SignedReceipt, proxy_server,
};
use consort_protos::ids::MspId;
use consort_protos::sealed::{DESCRIPTION_TAG, FRAGMENT_TAG, QUESTION_TAG, RECEIPT_TAG, signed_message};
use prost::Message;
use prost_types::Timestamp;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::books::party;
use super::keys::Keys;
use super::proxy::{Proxy, ProxyFault};
use crate::channel::ChannelHandle;
use crate::gateway::Directory;
use crate::registry::with_causes;

/// How long a call waits for blocks that this peer does not have yet.
const WAIT: Duration = Duration::from_secs(2);
/// Largest question, in bytes: a channel, a transaction id, a certificate, a signature.
const QUESTION_BYTES_MAX: usize = 16 * 1024;

/// What the proxies of a peer share.
pub struct ProxiesSetup {
    /// The folder of keys, shares and fragments.
    pub folder: PathBuf,
    /// Where the peer is reached.
    pub endpoint: String,
    /// Signs descriptions, receipts and answers.
    pub signer: Current<SigningIdentity>,
    /// What other peers say about their heights.
    pub directory: Arc<dyn Directory>,
    /// Judges whether a caller's certificate has expired; nothing about grants.
    pub clock: Arc<dyn Clock>,
}

/// The proxies of a peer, one per channel. A cloneable handle.
#[derive(Clone)]
pub struct Proxies(Arc<Inner>);

struct Inner {
    setup: ProxiesSetup,
    keys: Arc<Keys>,
    by_channel: Mutex<BTreeMap<String, Arc<Proxy>>>,
}

impl std::fmt::Debug for Proxies {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Proxies").field("folder", &self.0.setup.folder).finish_non_exhaustive()
    }
}

impl Proxies {
    /// Proxies with these keys.
    #[must_use]
    pub fn new(setup: ProxiesSetup, keys: Keys) -> Self {
        Self(Arc::new(Inner { setup, keys: Arc::new(keys), by_channel: Mutex::default() }))
    }

    /// Starts the proxy of a joined channel.
    pub fn start(&self, channel: &Arc<ChannelHandle>, tasks: &Tasks) {
        let ProxiesSetup { folder, signer, .. } = &self.0.setup;
        let folder = folder.join("channels").join(channel.id().as_str());
        match Proxy::open(Arc::clone(channel), Arc::clone(&self.0.keys), signer.clone(), &folder) {
            Ok(proxy) => {
                let proxy = Arc::new(proxy);
                self.proxies().insert(channel.id().to_string(), Arc::clone(&proxy));
                tasks.spawn(format!("sealed {}", channel.id()), false, proxy.run(tasks.cancelled()));
            }
            Err(error) => tracing::error!(
                channel = %channel.id(), folder = %folder.display(), %error,
                "the proxy of sealed data does not start; remedy: make the folder writable, and restart the peer"
            ),
        }
    }

    fn proxies(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Proxy>>> {
        self.0.by_channel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, channel: &str) -> Result<Arc<Proxy>, Status> {
        self.proxies()
            .get(channel)
            .cloned()
            .ok_or_else(|| Status::not_found(format!("this peer is no proxy of a channel {channel:?}")))
    }

    /// Signs with what identity and key are now.
    fn sign(&self, tag: &str, bytes: &[u8]) -> Result<(Bytes, Bytes), Status> {
        // Taken once: certificate and key must be those of one identity, also while it is renewed.
        let signer = self.0.setup.signer.get();
        let signature = signer
            .sign(&signed_message(tag, bytes))
            .map_err(|error| Status::internal(format!("the answer cannot be signed: {error}")))?;
        Ok((signer.serialized().clone(), signature.into()))
    }

    fn now(&self) -> Timestamp {
        let now = self.0.setup.clock.now();
        Timestamp {
            seconds: now.unix_timestamp(),
            nanos: i32::try_from(now.nanosecond()).unwrap_or_default(),
        }
    }

    /// Up to which height this peer has to be before it speaks: its own ledger's, and what most organisations have said theirs is. A
    /// peer that was restored from a backup catches up first.
    fn due(&self, proxy: &Proxy) -> u64 {
        let own = proxy.channel().ledger().height();
        let mut heights: BTreeMap<MspId, u64> = BTreeMap::new();
        for member in self.0.setup.directory.members(proxy.channel()) {
            let height = heights.entry(member.msp_id).or_default();
            *height = member.height.max(*height);
        }
        own.max(height_of_most(heights.into_values().collect()))
    }

    /// Tries again with every block until the wait is over.
    async fn patiently<T>(
        &self,
        proxy: &Arc<Proxy>,
        attempt: impl Fn(&Proxy) -> Result<T, ProxyFault> + Clone + Send + 'static,
    ) -> Result<T, Status>
    where
        T: Send + 'static,
    {
        let due = self.due(proxy);
        let deadline = Instant::now() + WAIT;
        let mut progress = proxy.watch_progress();
        loop {
            let height = *progress.borrow_and_update();
            let fault = if height < due {
                Status::unavailable(format!(
                    "this proxy has gone through {height} of {due} blocks and catches up first; ask again"
                ))
            } else {
                let (proxy, attempt) = (Arc::clone(proxy), attempt.clone());
                let tried = tokio::task::spawn_blocking(move || attempt(&proxy))
                    .await
                    .map_err(|error| Status::internal(format!("the call ended unexpectedly: {error}")))?;
                match tried {
                    Ok(done) => return Ok(done),
                    Err(ProxyFault::Unknown(text)) => Status::not_found(text),
                    Err(fault) => return Err(status(&fault)),
                }
            };
            if tokio::time::timeout_at(deadline, progress.changed()).await.is_err() {
                return Err(fault);
            }
        }
    }

    /// Who asks, when its signature holds and it is a member of the channel.
    fn asker(&self, proxy: &Proxy, signed: &SignedQuestion) -> Result<Party, Status> {
        let bundle = proxy.channel().bundle();
        let msps = bundle.msps();
        let refused = |reason: String| Status::permission_denied(format!("the question's signer: {reason}"));
        let identity = msps.deserialize(&signed.identity).map_err(|error| refused(error.to_string()))?;
        msps.validate(&identity).map_err(|error| refused(error.to_string()))?;
        if identity.expires_at() <= self.0.setup.clock.now() {
            return Err(refused("its certificate has expired".to_owned()));
        }
        identity
            .verify(&signed_message(QUESTION_TAG, &signed.question), &signed.signature)
            .map_err(|error| refused(error.to_string()))?;
        Ok(party(&identity))
    }
}

/// The height that most organisations have reached: one organisation that says too much does not matter among three.
fn height_of_most(mut heights: Vec<u64>) -> u64 {
    heights.sort_unstable_by(|one, other| other.cmp(one));
    heights.get(heights.len().saturating_sub(1) / 2).copied().unwrap_or(0)
}

fn status(fault: &ProxyFault) -> Status {
    match fault {
        ProxyFault::Malformed(text) => Status::invalid_argument(text),
        ProxyFault::Unknown(text) => Status::not_found(text),
        ProxyFault::Forbidden(text) => Status::permission_denied(text),
        ProxyFault::Refused(text) => Status::failed_precondition(text),
        ProxyFault::Broken(cause) => {
            tracing::error!(error = %with_causes(cause), "sealed data: a call failed");
            Status::internal("this proxy cannot read its own books; its log says why")
        }
    }
}

#[async_trait]
impl proxy_server::Proxy for Proxies {
    async fn describe(
        &self,
        request: Request<DescribeRequest>,
    ) -> Result<Response<SignedDescription>, Status> {
        let proxy = self.of(&request.get_ref().channel)?;
        let description = Description {
            channel: proxy.channel().id().to_string(),
            peer: Some(proxy.peer()),
            endpoint: self.0.setup.endpoint.clone(),
            keys: self.0.keys.public(),
            height: *proxy.watch_progress().borrow(),
            timestamp: Some(self.now()),
        };
        let description = Bytes::from(description.encode_to_vec());
        let (identity, signature) = self.sign(DESCRIPTION_TAG, &description)?;
        Ok(Response::new(SignedDescription { description, identity, signature }))
    }

    async fn deposit(&self, request: Request<DepositRequest>) -> Result<Response<SignedReceipt>, Status> {
        let deposit = request.into_inner();
        let proxy = self.of(&deposit.channel)?;
        let receipt = self.patiently(&proxy, move |proxy| proxy.deposit(&deposit)).await?;
        let receipt = Bytes::from(receipt.encode_to_vec());
        let (identity, signature) = self.sign(RECEIPT_TAG, &receipt)?;
        Ok(Response::new(SignedReceipt { receipt, identity, signature }))
    }

    async fn answer(&self, request: Request<SignedQuestion>) -> Result<Response<SignedFragment>, Status> {
        let signed = request.into_inner();
        if signed.encoded_len() > QUESTION_BYTES_MAX {
            return Err(Status::invalid_argument(format!(
                "a question has at most {QUESTION_BYTES_MAX} bytes"
            )));
        }
        let question = Question::decode(signed.question.clone())
            .map_err(|error| Status::invalid_argument(format!("the question cannot be read: {error}")))?;
        let proxy = self.of(&question.channel)?;
        let asker = self.asker(&proxy, &signed)?;
        let answer = self.patiently(&proxy, move |proxy| proxy.answer(&question.request, &asker)).await?;
        let answer = Bytes::from(answer.encode_to_vec());
        let (identity, signature) = self.sign(FRAGMENT_TAG, &answer)?;
        Ok(Response::new(SignedFragment { answer, identity, signature }))
    }
}

#[cfg(test)]
mod tests {
    use super::height_of_most;

    #[test]
    fn one_organisation_of_three_cannot_hold_a_proxy_up() {
        assert_eq!(height_of_most(vec![]), 0);
        assert_eq!(height_of_most(vec![7]), 7);
        assert_eq!(height_of_most(vec![5, 7]), 7);
        assert_eq!(height_of_most(vec![5, u64::MAX, 7]), 7);
        assert_eq!(height_of_most(vec![5, 5, u64::MAX, 7]), 7);
    }
}
