//! The steps of a transaction, each a type that only the step before can make:
//! [`Proposal`] → [`Endorsed`] → [`Submitted`] → [`Committed`].

use bytes::Bytes;
use consort_protos::fabric::common::Envelope;
use consort_protos::fabric::gateway::{
    CommitStatusRequest, EndorseRequest, EvaluateRequest, SignedCommitStatusRequest, SubmitRequest,
};
use consort_protos::fabric::protos::{SignedProposal, TxValidationCode};
use consort_protos::transaction::{Body, Transaction};
use prost::Message;
use tonic::Request;

use crate::error::Error;
use crate::gateway::{Gateway, Network};

/// Smallest status that means failure (Fabric `core/endorser`: 400 and above are not endorsed).
const ERROR_STATUS: i32 = 400;

/// A signed proposal.
#[derive(Debug, Clone)]
pub struct Proposal {
    pub(crate) network: Network,
    pub(crate) tx_id: String,
    pub(crate) signed: SignedProposal,
    pub(crate) chaincode: String,
    pub(crate) function: String,
    pub(crate) organisations: Vec<String>,
}

impl Proposal {
    /// The transaction id.
    #[must_use]
    pub fn tx_id(&self) -> &str {
        &self.tx_id
    }

    /// Runs the function on one peer and returns its result; the ledger does not change.
    ///
    /// # Errors
    /// [`Error::Refused`] with the gateway's details, [`Error::Chaincode`] when the function answers with an error.
    pub async fn evaluate(self) -> Result<Bytes, Error> {
        let inner = &self.network.gateway().inner;
        let mut request = Request::new(EvaluateRequest {
            transaction_id: self.tx_id,
            channel_id: self.network.channel().to_owned(),
            proposed_transaction: Some(self.signed),
            target_organizations: self.organisations,
        });
        request.set_timeout(inner.deadlines.evaluate);
        let answer = inner.client.clone().evaluate(request).await;
        let answer = answer.map_err(|status| Error::refused("evaluate", &status))?.into_inner();
        let response = answer.result.ok_or_else(|| Error::malformed("evaluate", "no result"))?;
        if response.status >= ERROR_STATUS {
            return Err(Error::Chaincode {
                chaincode: self.chaincode,
                function: self.function,
                status: response.status,
                message: response.message,
            });
        }
        Ok(response.payload)
    }

    /// Has the proposal run and signed by enough endorsers.
    ///
    /// # Errors
    /// [`Error::Refused`] with one detail for every endorser that was asked.
    pub async fn endorse(self) -> Result<Endorsed, Error> {
        let inner = &self.network.gateway().inner;
        let mut request = Request::new(EndorseRequest {
            transaction_id: self.tx_id.clone(),
            channel_id: self.network.channel().to_owned(),
            proposed_transaction: Some(self.signed),
            endorsing_organizations: self.organisations,
        });
        request.set_timeout(inner.deadlines.endorse);
        let answer = inner.client.clone().endorse(request).await;
        let answer = answer.map_err(|status| Error::refused("endorse", &status))?.into_inner();
        let envelope = answer
            .prepared_transaction
            .ok_or_else(|| Error::malformed("endorse", "no prepared transaction"))?;
        let (result, endorsers) = open(&envelope)?;
        Ok(Endorsed { network: self.network, tx_id: self.tx_id, envelope, result, endorsers })
    }
}

/// What the endorsed transaction returns, and who endorsed it.
fn open(envelope: &Envelope) -> Result<(Bytes, Vec<Bytes>), Error> {
    let transaction = Transaction::open(envelope.encode_to_vec().into())
        .map_err(|rejection| Error::malformed("endorse", rejection.reason))?;
    let body = transaction.body.map_err(|rejection| Error::malformed("endorse", rejection.reason))?;
    let Body::Endorser(body) = body else {
        return Err(Error::malformed("endorse", "the prepared transaction is no endorser transaction"));
    };
    let endorsers = body.endorsements.iter().map(|endorsement| endorsement.endorser.clone()).collect();
    let invocation = body.invocation.map_err(|rejection| Error::malformed("endorse", rejection.reason))?;
    let response = invocation.action.response.unwrap_or_default();
    Ok((response.payload, endorsers))
}

/// A transaction that endorsers have signed and the client has not yet.
#[derive(Debug, Clone)]
pub struct Endorsed {
    network: Network,
    tx_id: String,
    envelope: Envelope,
    result: Bytes,
    endorsers: Vec<Bytes>,
}

impl Endorsed {
    /// The transaction id.
    #[must_use]
    pub fn tx_id(&self) -> &str {
        &self.tx_id
    }

    /// What the chaincode function returned.
    #[must_use]
    pub fn result(&self) -> &Bytes {
        &self.result
    }

    /// The endorsers' identities as they stand in the transaction (`msp.SerializedIdentity`).
    #[must_use]
    pub fn endorsers(&self) -> &[Bytes] {
        &self.endorsers
    }

    /// Signs the transaction and hands it to the ordering service.
    ///
    /// # Errors
    /// [`Error::Refused`] when no orderer takes it; [`Error::Sign`].
    pub async fn submit(self) -> Result<Submitted, Error> {
        self.sign()?.submit().await
    }

    /// What is to be signed to submit it: SHA-256, then ECDSA, in DER with a low S.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.envelope.payload
    }

    /// Signs the transaction without sending it.
    ///
    /// # Errors
    /// [`Error::Sign`].
    pub fn sign(self) -> Result<Signed, Error> {
        let signature = self.network.gateway().identity().sign(&self.envelope.payload)?;
        Ok(self.signed(signature))
    }

    /// The transaction with a signature that was made elsewhere.
    #[must_use]
    pub fn signed(self, signature: impl Into<Bytes>) -> Signed {
        let Self { network, tx_id, mut envelope, result, .. } = self;
        envelope.signature = signature.into();
        Signed { network, tx_id, envelope, result }
    }
}

/// A transaction that the client has signed. It may be sent as often as one likes: its id counts once.
#[derive(Debug, Clone)]
pub struct Signed {
    network: Network,
    tx_id: String,
    envelope: Envelope,
    result: Bytes,
}

impl Signed {
    /// The transaction id.
    #[must_use]
    pub fn tx_id(&self) -> &str {
        &self.tx_id
    }

    /// Hands it to the ordering service.
    ///
    /// # Errors
    /// [`Error::Refused`] when no orderer takes it.
    pub async fn submit(self) -> Result<Submitted, Error> {
        self.submit_through(self.network.gateway()).await?;
        Ok(Submitted { network: self.network, tx_id: self.tx_id, result: self.result })
    }

    /// Hands it to the ordering service through another gateway than the one that endorsed it.
    ///
    /// # Errors
    /// As [`Signed::submit`].
    pub async fn submit_through(&self, gateway: &Gateway) -> Result<(), Error> {
        let inner = &gateway.inner;
        let mut request = Request::new(SubmitRequest {
            transaction_id: self.tx_id.clone(),
            channel_id: self.network.channel().to_owned(),
            prepared_transaction: Some(self.envelope.clone()),
        });
        request.set_timeout(inner.deadlines.submit);
        let answer = inner.client.clone().submit(request).await;
        answer.map_err(|status| Error::refused("submit", &status)).map(|_| ())
    }
}

/// A transaction that an orderer has taken.
#[derive(Debug, Clone)]
pub struct Submitted {
    network: Network,
    tx_id: String,
    result: Bytes,
}

impl Submitted {
    /// The transaction id.
    #[must_use]
    pub fn tx_id(&self) -> &str {
        &self.tx_id
    }

    /// What the chaincode function returned; it counts only once the transaction is committed as valid.
    #[must_use]
    pub fn result(&self) -> &Bytes {
        &self.result
    }

    /// Waits until the transaction is in a block, valid or not.
    ///
    /// # Errors
    /// [`Error::Refused`] when that does not happen in time.
    pub async fn committed(self) -> Result<Committed, Error> {
        commit_status(&self.network, &self.tx_id, self.result.clone()).await
    }

    /// The question about the transaction's fate, which is signed too.
    #[must_use]
    pub fn status_request(self) -> StatusRequest {
        StatusRequest::new(&self.network, &self.tx_id, self.result)
    }
}

/// The question about a transaction's fate, before it is signed.
#[derive(Debug, Clone)]
pub struct StatusRequest {
    network: Network,
    tx_id: String,
    result: Bytes,
    bytes: Bytes,
}

impl StatusRequest {
    fn new(network: &Network, tx_id: &str, result: Bytes) -> Self {
        let request = CommitStatusRequest {
            transaction_id: tx_id.to_owned(),
            channel_id: network.channel().to_owned(),
            identity: network.gateway().identity().serialized().clone(),
        };
        let bytes = Bytes::from(request.encode_to_vec());
        Self { network: network.clone(), tx_id: tx_id.to_owned(), result, bytes }
    }

    /// What is to be signed: SHA-256, then ECDSA, in DER with a low S.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Waits until the transaction is in a block, valid or not.
    ///
    /// # Errors
    /// [`Error::Refused`] when that does not happen in time.
    pub async fn committed(self, signature: impl Into<Bytes>) -> Result<Committed, Error> {
        let inner = &self.network.gateway().inner;
        let signed = SignedCommitStatusRequest { request: self.bytes, signature: signature.into() };
        let mut request = Request::new(signed);
        request.set_timeout(inner.deadlines.commit);
        let answer = inner.client.clone().commit_status(request).await;
        let answer = answer.map_err(|status| Error::refused("commit status", &status))?.into_inner();
        let code = TxValidationCode::try_from(answer.result).map_err(|_| {
            Error::malformed("commit status", format!("unknown validation code {}", answer.result))
        })?;
        Ok(Committed { tx_id: self.tx_id, block: answer.block_number, code, result: self.result })
    }
}

/// A transaction that is in a block; whether it is valid, its code says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Transaction id.
    pub tx_id: String,
    /// Number of the block.
    pub block: u64,
    /// The peers' verdict.
    pub code: TxValidationCode,
    /// What the chaincode function returned; empty when only the status was asked for.
    pub result: Bytes,
}

impl Committed {
    /// Whether the transaction changed the ledger.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.code == TxValidationCode::Valid
    }

    /// Turns an invalid transaction into an error.
    ///
    /// # Errors
    /// [`Error::Invalid`] with code and block.
    pub fn into_valid(self) -> Result<Self, Error> {
        if self.is_valid() {
            return Ok(self);
        }
        Err(Error::Invalid { tx_id: self.tx_id, code: self.code, block: self.block })
    }
}

pub(crate) async fn commit_status(network: &Network, tx_id: &str, result: Bytes) -> Result<Committed, Error> {
    let request = StatusRequest::new(network, tx_id, result);
    let signature = network.gateway().identity().sign(request.bytes())?;
    request.committed(signature).await
}
