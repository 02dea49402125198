//! Checks of signatures that are calculated together.

use super::curve::{P256, Sm2};
use super::remembered::{Fact, Remembered};
use super::verify::{Equation, Scheme, hold};
use super::{KNOWN_SIGNERS, Numbers, P256_GENERATOR, SM2_GENERATOR, Table, Tables, field};
use crate::Error;

/// The check of a signature that has begun ([`crate::key::PublicKey::begin_check`]): judged already, or to be calculated with
/// the table of a known signer.
///
/// Calculating many together ([`SignatureCheck::settle`]) takes about six tenths of the time of one after the other, as they share
/// their inversions; the verdicts are the same. A check that nobody settled is calculated alone when its verdict is asked for.
#[derive(Debug)]
pub struct SignatureCheck(State);

#[derive(Debug)]
enum State {
    Judged(Result<(), Error>),
    P256(Box<Pending<P256>>),
    Sm2(Box<Pending<Sm2>>),
}

/// A check that is to be calculated.
#[derive(Debug)]
struct Pending<C: Scheme> {
    equation: Equation<C>,
    /// What to remember of it if it holds.
    fact: Option<Fact>,
}

/// A curve whose known signers have tables in this process.
trait Known: Scheme {
    fn tables() -> &'static Tables<Self>;
    fn generator() -> &'static Table<Self>;
    fn remembered() -> &'static Remembered;
}

impl Known for P256 {
    fn tables() -> &'static Tables<Self> {
        &KNOWN_SIGNERS.p256
    }

    fn generator() -> &'static Table<Self> {
        &P256_GENERATOR
    }

    fn remembered() -> &'static Remembered {
        &KNOWN_SIGNERS.p256_remembered
    }
}

impl Known for Sm2 {
    fn tables() -> &'static Tables<Self> {
        &KNOWN_SIGNERS.sm2
    }

    fn generator() -> &'static Table<Self> {
        &SM2_GENERATOR
    }

    fn remembered() -> &'static Remembered {
        &KNOWN_SIGNERS.sm2_remembered
    }
}

/// What is signed and with which numbers.
#[derive(Clone, Copy)]
pub(crate) struct Signed<'s> {
    /// The key's uncompressed point.
    pub(crate) point: &'s [u8],
    pub(crate) digest: &'s [u8; 32],
    pub(crate) numbers: &'s Numbers,
    /// Whether the signature is answered from memory, and remembered if it holds.
    pub(crate) remembered: bool,
}

impl SignatureCheck {
    /// Remembers what a key of P-256 has just signed.
    pub(crate) fn keep_p256(signed: Signed<'_>) {
        keep::<P256>(signed);
    }

    /// As [`SignatureCheck::keep_p256`], of a key of SM2.
    pub(crate) fn keep_sm2(signed: Signed<'_>) {
        keep::<Sm2>(signed);
    }

    pub(crate) fn judged(verdict: Result<(), Error>) -> Self {
        Self(State::Judged(verdict))
    }

    /// ECDSA over a digest by a key of P-256; `library` judges for a key that has no table (yet).
    pub(crate) fn p256(signed: Signed<'_>, library: impl FnOnce() -> Result<(), Error>) -> Self {
        Self(
            begin::<P256>(signed, library)
                .map_or_else(State::Judged, |pending| State::P256(Box::new(pending))),
        )
    }

    /// SM2 over a digest (of the signer's prefix and the message); `library` judges for a key that has no table (yet).
    pub(crate) fn sm2(signed: Signed<'_>, library: impl FnOnce() -> Result<(), Error>) -> Self {
        Self(
            begin::<Sm2>(signed, library).map_or_else(State::Judged, |pending| State::Sm2(Box::new(pending))),
        )
    }

    /// Calculates those that are still to be calculated, together.
    pub fn settle<'c>(checks: impl IntoIterator<Item = &'c mut Self>) {
        let (mut p256, mut sm2) = (Vec::new(), Vec::new());
        for check in checks {
            // Whatever becomes of it below, it holds only if it is found to hold.
            match std::mem::replace(&mut check.0, State::Judged(Err(Error::SignatureMismatch))) {
                State::P256(pending) => p256.push((check, pending)),
                State::Sm2(pending) => sm2.push((check, pending)),
                judged @ State::Judged(_) => check.0 = judged,
            }
        }
        calculate(p256);
        calculate(sm2);
    }

    /// Whether the signature holds.
    ///
    /// # Errors
    ///
    /// As [`crate::key::PublicKey::verify`].
    pub fn verdict(mut self) -> Result<(), Error> {
        Self::settle([&mut self]);
        match self.0 {
            State::Judged(verdict) => verdict,
            State::P256(_) | State::Sm2(_) => unreachable!("invariant: what is settled is judged"),
        }
    }
}

/// A check that is to be calculated, or the verdict from memory or of the library.
fn begin<C: Known>(
    signed: Signed<'_>,
    library: impl FnOnce() -> Result<(), Error>,
) -> Result<Pending<C>, Result<(), Error>> {
    let Signed { point, digest, numbers, remembered } = signed;
    let fact = if remembered { Fact::new(point, digest, numbers) } else { None };
    if fact.as_ref().is_some_and(|fact| C::remembered().holds(fact)) {
        return Err(Ok(()));
    }
    if let Some(table) = C::tables().of(point) {
        let [digest, r, s] = [digest, &numbers.r, &numbers.s].map(field::from_bytes);
        return Ok(Pending { equation: Equation { table, digest, r, s }, fact });
    }
    let verdict = library();
    if let (Ok(()), Some(fact)) = (&verdict, &fact) {
        C::remembered().keep(fact);
    }
    Err(verdict)
}

fn keep<C: Known>(signed: Signed<'_>) {
    if let Some(fact) = Fact::new(signed.point, signed.digest, signed.numbers) {
        C::remembered().keep(&fact);
    }
}

fn calculate<C: Known>(checks: Vec<(&mut SignatureCheck, Box<Pending<C>>)>) {
    let equations: Vec<_> = checks.iter().map(|(_, pending)| &pending.equation).collect();
    let verdicts = hold(C::generator(), &equations);
    for ((check, pending), holds) in checks.into_iter().zip(verdicts) {
        if !holds {
            continue;
        }
        check.0 = State::Judged(Ok(()));
        if let Some(fact) = &pending.fact {
            C::remembered().keep(fact);
        }
    }
}
