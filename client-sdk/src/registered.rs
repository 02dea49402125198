//! A channel's table of identities: who may be named by number in transactions (capability `CONSORT_REGISTERED_IDENTITIES`).

use std::time::Duration;

use bytes::Bytes;
use consort_protos::consort::identities::{
    BlsKey, EntryResult, GetArgs, ListArgs, ListResult, RegisterArgs, RenewArgs, RetireArgs,
};
use consort_protos::fabric::protos::TxValidationCode;
use prost::Message;

pub use consort_protos::consort::identities::{Entry, Status as EntryStatus};

use crate::contract::{Call, Contract};
use crate::error::Error;
use crate::gateway::Network;
use crate::peer_admin::decode;

/// Name of the system chaincode.
pub const IDENTITIES: &str = "_identities";

/// How often a change is tried that meets others; a peer is rarely more than a block behind.
const ATTEMPTS_MAX: usize = 10;

/// Pause before the next attempt: a block or two.
const PAUSE: Duration = Duration::from_millis(200);

/// The table of a channel. Everybody who may read the channel reads it; an organisation's administrators change its entries.
#[derive(Debug, Clone)]
pub struct RegisteredIdentities {
    contract: Contract,
    msp_id: String,
}

impl RegisteredIdentities {
    /// The table of the network's channel; changes need a gateway whose identity is an administrator.
    #[must_use]
    pub fn new(network: &Network) -> Self {
        let msp_id = network.gateway().identity().msp_id().to_owned();
        Self { contract: network.contract(IDENTITIES), msp_id }
    }

    /// Registers a certificate (PEM) of the caller's organisation and waits for the commit. The entry counts from the next
    /// block on.
    ///
    /// # Errors
    /// Those of a transaction: the certificate is not valid in the organisation, or has an entry already.
    pub async fn register(
        &self,
        certificate_pem: impl Into<Bytes>,
        bls: Option<BlsKey>,
    ) -> Result<Entry, Error> {
        self.submit("Register", &RegisterArgs { certificate: certificate_pem.into(), bls }).await
    }

    /// Registers a certificate that takes the place of another entry's. Both count until the old one is retired.
    ///
    /// # Errors
    /// As [`Self::register`], and when the old entry is another organisation's, retired, or renewed already.
    pub async fn renew(
        &self,
        number: u64,
        certificate_pem: impl Into<Bytes>,
        bls: Option<BlsKey>,
    ) -> Result<Entry, Error> {
        self.submit("Renew", &RenewArgs { number, certificate: certificate_pem.into(), bls }).await
    }

    /// Takes an entry out of use for ever.
    ///
    /// # Errors
    /// Those of a transaction: the entry is another organisation's, or retired already.
    pub async fn retire(&self, number: u64) -> Result<Entry, Error> {
        self.submit("Retire", &RetireArgs { number }).await
    }

    /// An entry by its number.
    ///
    /// # Errors
    /// Those of an evaluation; there is no such entry.
    pub async fn get(&self, number: u64) -> Result<Entry, Error> {
        self.evaluate_entry(&GetArgs { number, ..GetArgs::default() }).await
    }

    /// The entry of a certificate (PEM).
    ///
    /// # Errors
    /// Those of an evaluation; the certificate has no entry.
    pub async fn of_certificate(
        &self,
        msp_id: impl Into<String>,
        certificate_pem: impl Into<Bytes>,
    ) -> Result<Entry, Error> {
        let (certificate, msp_id) = (certificate_pem.into(), msp_id.into());
        self.evaluate_entry(&GetArgs { certificate, msp_id, number: 0 }).await
    }

    /// All entries, in the order of their numbers.
    ///
    /// # Errors
    /// Those of an evaluation.
    pub async fn all(&self) -> Result<Vec<Entry>, Error> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let arguments = ListArgs { first: entries.len() as u64, count: 0 };
            let page: ListResult = decode("List", self.call("List", &arguments).evaluate().await?)?;
            let ended = page.entries.is_empty();
            entries.extend(page.entries);
            if ended || entries.len() as u64 >= page.total {
                return Ok(entries);
            }
        }
    }

    async fn evaluate_entry(&self, arguments: &GetArgs) -> Result<Entry, Error> {
        entry("Get", self.call("Get", arguments).evaluate().await?)
    }

    /// Numbers are given one after the other: a change that meets another one, or a peer that is a block behind, is made again.
    async fn submit(&self, function: &'static str, arguments: &impl Message) -> Result<Entry, Error> {
        let mut attempt = 1;
        loop {
            let call = self.call(function, arguments).endorsing_organisations([self.msp_id.as_str()]);
            let committed = call.endorse().await?.submit().await?.committed().await?;
            if committed.code == TxValidationCode::MvccReadConflict && attempt < ATTEMPTS_MAX {
                attempt += 1;
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            return entry(function, committed.into_valid()?.result);
        }
    }

    fn call(&self, function: &str, arguments: &impl Message) -> Call {
        self.contract.call(function).argument(arguments.encode_to_vec())
    }
}

fn entry(function: &'static str, answer: Bytes) -> Result<Entry, Error> {
    let result: EntryResult = decode(function, answer)?;
    result.entry.ok_or_else(|| Error::malformed(function, "the answer has no entry"))
}
