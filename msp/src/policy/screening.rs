//! Who really signed, of those who claim to.

use std::{collections::HashSet, sync::Arc};

use consort_crypto::key::SignatureCheck;

use super::SignedData;
use crate::{Identity, MspManager};

/// Signatures whose checks have begun, so that they can be calculated together with others ([`SignatureCheck::settle`]) before
/// anyone asks who signed. The answer is the same as when each is checked in its turn.
#[derive(Debug)]
pub struct Screening {
    signatures: Vec<SignedData>,
    begun: Vec<Result<Begun, String>>,
}

#[derive(Debug)]
struct Begun {
    identity: Arc<Identity>,
    /// None for an identity that is named for a second time: it is checked only when the check before fails, so that naming
    /// one a thousand times costs nothing.
    check: Option<SignatureCheck>,
}

impl Screening {
    /// Reads the identities and begins their checks.
    #[must_use]
    pub fn begin(msps: &MspManager, signatures: Vec<SignedData>) -> Self {
        let mut named = HashSet::with_capacity(signatures.len());
        let mut begin = |signed: &SignedData| {
            let identity = msps.deserialize(&signed.identity).map_err(|error| error.to_string())?;
            let is_first = named.insert(identity.id().clone());
            let check = is_first.then(|| identity.begin_check(&signed.message, &signed.signature));
            Ok(Begun { identity, check })
        };
        let begun = signatures.iter().map(&mut begin).collect();
        Self { signatures, begun }
    }

    /// The checks that have begun.
    pub fn checks(&mut self) -> impl Iterator<Item = &mut SignatureCheck> {
        self.begun.iter_mut().flatten().filter_map(|begun| begun.check.as_mut())
    }

    /// The distinct identities that really signed, in order of their first valid signature. Validity of the certificates is not
    /// checked here: principals do that.
    #[must_use]
    pub fn identities(self) -> Vec<Arc<Identity>> {
        self.judge().0
    }

    /// [`Screening::identities`], and which signatures do not count for what reason.
    pub(super) fn judge(mut self) -> (Vec<Arc<Identity>>, Vec<(usize, String)>) {
        SignatureCheck::settle(self.checks());
        let mut accepted = HashSet::new();
        let (mut identities, mut refused) = (Vec::with_capacity(self.begun.len()), Vec::new());
        for (index, (begun, signed)) in self.begun.into_iter().zip(&self.signatures).enumerate() {
            let verdict = begun.and_then(|Begun { identity, check }| {
                if accepted.contains(identity.id()) {
                    return Err(format!("{identity} signed before"));
                }
                let check = check.unwrap_or_else(|| identity.begin_check(&signed.message, &signed.signature));
                check.verdict().map_err(|error| format!("{identity}: {error}"))?;
                Ok(identity)
            });
            match verdict {
                Ok(identity) => {
                    accepted.insert(identity.id().clone());
                    identities.push(identity);
                }
                Err(reason) => refused.push((index, reason)),
            }
        }
        (identities, refused)
    }
}

/// The distinct identities that really signed, in order of their first valid signature. Validity of the certificates is not
/// checked here: principals do that.
#[must_use]
pub fn verified_identities(msps: &MspManager, signatures: &[SignedData]) -> Vec<Arc<Identity>> {
    Screening::begin(msps, signatures.to_vec()).identities()
}
