//! A chaincode as an application calls it.

use std::collections::BTreeMap;
use std::time::SystemTime;

use bytes::Bytes;
use consort_crypto::hash::HashAlgorithm;
use consort_crypto::preimage::{SALT_SECRET, SALT_SECRET_BYTES_MIN};
use consort_protos::fabric::protos::SignedProposal;
use consort_protos::proposal::{ProposalParts, new_proposal};
use prost::Message;

use crate::error::Error;
use crate::gateway::Network;
use crate::identity::ClientIdentity;
use crate::transaction::{Endorsed, Proposal};

/// Length of a nonce in bytes, as in Fabric's clients.
const NONCE_BYTES: usize = 24;

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

    /// Adds a value that only the endorsers see; it does not become part of the transaction. With it goes a fresh secret for the salts of
    /// collections with salted hashes (entry `consort.salt`), unless the caller gives one.
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
        self.sign()?.evaluate().await
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
        let unsigned = self.unsigned();
        let signature = unsigned.network.gateway().identity().sign(&unsigned.bytes)?;
        Ok(unsigned.signed(signature))
    }

    /// Builds the proposal and leaves the signing to the caller.
    #[must_use]
    pub fn unsigned(self) -> UnsignedProposal {
        let identity = self.network.gateway().identity();
        let mut arguments = vec![Bytes::from(self.function.clone().into_bytes())];
        arguments.extend(self.arguments);
        let (channel, chaincode) = (self.network.channel(), &self.chaincode);
        let algorithm = self.network.hash_algorithm();
        let transient = with_salt_secret(self.transient);
        let (tx_id, bytes) =
            proposal_bytes(identity, channel, algorithm, chaincode, arguments, transient, self.init);
        UnsignedProposal {
            network: self.network,
            tx_id,
            bytes,
            chaincode: self.chaincode,
            function: self.function,
            organisations: self.organisations,
        }
    }
}

/// A proposal that waits for its signature.
#[derive(Debug, Clone)]
pub struct UnsignedProposal {
    network: Network,
    tx_id: String,
    bytes: Bytes,
    chaincode: String,
    function: String,
    organisations: Vec<String>,
}

impl UnsignedProposal {
    /// The transaction id.
    #[must_use]
    pub fn tx_id(&self) -> &str {
        &self.tx_id
    }

    /// What is to be signed: SHA-256, then ECDSA, in DER with a low S.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The proposal with its signature.
    #[must_use]
    pub fn signed(self, signature: impl Into<Bytes>) -> Proposal {
        Proposal {
            network: self.network,
            tx_id: self.tx_id,
            signed: SignedProposal { proposal_bytes: self.bytes, signature: signature.into() },
            chaincode: self.chaincode,
            function: self.function,
            organisations: self.organisations,
        }
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
    let (tx_id, proposal_bytes) =
        proposal_bytes(identity, channel, hash, chaincode, arguments, transient, init);
    let signature = identity.sign(&proposal_bytes)?;
    Ok((tx_id, SignedProposal { proposal_bytes, signature }))
}

/// Builds a proposal with a fresh nonce. Returns the transaction id with it.
fn proposal_bytes(
    identity: &ClientIdentity,
    channel: &str,
    hash: HashAlgorithm,
    chaincode: &str,
    arguments: Vec<Bytes>,
    transient: BTreeMap<String, Bytes>,
    init: bool,
) -> (String, Bytes) {
    let nonce = new_nonce();
    let creator = identity.creator();
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
    (tx_id, Bytes::from(proposal.encode_to_vec()))
}

/// Adds the secret from which all endorsers derive the same salts. Where nothing is private there is none: transient data would
/// keep the proposal within the organisation.
fn with_salt_secret(mut transient: BTreeMap<String, Bytes>) -> BTreeMap<String, Bytes> {
    if !transient.is_empty() {
        let secret = || Bytes::copy_from_slice(&rand::random::<[u8; SALT_SECRET_BYTES_MIN]>());
        transient.entry(SALT_SECRET.to_owned()).or_insert_with(secret);
    }
    transient
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_calls_carry_a_fresh_secret_for_salts() {
        let transient = || BTreeMap::from([("value".to_owned(), Bytes::from_static(b"private"))]);
        let (one, other) = (with_salt_secret(transient()), with_salt_secret(transient()));
        assert_eq!(one[SALT_SECRET].len(), SALT_SECRET_BYTES_MIN);
        assert_ne!(one[SALT_SECRET], other[SALT_SECRET]);
        assert!(with_salt_secret(BTreeMap::new()).is_empty(), "a call without private data stays as it is");
        let own = BTreeMap::from([(SALT_SECRET.to_owned(), Bytes::from_static(b"chosen"))]);
        assert_eq!(with_salt_secret(own)[SALT_SECRET], "chosen");
    }
}
