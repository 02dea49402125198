//! What is signed: statements whose fields cannot run into each other, hashed to the curve.

use blst::blst_p1_affine;

use super::{SIGNATURE_SUITE, group, mapping};

/// First field of what endorsers sign together.
const ENDORSEMENT: &str = "consort/endorse/v1";

/// A statement to sign: what it is, then its fields, each with its length before it (four bytes, big-endian), so that no two
/// lists of fields give the same bytes. One ciphersuite signs everything; the first field keeps the kinds apart.
///
/// # Panics
///
/// When a field has 4 GiB or more.
#[must_use]
pub fn statement(kind: &str, fields: &[&[u8]]) -> Vec<u8> {
    let mut bytes =
        Vec::with_capacity(fields.iter().map(|field| 4 + field.len()).sum::<usize>() + kind.len() + 4);
    for field in std::iter::once(kind.as_bytes()).chain(fields.iter().copied()) {
        let length = u32::try_from(field.len()).expect("invariant: messages are shorter than 4 GiB");
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(field);
    }
    bytes
}

/// What endorsers sign together: the channel and the proposal response payload. Unlike Fabric's endorsement it does not
/// name the endorser, so that all sign the same bytes.
#[must_use]
pub fn endorsement(channel: &str, proposal_response_payload: &[u8]) -> Vec<u8> {
    statement(ENDORSEMENT, &[channel.as_bytes(), proposal_response_payload])
}

/// A message as a point of the curve. Half of a verification's work that depends on nobody's key, so it can be done ahead.
///
/// Kept as [`mapping::hash`] gives it: what a signature multiplies is its image in the subgroup, [`Self::point`].
#[derive(Clone, Debug)]
pub struct HashedMessage(blst_p1_affine);

impl HashedMessage {
    /// Hashes a message to the curve.
    #[must_use]
    pub fn new(message: &[u8]) -> Self {
        Self(mapping::hash(message, SIGNATURE_SUITE))
    }

    /// The point before the step into the subgroup, which sums of messages take together.
    pub(super) fn mapped(&self) -> &blst_p1_affine {
        &self.0
    }

    /// The point of G1 that a signature multiplies.
    pub(super) fn point(&self) -> blst_p1_affine {
        let point = group::into_subgroup(&group::jacobian_of(&self.0));
        group::affine_p1(&point).expect("invariant: nobody knows a message that hashes to the identity")
    }
}
