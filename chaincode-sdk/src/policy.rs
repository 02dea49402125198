//! Endorsement policies of single keys.

use crate::Error;

/// Who must endorse changes of a key: the peers of some organisations.
///
/// Set with [`Context::set_key_policy`](crate::Context::set_key_policy). The bytes are a `common.SignaturePolicyEnvelope`, made as
/// Fabric's `statebased` package makes them: one principal per organisation, sorted, under one `NOutOf`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPolicy {
    organisations: Vec<String>,
    needed: usize,
}

impl KeyPolicy {
    /// A peer of each of these organisations must endorse.
    #[must_use]
    pub fn all_of<'o>(organisations: impl IntoIterator<Item = &'o str>) -> Self {
        let organisations = sorted(organisations);
        Self { needed: organisations.len(), organisations }
    }

    /// A peer of one of these organisations must endorse.
    #[must_use]
    pub fn any_of<'o>(organisations: impl IntoIterator<Item = &'o str>) -> Self {
        Self { needed: 1, organisations: sorted(organisations) }
    }

    /// Peers of `needed` of these organisations must endorse.
    #[must_use]
    pub fn some_of<'o>(needed: usize, organisations: impl IntoIterator<Item = &'o str>) -> Self {
        Self { needed, organisations: sorted(organisations) }
    }

    /// The MSP ids, sorted.
    #[must_use]
    pub fn organisations(&self) -> &[String] {
        &self.organisations
    }

    /// The policy in the form that the ledger keeps.
    ///
    /// # Errors
    /// It names no organisation, or needs more of them than it names.
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        if self.organisations.is_empty() || self.needed == 0 || self.needed > self.organisations.len() {
            return Err(Error::new(format!(
                "a key's policy needs {} of {} organisations, which nobody can satisfy or everybody does",
                self.needed,
                self.organisations.len()
            )));
        }
        // NOutOf { n = 1, rules = 2 }, each rule a SignaturePolicy { signed_by = 1 }.
        let mut gate = Vec::new();
        number(&mut gate, 1, self.needed as u64);
        for index in 0..self.organisations.len() {
            let mut rule = Vec::new();
            number(&mut rule, 1, index as u64);
            message(&mut gate, 2, &rule);
        }
        // SignaturePolicy { n_out_of = 2 }
        let mut rule = Vec::new();
        message(&mut rule, 2, &gate);
        // SignaturePolicyEnvelope { rule = 2, identities = 3 }; version 0 is left out.
        let mut envelope = Vec::new();
        message(&mut envelope, 2, &rule);
        for organisation in &self.organisations {
            // MSPPrincipal { principal_classification = 1 (ROLE, 0, left out), principal = 2 } of MSPRole { msp_identifier = 1, role = 2 }
            let mut role = Vec::new();
            message(&mut role, 1, organisation.as_bytes());
            number(&mut role, 2, ROLE_PEER);
            let mut principal = Vec::new();
            message(&mut principal, 2, &role);
            message(&mut envelope, 3, &principal);
        }
        Ok(envelope)
    }
}

/// `MSPRole.PEER`
const ROLE_PEER: u64 = 3;

fn sorted<'o>(organisations: impl IntoIterator<Item = &'o str>) -> Vec<String> {
    let mut organisations: Vec<String> = organisations.into_iter().map(str::to_owned).collect();
    organisations.sort();
    organisations.dedup();
    organisations
}

/// A field of protobuf's wire format that holds a number.
fn number(into: &mut Vec<u8>, field: u8, value: u64) {
    into.push(field << 3);
    varint(into, value);
}

/// A field of protobuf's wire format that holds bytes.
fn message(into: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    into.push(field << 3 | 2);
    varint(into, bytes.len() as u64);
    into.extend_from_slice(bytes);
}

fn varint(into: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        into.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_has_the_bytes_of_a_signature_policy() {
        let bytes = KeyPolicy::all_of(["B", "A", "A"]).encode().unwrap();
        let expected: &[u8] = &[
            0x12, 0x0c, 0x12, 0x0a, 0x08, 0x02, 0x12, 0x02, 0x08, 0x00, 0x12, 0x02, 0x08, 0x01, // rule
            0x1a, 0x07, 0x12, 0x05, 0x0a, 0x01, b'A', 0x10, 0x03, // a peer of A
            0x1a, 0x07, 0x12, 0x05, 0x0a, 0x01, b'B', 0x10, 0x03, // a peer of B
        ];
        assert_eq!(bytes, expected);
    }

    #[test]
    fn a_policy_that_makes_no_sense_is_refused() {
        assert!(KeyPolicy::all_of([]).encode().is_err());
        assert!(KeyPolicy::some_of(3, ["A", "B"]).encode().is_err());
        assert!(KeyPolicy::some_of(0, ["A"]).encode().is_err());
    }
}
