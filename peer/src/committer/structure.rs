//! What can be said about a transaction without looking at the state (but for signers named by number): its form, its creator, its id, and whose
//! endorsement signatures hold.
//!
//! The order of the checks is Fabric's (`core/common/validation/msgvalidation.go`), since the first failing one gives the
//! code. What Fabric checks only after the search for duplicates is kept inside the transaction until then.

use std::sync::Arc;

use bytes::Bytes;
use consort_channel_config::ChannelBundle;
use consort_crypto::preimage;
use consort_msp::Identity;
use consort_msp::policy::{SignedData, verified_identities};
use consort_protos::fabric::common::HeaderType;
use consort_protos::fabric::protos::TxValidationCode;
use consort_protos::transaction::{Body, EndorserTransaction, Rejection, Transaction};

use super::aggregate::Aggregate;
use crate::identities::table::Table;

/// A transaction after the first half of its validation.
#[derive(Debug)]
pub enum Opened {
    /// Invalid, whatever the state is.
    Rejected {
        /// The transaction, when it could be opened.
        transaction: Option<Arc<Transaction>>,
        /// Why.
        rejection: Rejection,
    },
    /// An invocation whose creator signed it.
    Endorser(VerifiedTransaction),
    /// A new configuration whose creator signed it.
    Config(Arc<Transaction>),
}

/// An endorser transaction whose structure and creator hold.
#[derive(Debug)]
pub struct VerifiedTransaction {
    /// The transaction; its body is an invocation.
    pub transaction: Arc<Transaction>,
    /// Who signed it.
    pub creator: Arc<Identity>,
    /// Who endorsed it with a signature that holds, each identity once. Whether an identity is valid is asked when a
    /// policy wants it.
    pub endorsers: Vec<Arc<Identity>>,
    /// What became of those who endorsed it together.
    pub aggregate: Aggregate,
}

impl VerifiedTransaction {
    /// The body.
    #[must_use]
    pub fn endorser(&self) -> &EndorserTransaction {
        self.transaction.endorser().expect("invariant: `open` puts only endorser transactions here")
    }
}

impl Opened {
    /// Whether it is a configuration.
    #[must_use]
    pub fn is_config(&self) -> bool {
        matches!(self, Self::Config(_))
    }

    /// The transaction, when it could be opened.
    #[must_use]
    pub fn transaction(&self) -> Option<&Arc<Transaction>> {
        match self {
            Self::Rejected { transaction, .. } => transaction.as_ref(),
            Self::Endorser(verified) => Some(&verified.transaction),
            Self::Config(transaction) => Some(transaction),
        }
    }

    /// The code as far as it is known without the state.
    #[must_use]
    pub fn code(&self) -> TxValidationCode {
        match self {
            Self::Rejected { rejection, .. } => rejection.code,
            Self::Endorser(_) | Self::Config(_) => TxValidationCode::Valid,
        }
    }
}

/// Opens an entry of a block and checks everything about it that depends only on the configuration, and on the channel's
/// table of identities for signers that are named by number.
#[must_use]
pub(crate) fn open(bundle: &ChannelBundle, table: &Table<'_>, entry: Bytes) -> Opened {
    match Transaction::open(entry) {
        Ok(transaction) => judge(bundle, table, Arc::new(transaction)),
        Err(rejection) => Opened::Rejected { transaction: None, rejection },
    }
}

/// What [`open`] does with an entry that was opened before.
#[must_use]
pub(crate) fn judge(bundle: &ChannelBundle, table: &Table<'_>, transaction: Arc<Transaction>) -> Opened {
    match check(bundle, table, &transaction) {
        Err(rejection) => Opened::Rejected { transaction: Some(transaction), rejection },
        Ok(None) => Opened::Config(transaction),
        Ok(Some(Signers { creator, endorsers, aggregate })) => {
            Opened::Endorser(VerifiedTransaction { transaction, creator, endorsers, aggregate })
        }
    }
}

/// Whose signatures hold.
struct Signers {
    creator: Arc<Identity>,
    endorsers: Vec<Arc<Identity>>,
    aggregate: Aggregate,
}

/// The signers of an invocation; `None` for a configuration.
fn check(
    bundle: &ChannelBundle,
    table: &Table<'_>,
    transaction: &Transaction,
) -> Result<Option<Signers>, Rejection> {
    let reject = |code, reason: &str| Err(Rejection::new(code, reason));
    let creator = creator(bundle, table, transaction)?;
    match transaction.kind {
        HeaderType::Config => {
            transaction.body.as_ref().map_err(Clone::clone)?;
            return Ok(None);
        }
        HeaderType::EndorserTransaction => {}
        _ => {
            return reject(TxValidationCode::UnsupportedTxPayload, "a block holds no configuration updates");
        }
    }
    if bundle.hash_algorithm().tx_id(&transaction.nonce, &transaction.creator) != transaction.tx_id {
        return reject(
            TxValidationCode::BadProposalTxid,
            "the transaction id is not that of nonce and creator",
        );
    }
    let Body::Endorser(endorser) = transaction.body.as_ref().map_err(Clone::clone)? else {
        return reject(TxValidationCode::InvalidEndorserTransaction, "the body is no invocation");
    };
    let hash = bundle.hash_algorithm().proposal_hash(
        &transaction.channel_header_bytes,
        &endorser.action_header,
        &endorser.chaincode_proposal_payload,
    );
    if hash[..] != endorser.proposal_hash[..] {
        return reject(
            TxValidationCode::InvalidEndorserTransaction,
            "the proposal hash is that of another proposal",
        );
    }
    let aggregate = Aggregate::open(bundle, table, endorser);
    Ok(Some(Signers { creator, endorsers: endorsers(bundle, table, endorser), aggregate }))
}

/// The creator is a valid identity of the channel that the header names, and signed the payload.
fn creator(
    bundle: &ChannelBundle,
    table: &Table<'_>,
    transaction: &Transaction,
) -> Result<Arc<Identity>, Rejection> {
    let reject = |reason: String| Rejection::new(TxValidationCode::BadCreatorSignature, reason);
    if transaction.channel != bundle.channel().as_str() {
        return Err(reject(format!("the transaction is for channel {:?}", transaction.channel)));
    }
    let msps = bundle.msps();
    let serialized = table
        .certificate_of(&transaction.creator)
        .ok_or_else(|| reject("the creator names an entry that is not in use".to_owned()))?;
    let identity = msps.deserialize(&serialized).map_err(|error| reject(error.to_string()))?;
    msps.validate(&identity).map_err(|error| reject(error.to_string()))?;
    identity
        .verify(&transaction.payload, &transaction.signature)
        .map_err(|error| reject(error.to_string()))?;
    Ok(identity)
}

/// An endorser signs its certificate with the payload, also when the transaction names it by number.
fn endorsers(
    bundle: &ChannelBundle,
    table: &Table<'_>,
    endorser: &EndorserTransaction,
) -> Vec<Arc<Identity>> {
    let signed: Vec<SignedData> = endorser
        .endorsements
        .iter()
        .filter_map(|endorsement| {
            let identity = table.certificate_of(&endorsement.endorser)?;
            let message = preimage::endorsement(&endorser.proposal_response_payload, &identity).into();
            Some(SignedData { identity, message, signature: endorsement.signature.clone() })
        })
        .collect();
    verified_identities(bundle.msps(), &signed)
}
