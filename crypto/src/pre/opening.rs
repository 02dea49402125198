//! Opening a record with the fragments of enough proxies.

use zeroize::Zeroizing;

use super::element::{Element, Point, one_suite};
use super::fragment::Statement;
use super::share::{GrantKeys, GrantSecret, weights};
use super::{Capsule, Error, Fragment, PublicKey, SecretKey};

/// Opens a record that was granted to a reader. Verifies the capsule and each fragment first: a wrong one is named, and nothing is
/// lost by leaving it out and asking another proxy.
///
/// `ephemeral` and `commitments` are the grant's, in the order of the proxies' numbers.
///
/// # Errors
///
/// [`Error::Fragment`], [`Error::Duplicate`] and [`Error::Index`] name the proxy; [`Error::TooFew`] when fragments are missing;
/// [`Error::Capsule`] when the capsule is not for this record; [`Error::Closed`] when the fragments hold and the record is for
/// another reader, owner or grant all the same, or the ciphertext was altered; [`Error::Suites`].
#[expect(
    clippy::too_many_arguments,
    reason = "the statement of the scheme; every one is bound in what is computed"
)]
pub fn open(
    reader: &SecretKey,
    owner: &PublicKey,
    ephemeral: &Point,
    threshold: u16,
    aux: &[u8],
    grant: &[u8],
    request: &[u8],
    commitments: &[Point],
    capsule: &Capsule,
    ciphertext: &[u8],
    fragments: &[Fragment],
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let mut suites = vec![reader.suite(), owner.suite(), ephemeral.suite(), capsule.suite()];
    suites.extend(commitments.iter().map(Point::suite));
    suites.extend(fragments.iter().map(Fragment::suite));
    let suite = one_suite(&suites)?;
    capsule.check(aux)?;
    let mut committed = Vec::with_capacity(fragments.len());
    for (number, fragment) in fragments.iter().enumerate() {
        let index = fragment.index();
        let commitment = commitments.get(usize::from(index) - 1).ok_or(Error::Index { index })?;
        if fragments[..number].iter().any(|earlier| earlier.index() == index) {
            return Err(Error::Duplicate { index });
        }
        committed.push((fragment, commitment));
    }
    Statement { capsule, aux, grant, request }.verify(&committed)?;
    if threshold == 0 {
        return Err(Error::Threshold {
            threshold,
            proxies: commitments.len().try_into().unwrap_or(u16::MAX),
        });
    }
    let used = fragments
        .get(..usize::from(threshold))
        .ok_or(Error::TooFew { fragments: fragments.len(), threshold })?;

    let keys = GrantKeys { owner, reader: &reader.public_key(), ephemeral, grant };
    let secret = GrantSecret::new(&keys, &*reader.shared(ephemeral)?, &*reader.shared(owner.point())?);
    let places: Vec<_> = used.iter().map(|fragment| secret.place(fragment.index())).collect();
    let mut terms = Zeroizing::new(Vec::with_capacity(used.len()));
    for (fragment, weight) in used.iter().zip(weights(&places)?) {
        let both = fragment.e.element().plus(fragment.v.element());
        terms.push((both, weight.times(&secret.factor)));
    }
    let shared = Zeroizing::new(Element::sum(suite, &terms));
    capsule.message_key(&shared)?.open(&capsule.associated(aux), ciphertext)
}
