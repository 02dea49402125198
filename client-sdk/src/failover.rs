//! Several gateways as one: what one of them cannot do now, another one does, and a transaction is never made twice.
//!
//! Before the client's signature nothing has happened, so a call may begin anew elsewhere. From then on the envelope is
//! what is repeated: its transaction id counts once in a channel however often orderers receive it, and every gateway can
//! tell what became of it. So a lost answer costs a question, never a second transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use consort_crypto::hash::HashAlgorithm;

use crate::connection::Endpoint;
use crate::contract::{Call, Contract};
use crate::error::Error;
use crate::gateway::{Deadlines, Gateway, Network};
use crate::identity::ClientIdentity;
use crate::transaction::{Committed, Endorsed};

/// How often and how fast to try again.
#[derive(Debug, Clone, Copy)]
pub struct Retries {
    /// Attempts for each step, over all gateways together.
    pub attempts: usize,
    /// Pause before the second attempt; it doubles from one to the next.
    pub pause: Duration,
    /// Longest pause.
    pub pause_max: Duration,
}

impl Default for Retries {
    /// Six attempts in about six seconds: longer than orderers need to elect a leader.
    fn default() -> Self {
        Self { attempts: 6, pause: Duration::from_millis(200), pause_max: Duration::from_secs(5) }
    }
}

/// Several gateways, usually the peers of the application's organisation. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gateways {
    gateways: Arc<Vec<Gateway>>,
    /// The one that answered last.
    preferred: Arc<AtomicUsize>,
    retries: Retries,
    hash: HashAlgorithm,
}

impl Gateways {
    /// Prepares connections to all of them; they open when they are needed.
    ///
    /// # Errors
    /// [`Error::Address`] or TLS roots that cannot be read; [`Error::NoGateway`] for an empty list.
    pub fn new(endpoints: &[Endpoint], identity: &ClientIdentity, retries: Retries) -> Result<Self, Error> {
        let connect = |endpoint: &Endpoint| {
            Ok(Gateway::new(endpoint.connect_lazily()?, identity.clone(), Deadlines::default()))
        };
        Self::of(endpoints.iter().map(connect).collect::<Result<_, Error>>()?, retries)
    }

    /// Uses gateways that exist already; all must have the same identity.
    ///
    /// # Errors
    /// [`Error::NoGateway`] for an empty list.
    pub fn of(gateways: Vec<Gateway>, retries: Retries) -> Result<Self, Error> {
        if gateways.is_empty() {
            return Err(Error::NoGateway);
        }
        let hash = HashAlgorithm::Sha256;
        Ok(Self { gateways: Arc::new(gateways), preferred: Arc::default(), retries, hash })
    }

    /// Uses another hash than SHA-256: that of the channels to be worked on ([`Network::with_hash`]).
    #[must_use]
    pub fn with_hash(mut self, hash: HashAlgorithm) -> Self {
        self.hash = hash;
        self
    }

    fn network(&self, gateway: &Gateway, channel: &str) -> Network {
        gateway.network(channel).with_hash(self.hash)
    }

    /// Evaluates a call at the first gateway that can.
    ///
    /// # Errors
    /// The last gateway's error, when none can; at once what another gateway would only repeat.
    pub async fn evaluate(
        &self,
        channel: &str,
        chaincode: &str,
        call: impl Fn(&Contract) -> Call,
    ) -> Result<Bytes, Error> {
        let call = &call;
        self.attempt(|gateway| async move {
            call(&self.network(&gateway, channel).contract(chaincode)).evaluate().await
        })
        .await
    }

    /// Endorses, submits and waits until the outcome is known. A committed transaction may be invalid: its code says so.
    ///
    /// # Errors
    /// [`Error::Unknown`] when the transaction may or may not be ordered still and no gateway can tell; the id in it can be
    /// asked about later ([`crate::Network::commit_status`]). Every other error means that nothing was ordered.
    pub async fn submit(
        &self,
        channel: &str,
        chaincode: &str,
        call: impl Fn(&Contract) -> Call,
    ) -> Result<Committed, Error> {
        let call = &call;
        let endorsed = self.attempt(|gateway| async move {
            call(&self.network(&gateway, channel).contract(chaincode)).endorse().await
        });
        self.finish(channel, endorsed.await?).await
    }

    /// Submits an endorsed transaction, as often as needed, and waits until the outcome is known.
    ///
    /// # Errors
    /// As [`Gateways::submit`].
    pub async fn finish(&self, channel: &str, endorsed: Endorsed) -> Result<Committed, Error> {
        let (tx_id, result) = (endorsed.tx_id().to_owned(), endorsed.result().clone());
        let signed = &endorsed.sign()?;
        // No answer does not mean that no orderer has it.
        let perhaps_ordered = &AtomicBool::new(false);
        let submitted = self
            .attempt(|gateway| async move {
                let answer = signed.submit_through(&gateway).await;
                if answer.as_ref().is_err_and(|error| error.is_transient() && !error.was_never_taken()) {
                    perhaps_ordered.store(true, Ordering::Relaxed);
                }
                answer
            })
            .await;
        let tx_id = &tx_id;
        let asked = match submitted {
            Ok(()) => {
                self.attempt(|gateway| async move { gateway.network(channel).commit_status(tx_id).await })
                    .await
            }
            Err(error) if !perhaps_ordered.load(Ordering::Relaxed) => return Err(error),
            // Nobody confirmed it, so it is waited for once, not as often as the attempts allow.
            Err(_) => {
                let last = self.preferred.load(Ordering::Relaxed) % self.gateways.len();
                self.gateways[last].network(channel).commit_status(tx_id).await
            }
        };
        match asked {
            Ok(committed) => Ok(Committed { result, ..committed }),
            Err(source) => Err(Error::Unknown { tx_id: tx_id.clone(), source: Box::new(source) }),
        }
    }

    /// Tries a step at one gateway after the other, and again after a pause.
    async fn attempt<T, F>(&self, step: impl Fn(Gateway) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let count = self.gateways.len();
        let mut pause = self.retries.pause;
        let first = self.preferred.load(Ordering::Relaxed);
        for attempt in 0.. {
            let index = (first + attempt) % count;
            let error = match step(self.gateways[index].clone()).await {
                Ok(value) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Ok(value);
                }
                Err(error) => error,
            };
            if !error.is_transient() || attempt + 1 >= self.retries.attempts {
                return Err(error);
            }
            // The others are asked at once; only when all have failed is there something to wait for.
            if (attempt + 1) % count == 0 {
                let asked = error.retry_after().unwrap_or_default();
                tokio::time::sleep(pause.max(asked).min(self.retries.pause_max)).await;
                pause = (pause * 2).min(self.retries.pause_max);
            }
        }
        Err(Error::NoGateway)
    }
}
