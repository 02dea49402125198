//! What a proxy makes of a capsule for a reader, with the proof that it is right.

use std::fmt;

use zeroize::Zeroizing;

use super::element::{Element, POINT_BYTES, Point, SCALAR_BYTES, Scalar, one_suite};
use super::random::{Random, System};
use super::share::INDEX_BYTES;
use super::{Capsule, Error, Share, Suite, hash};

/// Fragments that are verified together: their weights take less than the 255 hashes that one expansion gives.
const BATCH_MAX: usize = 64;

/// A proxy's contribution to opening one record for one request. It is useless without the reader's secret key, so it may be
/// public.
#[derive(Clone, PartialEq, Eq)]
pub struct Fragment {
    index: u16,
    /// The share's multiples of the capsule's points.
    pub(super) e: Point,
    pub(super) v: Point,
    /// The proof: that three points are the same multiple of the capsule's two and of the second generator (Chaum, Pedersen 1992).
    proof: EqualityProof,
}

#[derive(Clone, PartialEq, Eq)]
struct EqualityProof {
    e: Point,
    v: Point,
    u: Point,
    response: Scalar,
}

/// What fragments are made for and held to.
#[derive(Clone, Copy)]
pub(super) struct Statement<'a> {
    pub(super) capsule: &'a Capsule,
    pub(super) aux: &'a [u8],
    pub(super) grant: &'a [u8],
    pub(super) request: &'a [u8],
}

impl Statement<'_> {
    /// Whether fragments, each with its commitment, hold for a capsule that was checked; all of one suite. At most [`BATCH_MAX`].
    ///
    /// The three equations of each proof are added up, every one with a weight that depends on all proofs (and on nothing else, so
    /// that all verifiers agree): wrong ones cancel out with a probability of 2^-128.
    fn holds(&self, fragments: &[(&Fragment, &Point)]) -> bool {
        let suite = self.capsule.suite();
        let challenges: Vec<Scalar> =
            fragments.iter().map(|(fragment, commitment)| fragment.challenge(self, commitment)).collect();
        let proofs: Vec<[u8; SCALAR_BYTES]> = challenges
            .iter()
            .zip(fragments)
            .flat_map(|(challenge, (fragment, _))| [challenge.to_bytes(), fragment.proof.response.to_bytes()])
            .collect();
        let proofs: Vec<&[u8]> = proofs.iter().map(<[u8; SCALAR_BYTES]>::as_slice).collect();
        let mut weights = vec![[[0; 16]; 3]; fragments.len()];
        hash::expand(suite, "weights", &proofs, weights.as_flattened_mut().as_flattened_mut());
        let mut shared = [Scalar::from_index(suite, 0); 3];
        let mut terms = Vec::with_capacity(6 * fragments.len() + shared.len());
        for (((fragment, commitment), challenge), weights) in fragments.iter().zip(challenges).zip(weights) {
            let proof = &fragment.proof;
            let equations = [(&proof.e, &fragment.e), (&proof.v, &fragment.v), (&proof.u, *commitment)];
            for (((blinded, image), weight), shared) in equations.into_iter().zip(weights).zip(&mut shared) {
                let weight = Scalar::from_half(suite, weight);
                terms.push((*blinded.element(), weight));
                terms.push((*image.element(), weight.times(&challenge)));
                *shared = shared.minus(&weight.times(&proof.response));
            }
        }
        let bases = [&self.capsule.e, &self.capsule.v, Point::second_generator(suite)];
        terms.extend(bases.into_iter().map(|base| *base.element()).zip(shared));
        Element::public_sum_vanishes(suite, &terms)
    }

    /// Verifies fragments of a capsule that was checked, each with its commitment, all of one suite.
    ///
    /// # Errors
    /// [`Error::Fragment`] names the first one that is wrong.
    pub(super) fn verify(&self, fragments: &[(&Fragment, &Point)]) -> Result<(), Error> {
        for batch in fragments.chunks(BATCH_MAX) {
            if !self.holds(batch) {
                let wrong = batch.iter().find(|fragment| !self.holds(&[**fragment]));
                let (fragment, _) = wrong.unwrap_or(&batch[0]);
                return Err(Error::Fragment { index: fragment.index });
            }
        }
        Ok(())
    }
}

impl Fragment {
    /// Bytes of a fragment.
    pub const BYTES: usize = INDEX_BYTES + 5 * POINT_BYTES + SCALAR_BYTES;

    /// The proxy's number in the grant, counted from 1.
    #[must_use]
    pub fn index(&self) -> u16 {
        self.index
    }

    /// The suite.
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.e.suite()
    }

    /// The number (2 bytes, big-endian), the two results, the three points of the proof, its response (32 bytes, big-endian).
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..INDEX_BYTES].copy_from_slice(&self.index.to_be_bytes());
        let (points, response) = bytes[INDEX_BYTES..].split_at_mut(5 * POINT_BYTES);
        let all = [&self.e, &self.v, &self.proof.e, &self.proof.v, &self.proof.u];
        for (place, point) in points.chunks_exact_mut(POINT_BYTES).zip(all) {
            place.copy_from_slice(point.as_bytes());
        }
        response.copy_from_slice(&self.proof.response.to_bytes());
        bytes
    }

    /// Reads a fragment, without [verifying](Self::verify) it.
    ///
    /// # Errors
    ///
    /// Another length; number 0; points or a number that are not canonical.
    pub fn from_bytes(suite: Suite, bytes: &[u8]) -> Result<Self, Error> {
        let Some((index, rest)) = bytes.split_first_chunk().filter(|_| bytes.len() == Self::BYTES) else {
            return Err(Error::Length { kind: "a fragment", length: bytes.len(), expected: Self::BYTES });
        };
        let index = u16::from_be_bytes(*index);
        if index == 0 {
            return Err(Error::Index { index });
        }
        let (points, response) = rest.split_at(5 * POINT_BYTES);
        let point = |number: usize| Point::from_bytes(suite, &points[number * POINT_BYTES..][..POINT_BYTES]);
        let (e, v) = (point(0)?, point(1)?);
        let response = Scalar::from_bytes(suite, response)?;
        let proof = EqualityProof { e: point(2)?, v: point(3)?, u: point(4)?, response };
        Ok(Self { index, e, v, proof })
    }

    /// Verifies that the fragment was made from the capsule of the record that `aux` names, with the share behind a commitment,
    /// for this grant and request. Needs no secret: anybody can convict a proxy. The commitment is the owner's for
    /// [`index`](Self::index), never one that came with the fragment.
    ///
    /// # Errors
    ///
    /// [`Error::Capsule`] when the capsule does not belong to the record, [`Error::Fragment`] when the fragment is wrong,
    /// [`Error::Suites`] when the parts are of different suites.
    pub fn verify(
        &self,
        capsule: &Capsule,
        aux: &[u8],
        commitment: &Point,
        grant: &[u8],
        request: &[u8],
    ) -> Result<(), Error> {
        one_suite(&[self.suite(), capsule.suite(), commitment.suite()])?;
        capsule.check(aux)?;
        Statement { capsule, aux, grant, request }.verify(&[(self, commitment)])
    }

    fn challenge(&self, statement: &Statement<'_>, commitment: &Point) -> Scalar {
        let parts: [&[u8]; 12] = [
            &statement.capsule.to_bytes(),
            statement.aux,
            self.e.as_bytes(),
            self.v.as_bytes(),
            commitment.as_bytes(),
            self.proof.e.as_bytes(),
            self.proof.v.as_bytes(),
            self.proof.u.as_bytes(),
            &self.index.to_be_bytes(),
            statement.grant,
            statement.request,
            Point::second_generator(self.suite()).as_bytes(),
        ];
        hash::to_scalar(self.suite(), "fragment", &parts)
    }
}

impl fmt::Debug for Fragment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = hex::encode(self.to_bytes());
        formatter.debug_struct("Fragment").field("index", &self.index).field("bytes", &bytes).finish()
    }
}

/// Makes a proxy's fragment of a record's capsule, for one request under one grant.
///
/// # Errors
///
/// [`Error::Capsule`] when the capsule does not belong to the record that `aux` names: nothing is computed for such a one.
/// Different suites; no random numbers.
pub fn re_encrypt(
    share: &Share,
    capsule: &Capsule,
    aux: &[u8],
    grant: &[u8],
    request: &[u8],
) -> Result<Fragment, Error> {
    re_encrypt_with(&mut System, share, capsule, aux, (grant, request))
}

pub(super) fn re_encrypt_with(
    random: &mut dyn Random,
    share: &Share,
    capsule: &Capsule,
    aux: &[u8],
    (grant, request): (&[u8], &[u8]),
) -> Result<Fragment, Error> {
    let suite = one_suite(&[share.suite(), capsule.suite()])?;
    capsule.check(aux)?;
    let blind = random.scalar(suite)?;
    let multiples = |scalar: &Zeroizing<Scalar>| {
        let [e, v] = [&capsule.e, &capsule.v].map(|point| point.element().times(scalar).to_point());
        Ok::<_, Error>((e?, v?))
    };
    let ((e, v), (proof_e, proof_v)) = (multiples(&share.scalar)?, multiples(&blind)?);
    let proof_u = Point::second_generator(suite).element().times(&blind).to_point()?;
    // The response follows from the challenge, which does not take it.
    let response = Scalar::from_index(suite, 0);
    let proof = EqualityProof { e: proof_e, v: proof_v, u: proof_u, response };
    let mut fragment = Fragment { index: share.index(), e, v, proof };
    let commitment = share.commitment()?;
    let challenge = fragment.challenge(&Statement { capsule, aux, grant, request }, &commitment);
    fragment.proof.response = blind.plus(&challenge.times(&share.scalar));
    Ok(fragment)
}
