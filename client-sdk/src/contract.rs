//! A chaincode as an application calls it.

use std::collections::BTreeMap;
use std::time::SystemTime;

use bytes::Bytes;
use consort_crypto::hash::HashAlgorithm;
use consort_protos::fabric::gateway::EvaluateRequest;
use consort_protos::fabric::protos::SignedProposal;
use consort_protos::proposal::{ProposalParts, new_proposal};
use prost::Message;
use tonic::Request;

use crate::error::Error;
use crate::gateway::Network;
use crate::identity::ClientIdentity;
use crate::transaction::{Endorsed, Proposal};

/// Length of a nonce in bytes, as in Fabric's clients.
const NONCE_BYTES: usize = 24;

/// Smallest status that means failure (Fabric `core/endorser`: 400 and above are not endorsed).
const ERROR_STATUS: i32 = 400;

/// A chaincode of a channel. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Contract {
    network: Network,
    chaincode: String,
}

impl Contract {
    pub(crate) fn new(network: Network, chaincode: String) -> Self {
        Self { network, chaincode }
    }

    /// The chaincode's name.
    #[must_use]
    pub fn chaincode(&self) -> &str {
        &self.chaincode
    }

    /// The channel that it is called on.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Runs a function on one peer and returns its result; the ledger does not change.
    ///
    /// # Errors
    /// [`Error::Refused`] with the gateway's details, [`Error::Chaincode`] when the function answers with an error.
    pub async fn evaluate<A: Into<Bytes>>(
        &self,
        function: &str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Bytes, Error> {
        self.call(function).arguments(arguments).evaluate().await
    }

    /// Runs a function, has the result endorsed, ordered and committed, and returns what the function returned.
    ///
    /// # Errors
    /// Those of every step; [`Error::Invalid`] when the committed transaction is invalid.
    pub async fn submit<A: Into<Bytes>>(
        &self,
        function: &str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Bytes, Error> {
        self.call(function).arguments(arguments).submit().await
    }

    /// A call to be described further before it is evaluated, endorsed or submitted.
    #[must_use]
    pub fn call(&self, function: &str) -> Call {
        Call {
            network: self.network.clone(),
            chaincode: self.chaincode.clone(),
            function: function.to_owned(),
            arguments: Vec::new(),
            transient: BTreeMap::new(),
            organisations: Vec::new(),
            init: false,
        }
    }
}

/// A call of a chaincode function before it is signed.
#[derive(Debug, Clone)]
pub struct Call {
    network: Network,
    chaincode: String,
    function: String,
    arguments: Vec<Bytes>,
    transient: BTreeMap<String, Bytes>,
    organisations: Vec<String>,
    init: bool,
}

impl Call {
    /// Appends an argument.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<Bytes>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Appends arguments.
    #[must_use]
    pub fn arguments<A: Into<Bytes>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Adds a value that only the endorsers see; it does not become part of the transaction.
    #[must_use]
    pub fn transient(mut self, key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.transient.insert(key.into(), value.into());
        self
    }

    /// Names the organisations (MSP ids) whose peers are asked, instead of leaving the choice to the gateway.
    #[must_use]
    pub fn endorsing_organisations<S: Into<String>>(
        mut self,
        organisations: impl IntoIterator<Item = S>,
    ) -> Self {
        self.organisations = organisations.into_iter().map(Into::into).collect();
        self
    }

    /// Marks the call as the chaincode's initialisation.
    #[must_use]
    pub fn init(mut self) -> Self {
        self.init = true;
        self
    }

    /// Runs the function on one peer.
    ///
    /// # Errors
    /// As [`Contract::evaluate`].
    pub async fn evaluate(self) -> Result<Bytes, Error> {
        let proposal = self.sign()?;
        let inner = &proposal.network.gateway().inner;
        let mut request = Request::new(EvaluateRequest {
            transaction_id: proposal.tx_id.clone(),
            channel_id: proposal.network.channel().to_owned(),
            proposed_transaction: Some(proposal.signed.clone()),
            target_organizations: proposal.organisations.clone(),
        });
        request.set_timeout(inner.deadlines.evaluate);
        let answer = inner.client.clone().evaluate(request).await;
        let answer = answer.map_err(|status| Error::refused("evaluate", &status))?.into_inner();
        let response = answer.result.ok_or_else(|| Error::malformed("evaluate", "no result"))?;
        if response.status >= ERROR_STATUS {
            return Err(Error::Chaincode {
                chaincode: proposal.chaincode,
                function: proposal.function,
                status: response.status,
                message: response.message,
            });
        }
        Ok(response.payload)
    }

    /// Endorses, submits and waits for the commit.
    ///
    /// # Errors
    /// As [`Contract::submit`].
    pub async fn submit(self) -> Result<Bytes, Error> {
        let endorsed = self.endorse().await?;
        let result = endorsed.result().clone();
        endorsed.submit().await?.committed().await?.into_valid()?;
        Ok(result)
    }

    /// Signs the proposal and has it endorsed.
    ///
    /// # Errors
    /// [`Error::Refused`] with the gateway's details of every endorser that was asked.
    pub async fn endorse(self) -> Result<Endorsed, Error> {
        self.sign()?.endorse().await
    }

    /// Builds and signs the proposal without sending it.
    ///
    /// # Errors
    /// [`Error::Sign`].
    pub fn sign(self) -> Result<Proposal, Error> {
        let identity = self.network.gateway().identity();
        let mut arguments = vec![Bytes::from(self.function.clone().into_bytes())];
        arguments.extend(self.arguments);
        let (tx_id, signed) = sign_proposal(
            identity,
            self.network.channel(),
            self.network.hash_algorithm(),
            &self.chaincode,
            arguments,
            self.transient,
            self.init,
        )?;
        Ok(Proposal {
            network: self.network,
            tx_id,
            signed,
            chaincode: self.chaincode,
            function: self.function,
            organisations: self.organisations,
        })
    }
}

/// Builds a proposal with a fresh nonce and signs it. Returns the transaction id with it.
pub(crate) fn sign_proposal(
    identity: &ClientIdentity,
    channel: &str,
    hash: HashAlgorithm,
    chaincode: &str,
    arguments: Vec<Bytes>,
    transient: BTreeMap<String, Bytes>,
    init: bool,
) -> Result<(String, SignedProposal), Error> {
    let nonce = new_nonce();
    let creator = identity.serialized().clone();
    let tx_id = hash.tx_id(&nonce, &creator);
    let proposal = new_proposal(ProposalParts {
        channel: channel.to_owned(),
        creator,
        nonce,
        tx_id: tx_id.clone(),
        timestamp: timestamp(),
        chaincode: chaincode.to_owned(),
        args: arguments,
        transient,
        is_init: init,
    });
    let proposal_bytes = Bytes::from(proposal.encode_to_vec());
    let signature = identity.sign(&proposal_bytes)?;
    Ok((tx_id, SignedProposal { proposal_bytes, signature }))
}

/// Fresh random bytes that make a transaction id unique.
pub(crate) fn new_nonce() -> Bytes {
    Bytes::copy_from_slice(&rand::random::<[u8; NONCE_BYTES]>())
}

/// The time that a client puts on its messages.
#[expect(
    clippy::disallowed_methods,
    reason = "a client stamps what it sends with its own clock; nodes judge it by theirs"
)]
pub(crate) fn timestamp() -> prost_types::Timestamp {
    SystemTime::now().into()
}
