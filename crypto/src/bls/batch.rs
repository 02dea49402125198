//! Many aggregates at once.
//!
//! Each aggregate is one equation of pairings. A random sum of equations holds when all of them do, and practically never
//! otherwise; its pairings can be gathered by signer, so that a block costs one pairing per signer instead of two per
//! transaction. The coefficients are secret and of this process: without them two wrong signatures could make up for each
//! other, and peers that cut blocks' checks differently would disagree.

use std::collections::{BTreeMap, HashMap};

use blst::{blst_p1, blst_p1_affine, blst_p2_affine};
use ring::rand::{SecureRandom, SystemRandom};

use super::group;
use super::multiples::{self, COEFFICIENT_BYTES, Coefficient, Term};
use super::{HashedMessage, PUBLIC_KEY_BYTES, PublicKey, Signature, verify_aggregate};

/// Below this many checks, each is done alone: a batch's pairings would cost more.
const BATCH_MIN: usize = 8;

/// Of this many checks, one may fail before the rest is done one by one: halving a batch again and again costs more than
/// that when many are wrong.
const CHECKS_PER_FAILURE: usize = 16;

/// An aggregate to check: is this signature the sum of these keys' signatures over the message?
#[derive(Clone, Copy, Debug)]
pub struct Check<'a> {
    /// The signers' keys.
    pub keys: &'a [PublicKey],
    /// What they signed.
    pub message: &'a HashedMessage,
    /// The sum.
    pub signature: &'a Signature,
}

impl Check<'_> {
    /// The verdict without any batch.
    #[must_use]
    pub fn holds(&self) -> bool {
        let keys: Vec<&PublicKey> = self.keys.iter().collect();
        verify_aggregate(&keys, self.message, self.signature)
    }
}

/// Whether all checks hold. `None` when the operating system gives no random numbers, without which a batch proves nothing.
#[must_use]
pub fn verify_batch(checks: &[Check<'_>]) -> Option<bool> {
    if checks.is_empty() || checks.iter().any(|check| check.keys.is_empty()) {
        return Some(checks.is_empty());
    }
    let mut coefficients = vec![[0; COEFFICIENT_BYTES]; checks.len()];
    SystemRandom::new().fill(coefficients.as_flattened_mut()).ok()?;
    for coefficient in &mut coefficients {
        // Odd, thus never zero: a coefficient of zero would leave a check out.
        coefficient[0] |= 1;
    }
    let coefficients: Vec<Coefficient> = coefficients.into_iter().map(Coefficient::new).collect();
    Some(random_sum_holds(checks, &coefficients))
}

/// Whether the sum of the checks' equations holds, each multiplied with its coefficient.
///
/// The messages' points are taken before their step into the subgroup, which is one multiplication (with 1 - z): it commutes
/// with sums, with multiplications and with the endomorphism behind [`Coefficient`], so it is made once per signer.
pub(super) fn random_sum_holds(checks: &[Check<'_>], coefficients: &[Coefficient]) -> bool {
    let mut keys: Vec<&blst_p2_affine> = Vec::new();
    let mut numbers: HashMap<&[u8; PUBLIC_KEY_BYTES], usize> = HashMap::new();
    let mut sets: BTreeMap<Vec<usize>, Vec<Term>> = BTreeMap::new();
    for (check, coefficient) in checks.iter().zip(coefficients) {
        let number = |key| {
            *numbers.entry(PublicKey::as_bytes(key)).or_insert_with(|| {
                keys.push(key.point());
                keys.len() - 1
            })
        };
        let mut signers: Vec<usize> = check.keys.iter().map(number).collect();
        signers.sort_unstable();
        let term = Term { point: *check.message.mapped(), coefficient: *coefficient };
        sets.entry(signers).or_default().push(term);
    }
    let terms: Vec<&[Term]> = sets.values().map(Vec::as_slice).collect();
    let mut messages = vec![blst_p1::default(); keys.len()];
    for (signers, sum) in sets.keys().zip(multiples::sums(&terms)) {
        for signer in signers {
            group::add_p1(&mut messages[*signer], &sum);
        }
    }
    let signatures: Vec<Term> = checks
        .iter()
        .zip(coefficients)
        .map(|(check, coefficient)| Term { point: check.signature.point, coefficient: *coefficient })
        .collect();
    let Some(signature) = group::affine_p1(&multiples::sum(&signatures)) else {
        // The random sum of signatures that are not the identity is the identity by chance only.
        return false;
    };
    let messages: Vec<(blst_p1_affine, &blst_p2_affine)> = messages
        .iter()
        .zip(keys)
        .filter_map(|(sum, key)| Some((group::affine_p1(&group::into_subgroup(sum))?, key)))
        .collect();
    let pairs: Vec<(&blst_p1_affine, &blst_p2_affine)> =
        messages.iter().map(|(sum, key)| (sum, *key)).collect();
    group::pairings_agree(&pairs, &signature)
}

/// The verdict of every check, as [`Check::holds`] gives it, but together: one batch when all hold; otherwise halves of it,
/// until the wrong ones are found.
#[must_use]
pub fn judge(checks: &[Check<'_>]) -> Vec<bool> {
    let failures_max = (checks.len() / CHECKS_PER_FAILURE).max(1);
    let mut search = Search { verdicts: Vec::with_capacity(checks.len()), failures: 0, failures_max };
    search.judge(checks, false);
    search.verdicts
}

struct Search {
    verdicts: Vec<bool>,
    failures: usize,
    failures_max: usize,
}

impl Search {
    /// Appends the verdicts of checks. `one_fails`: the batch of these checks failed already. Halves go down to
    /// [`BATCH_MIN`], so the depth is a logarithm.
    fn judge(&mut self, checks: &[Check<'_>], one_fails: bool) {
        if checks.len() < BATCH_MIN || self.failures > self.failures_max {
            let verdicts = checks.iter().map(Check::holds);
            let before = self.verdicts.len();
            self.verdicts.extend(verdicts);
            self.failures += self.verdicts[before..].iter().filter(|holds| !**holds).count();
            return;
        }
        // Without random numbers a batch proves nothing, and the halves are done one by one.
        if !one_fails && verify_batch(checks) == Some(true) {
            self.verdicts.extend(checks.iter().map(|_| true));
            return;
        }
        let (first, second) = checks.split_at(checks.len() / 2);
        let failures = self.failures;
        self.judge(first, false);
        // When the first half holds, the failure is in the second.
        self.judge(second, self.failures == failures);
    }
}
