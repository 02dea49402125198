//! ECDSA signatures as DER, and the rule that S is in the lower half (Fabric `bccsp/utils/ecdsa.go`).

use der::asn1::UintRef;
use der::{Decode, Encode, Sequence, SliceReader};

use crate::Error;
use crate::known_signers::Numbers;

/// Order of NIST P-256 (SP 800-186), big-endian.
const P256_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc,
    0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// Order of NIST P-384 (SP 800-186), big-endian.
const P384_ORDER: [u8; 48] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xc7, 0x63, 0x4d, 0x81, 0xf4, 0x37, 0x2d, 0xdf, 0x58, 0x1a,
    0x0d, 0xb2, 0x48, 0xb0, 0xa7, 0x7a, 0xec, 0xec, 0x19, 0x6a, 0xcc, 0xc5, 0x29, 0x73,
];

/// The curves whose signatures are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Curve {
    P256,
    P384,
}

impl Curve {
    fn order(self) -> &'static [u8] {
        match self {
            Self::P256 => &P256_ORDER,
            Self::P384 => &P384_ORDER,
        }
    }
}

/// A signature's two integers, big-endian without leading zeros; both positive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EcdsaSignature {
    r: Vec<u8>,
    s: Vec<u8>,
}

/// `ECDSA-Sig-Value` (RFC 3279 section 2.2.3).
#[derive(Sequence)]
struct Encoded<'a> {
    r: UintRef<'a>,
    s: UintRef<'a>,
}

impl EcdsaSignature {
    /// Reads a DER sequence. Bytes after the sequence are ignored, as Fabric's nodes do.
    pub(crate) fn from_der(bytes: &[u8]) -> Result<Self, Error> {
        let parsed = SliceReader::new(bytes).and_then(|mut reader| Encoded::decode(&mut reader));
        Self::from_parsed(&parsed.map_err(|_| Error::SignatureEncoding)?)
    }

    /// Reads a DER sequence that fills the input.
    pub(crate) fn from_exact_der(bytes: &[u8]) -> Result<Self, Error> {
        Self::from_parsed(&Encoded::from_der(bytes).map_err(|_| Error::SignatureEncoding)?)
    }

    fn from_parsed(parsed: &Encoded<'_>) -> Result<Self, Error> {
        let [r, s] = [parsed.r, parsed.s].map(|number| without_zeros(number.as_bytes()).to_vec());
        if r.is_empty() || s.is_empty() { Err(Error::SignatureEncoding) } else { Ok(Self { r, s }) }
    }

    pub(crate) fn to_der(&self) -> Vec<u8> {
        let number = |bytes| UintRef::new(bytes).expect("invariant: a signature's number is short");
        let encoded = Encoded { r: number(&self.r), s: number(&self.s) };
        encoded.to_der().expect("invariant: a signature is short")
    }

    /// The curve that a signature of this size stands for: an integer of a larger curve fits into a smaller one only with
    /// negligible probability.
    pub(crate) fn curve(&self) -> Option<Curve> {
        match self.r.len().max(self.s.len()) {
            0..=32 => Some(Curve::P256),
            33..=48 => Some(Curve::P384),
            _ => None,
        }
    }

    /// S is at most half of the order.
    pub(crate) fn is_low(&self, curve: Curve) -> bool {
        match negated(&self.s, curve.order()) {
            Some(twin) => compare(&self.s, &twin).is_le(),
            None => false,
        }
    }

    /// The two numbers in 32 bytes each; `None` when one is longer.
    pub(crate) fn numbers(&self) -> Option<Numbers> {
        let padded = |number: &[u8]| {
            let mut bytes = [0; 32];
            bytes.get_mut(32usize.checked_sub(number.len())?..)?.copy_from_slice(number);
            Some(bytes)
        };
        Some(Numbers { r: padded(&self.r)?, s: padded(&self.s)? })
    }

    /// The twin with the lower S. An S beyond the order stays as it is: no key verifies it.
    pub(crate) fn into_low(mut self, curve: Curve) -> Self {
        if let Some(twin) = negated(&self.s, curve.order())
            && compare(&twin, &self.s).is_lt()
        {
            self.s = twin;
        }
        self
    }
}

fn without_zeros(bytes: &[u8]) -> &[u8] {
    &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..]
}

/// Compares numbers without leading zeros.
fn compare(left: &[u8], right: &[u8]) -> std::cmp::Ordering {
    left.len().cmp(&right.len()).then_with(|| left.cmp(right))
}

/// order - value; `None` when the value is not below the order.
fn negated(value: &[u8], order: &[u8]) -> Option<Vec<u8>> {
    if compare(value, order).is_ge() {
        return None;
    }
    let mut difference = order.to_vec();
    let mut borrow = false;
    let padded = std::iter::repeat_n(0, order.len() - value.len()).chain(value.iter().copied());
    for (digit, subtrahend) in difference.iter_mut().rev().zip(padded.collect::<Vec<_>>().into_iter().rev()) {
        let (without, first) = digit.overflowing_sub(subtrahend);
        let (result, second) = without.overflowing_sub(u8::from(borrow));
        *digit = result;
        borrow = first || second;
    }
    Some(without_zeros(&difference).to_vec())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_twin_of_a_high_signature_is_low() {
        let mut high = P256_ORDER.to_vec();
        high[31] -= 5;
        let signature = EcdsaSignature { r: vec![1], s: high };
        assert!(!signature.is_low(Curve::P256));
        let low = signature.into_low(Curve::P256);
        assert_eq!(low.s, [5]);
        assert!(low.is_low(Curve::P256));
    }

    #[test]
    fn a_signature_beyond_the_order_is_not_low() {
        let signature = EcdsaSignature { r: vec![1], s: P256_ORDER.to_vec() };
        assert!(!signature.is_low(Curve::P256));
        assert_eq!(signature.clone().into_low(Curve::P256), signature);
    }

    #[test]
    fn zero_negative_and_padded_integers_are_no_signature() {
        for bad in [
            &[0x30, 6, 2, 1, 0, 2, 1, 1][..],
            &[0x30, 6, 2, 1, 0x80, 2, 1, 1],
            &[0x30, 7, 2, 2, 0, 1, 2, 1, 1],
            &[0x30, 6, 2, 1, 1, 2, 1, 0],
            &[0x30, 3, 2, 1, 1],
            &[],
            &[0x30],
        ] {
            assert!(matches!(EcdsaSignature::from_der(bad), Err(Error::SignatureEncoding)), "{bad:?}");
        }
    }

    #[test]
    fn bytes_after_a_signature_are_ignored() {
        assert!(EcdsaSignature::from_der(&[0x30, 6, 2, 1, 1, 2, 1, 1, 9, 9]).is_ok());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..150)) {
            if let Ok(signature) = EcdsaSignature::from_der(&bytes) {
                let _ = signature.is_low(Curve::P256);
                let _ = signature.into_low(Curve::P384);
            }
        }

        #[test]
        fn writing_and_reading_agree(r in proptest::collection::vec(any::<u8>(), 1..48), s in proptest::collection::vec(any::<u8>(), 1..48)) {
            prop_assume!(r.iter().any(|byte| *byte != 0) && s.iter().any(|byte| *byte != 0));
            let signature = EcdsaSignature { r: without_zeros(&r).to_vec(), s: without_zeros(&s).to_vec() };
            prop_assert_eq!(EcdsaSignature::from_der(&signature.to_der()).unwrap(), signature);
        }
    }
}
