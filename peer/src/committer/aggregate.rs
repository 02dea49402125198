//! Aggregated endorsements: what several registered endorsers signed together, as one signature.
//!
//! An aggregate is valid if and only if
//!
//! 1. its signature is a canonical point of the subgroup and not the identity;
//! 2. its set of signers is in its only form, and each is an entry of the channel's table of identities that counts
//!    ([`crate::identities`]) and has a BLS key, whose proof of possession every validator checked before the entry was written;
//! 3. the signature is the sum of those keys' signatures over the channel and the proposal response payload.
//!
//! A transaction whose aggregate is not valid is invalid, whoever endorsed it besides: `ENDORSEMENT_POLICY_FAILURE`. The signers
//! of a valid one count for policies as if each had signed alone. A channel without the capability does not see aggregates, as
//! Fabric passes over unknown fields. Checking many together is an implementation of the third rule only, and gives what each
//! check alone gives.

use std::sync::Arc;

use consort_channel_config::ChannelBundle;
use consort_crypto::bls::{self, Check, HashedMessage, PublicKey, Signature};
use consort_msp::Identity;
use consort_protos::entry::EntryNumber;
use consort_protos::fabric::protos::TxValidationCode;
use consort_protos::signers;
use consort_protos::transaction::{EndorserTransaction, Rejection};
use rayon::prelude::*;

use super::structure::Opened;
use crate::identities::table::Table;

/// Aggregates that are checked together at least, when a block's are divided among processor cores: a batch has fixed costs of
/// about twenty checks.
const BATCH_MIN: usize = 64;

/// What became of a transaction's aggregate.
#[derive(Debug)]
pub enum Aggregate {
    /// There is none, or its signers are among the transaction's endorsers.
    Settled,
    /// The first two rules hold; the third is to be checked.
    Claimed(Box<Claim>),
    /// It is not valid, and with it the transaction.
    Refused(Rejection),
}

/// An aggregate whose signers are known.
#[derive(Debug)]
pub struct Claim {
    keys: Vec<PublicKey>,
    /// Those of the signers whose certificates the channel's organisations know.
    identities: Vec<Arc<Identity>>,
    message: HashedMessage,
    signature: Signature,
}

fn refused(reason: impl Into<String>) -> Rejection {
    Rejection::new(TxValidationCode::EndorsementPolicyFailure, reason)
}

impl Aggregate {
    /// Reads an invocation's aggregate and finds its signers. Hashing the message and checking the signature's point are most of
    /// the work, and depend on no other transaction.
    pub(super) fn open(bundle: &ChannelBundle, table: &Table<'_>, endorser: &EndorserTransaction) -> Self {
        if !bundle.application().capabilities.aggregated_endorsements() || endorser.aggregate.is_none() {
            return Self::Settled;
        }
        match Claim::open(bundle, table, endorser) {
            Ok(claim) => Self::Claimed(Box::new(claim)),
            Err(reason) => Self::Refused(refused(reason)),
        }
    }
}

impl Claim {
    fn open(
        bundle: &ChannelBundle,
        table: &Table<'_>,
        endorser: &EndorserTransaction,
    ) -> Result<Self, String> {
        let aggregate = endorser.aggregate.as_ref().ok_or("there is no aggregate")?;
        let signers = signers::decode(&aggregate.signers)
            .ok_or("the set of the aggregate's signers is not in its only form")?;
        let signature = Signature::from_bytes(&aggregate.signature)
            .map_err(|_| "the aggregate's signature is no point of the group in its only form")?;
        let (mut keys, mut identities) =
            (Vec::with_capacity(signers.len()), Vec::with_capacity(signers.len()));
        for number in signers {
            let signer = EntryNumber::new(number).and_then(|number| table.signer(number));
            let signer =
                signer.ok_or_else(|| format!("the aggregate names entry {number}, which is not in use"))?;
            let key = signer.bls_key.ok_or_else(|| format!("entry {number} has no BLS key"))?;
            keys.push(PublicKey::remembered(&key).map_err(|error| format!("entry {number}: {error}"))?);
            // Whom the channel does not know counts for no policy, as when he signs alone.
            identities.extend(bundle.msps().deserialize(&signer.serialized));
        }
        let message = bls::endorsement(bundle.channel().as_str(), &endorser.proposal_response_payload);
        Ok(Self { keys, identities, message: HashedMessage::new(&message), signature })
    }
}

/// Checks the aggregates that are still claimed, together: their signers join the endorsers of their transactions.
pub(super) fn settle(transactions: &mut [Opened]) {
    settle_with(transactions, together);
}

/// [`settle`] with another way of checking, which must give the same verdicts.
pub(super) fn settle_with(transactions: &mut [Opened], check: impl Fn(&[Check<'_>]) -> Vec<bool>) {
    let claims: Vec<(usize, Box<Claim>)> = transactions
        .iter_mut()
        .enumerate()
        .filter_map(|(index, opened)| Some((index, claim(opened)?)))
        .collect();
    let checks: Vec<Check<'_>> = claims
        .iter()
        .map(|(_, claim)| Check { keys: &claim.keys, message: &claim.message, signature: &claim.signature })
        .collect();
    let verdicts = check(&checks);
    for ((index, claim), holds) in claims.iter().zip(verdicts) {
        let Opened::Endorser(verified) = &mut transactions[*index] else { continue };
        if !holds {
            verified.aggregate =
                Aggregate::Refused(refused("the aggregate is not the sum of its signers' signatures"));
            continue;
        }
        for identity in &claim.identities {
            if verified.endorsers.iter().all(|endorser| endorser.id() != identity.id()) {
                verified.endorsers.push(Arc::clone(identity));
            }
        }
    }
}

/// Takes the claim out of a transaction that has one.
fn claim(opened: &mut Opened) -> Option<Box<Claim>> {
    let Opened::Endorser(verified) = opened else { return None };
    match std::mem::replace(&mut verified.aggregate, Aggregate::Settled) {
        Aggregate::Claimed(claim) => Some(claim),
        other => {
            verified.aggregate = other;
            None
        }
    }
}

/// Divides the checks among the cores.
fn together(checks: &[Check<'_>]) -> Vec<bool> {
    let part = checks.len().div_ceil(rayon::current_num_threads()).max(BATCH_MIN);
    checks.par_chunks(part).flat_map_iter(bls::judge).collect()
}
