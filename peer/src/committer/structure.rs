//! What can be said about a transaction without looking at the state (but for signers named by number): its form, its creator, its id, and whose
//! endorsement signatures hold.
//!
//! The order of the checks is Fabric's (`core/common/validation/msgvalidation.go`), since the first failing one gives the
//! code; all signatures of some transactions are calculated together before the codes are told. What Fabric checks only after the search for duplicates is kept inside the transaction until then.

use std::sync::Arc;

use bytes::Bytes;
use consort_channel_config::ChannelBundle;
use consort_crypto::key::SignatureCheck;
use consort_crypto::preimage;
use consort_msp::policy::{Screening, SignedData};
use consort_msp::{Identity, IdentityError};
use consort_protos::fabric::common::HeaderType;
use consort_protos::fabric::protos::TxValidationCode;
use consort_protos::transaction::{Body, EndorserTransaction, Rejection, Transaction};
use rayon::prelude::*;

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

/// Transactions whose signatures are calculated together: their inversions are a few percent of the cost then, and a block still
/// divides well among processor cores.
const TOGETHER: usize = 8;

/// Opens entries of a block and checks everything about them that depends only on the configuration, and on the channel's table
/// of identities for signers that are named by number.
#[must_use]
pub(crate) fn open(bundle: &ChannelBundle, table: &Table<'_>, entries: &[Bytes]) -> Vec<Opened> {
    let begin = |entry: &Bytes| Begun::open(bundle, table, entry.clone());
    let open = |entries: &[Bytes]| {
        let mut begun: Vec<Begun> = entries.iter().map(begin).collect();
        SignatureCheck::settle(begun.iter_mut().flat_map(Begun::checks));
        begun.into_iter().map(|begun| begun.finish(bundle, table)).collect::<Vec<_>>()
    };
    entries.par_chunks(TOGETHER).flat_map_iter(open).collect()
}

/// What [`open`] does with an entry that was opened before.
#[must_use]
pub(crate) fn judge(bundle: &ChannelBundle, table: &Table<'_>, transaction: Arc<Transaction>) -> Opened {
    let mut begun = Begun::judge(bundle, table, transaction);
    SignatureCheck::settle(begun.checks());
    begun.finish(bundle, table)
}

/// A transaction whose signatures' checks have begun.
enum Begun {
    /// Its first fault is found already.
    Rejected { transaction: Option<Arc<Transaction>>, rejection: Rejection },
    /// Its creator is a member.
    Claimed { transaction: Arc<Transaction>, signers: Signers },
}

/// Who claims to have signed.
struct Signers {
    creator: Arc<Identity>,
    signed: SignatureCheck,
    /// What counts once the creator's signature holds: the endorsers, which a configuration does not have, or what else is wrong.
    endorsers: Result<Option<Screening>, Rejection>,
}

impl Begun {
    fn open(bundle: &ChannelBundle, table: &Table<'_>, entry: Bytes) -> Self {
        match Transaction::open(entry) {
            Ok(transaction) => Self::judge(bundle, table, Arc::new(transaction)),
            Err(rejection) => Self::Rejected { transaction: None, rejection },
        }
    }

    fn judge(bundle: &ChannelBundle, table: &Table<'_>, transaction: Arc<Transaction>) -> Self {
        let (creator, signed) = match creator(bundle, table, &transaction) {
            Ok(creator) => creator,
            Err(rejection) => return Self::Rejected { transaction: Some(transaction), rejection },
        };
        let endorsers = check(bundle, &transaction)
            .map(|endorser| endorser.map(|endorser| endorsers(bundle, table, endorser)));
        Self::Claimed { transaction, signers: Signers { creator, signed, endorsers } }
    }

    fn checks(&mut self) -> impl Iterator<Item = &mut SignatureCheck> {
        let signers = match self {
            Self::Rejected { .. } => None,
            Self::Claimed { signers, .. } => Some(signers),
        };
        signers.into_iter().flat_map(|Signers { signed, endorsers, .. }| {
            let endorsers = endorsers.iter_mut().flatten().flat_map(Screening::checks);
            std::iter::once(signed).chain(endorsers)
        })
    }

    fn finish(self, bundle: &ChannelBundle, table: &Table<'_>) -> Opened {
        let (transaction, signers) = match self {
            Self::Rejected { transaction, rejection } => return Opened::Rejected { transaction, rejection },
            Self::Claimed { transaction, signers } => (transaction, signers),
        };
        let Signers { creator, signed, endorsers } = signers;
        let unsigned = |_| {
            let reason = IdentityError::Signature.to_string();
            Rejection::new(TxValidationCode::BadCreatorSignature, reason)
        };
        match signed.verdict().map_err(unsigned).and(endorsers) {
            Err(rejection) => Opened::Rejected { transaction: Some(transaction), rejection },
            Ok(None) => Opened::Config(transaction),
            Ok(Some(screening)) => {
                let endorser = transaction.endorser().expect("invariant: only invocations have endorsers");
                let aggregate = Aggregate::open(bundle, table, endorser);
                let endorsers = screening.identities();
                Opened::Endorser(VerifiedTransaction { transaction, creator, endorsers, aggregate })
            }
        }
    }
}

/// What must hold beside the creator and its signature. An invocation's body; none for a configuration.
fn check<'t>(
    bundle: &ChannelBundle,
    transaction: &'t Transaction,
) -> Result<Option<&'t EndorserTransaction>, Rejection> {
    let reject = |code, reason: &str| Err(Rejection::new(code, reason));
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
    Ok(Some(endorser))
}

/// The creator is a valid identity of the channel that the header names; whether it signed the payload is to be calculated.
fn creator(
    bundle: &ChannelBundle,
    table: &Table<'_>,
    transaction: &Transaction,
) -> Result<(Arc<Identity>, SignatureCheck), Rejection> {
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
    let signed = identity.begin_check(&transaction.payload, &transaction.signature);
    Ok((identity, signed))
}

/// An endorser signs its certificate with the payload, also when the transaction names it by number.
fn endorsers(bundle: &ChannelBundle, table: &Table<'_>, endorser: &EndorserTransaction) -> Screening {
    let signed: Vec<SignedData> = endorser
        .endorsements
        .iter()
        .filter_map(|endorsement| {
            let identity = table.certificate_of(&endorsement.endorser)?;
            let message = preimage::endorsement(&endorser.proposal_response_payload, &identity).into();
            Some(SignedData { identity, message, signature: endorsement.signature.clone() })
        })
        .collect();
    Screening::begin(bundle.msps(), signed)
}
