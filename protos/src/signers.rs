//! Who signed an aggregate: a set of entries of the channel's table of identities, as bits.
//!
//! Bit `i % 8` of byte `i / 8`, lowest bit first, stands for entry `i`. A set has one form: it is not empty and its last byte
//! is not zero. Everybody can be in it once.

use bytes::Bytes;

/// Bytes of the largest set. Entries beyond its 8,192 bits sign for themselves; the bound keeps a small transaction from asking
/// for much work.
pub const SIGNERS_BYTES_MAX: usize = 1024;

/// Signers of the largest set: more than any policy asks for. It bounds the work behind one transaction.
pub const SIGNERS_MAX: usize = 128;

/// The set in its only form. `None` when it is empty or too large, or names an entry that has no bit.
#[must_use]
pub fn encode(entries: impl IntoIterator<Item = u64>) -> Option<Bytes> {
    let mut bytes: Vec<u8> = Vec::new();
    for entry in entries {
        let byte = usize::try_from(entry / 8).ok().filter(|byte| *byte < SIGNERS_BYTES_MAX)?;
        if bytes.len() <= byte {
            bytes.resize(byte + 1, 0);
        }
        bytes[byte] |= 1 << (entry % 8);
    }
    (!bytes.is_empty() && count(&bytes) <= SIGNERS_MAX).then(|| bytes.into())
}

/// The entries of a set, ascending. `None` when it is empty, too large, or not in its only form.
#[must_use]
pub fn decode(bytes: &[u8]) -> Option<Vec<u64>> {
    let sized = bytes.len() <= SIGNERS_BYTES_MAX && count(bytes) <= SIGNERS_MAX;
    if !sized || bytes.last().is_none_or(|last| *last == 0) {
        return None;
    }
    let bits = (0u64..).zip(bytes).flat_map(|(index, byte)| {
        (0..8u64).filter(move |bit| byte & (1 << bit) != 0).map(move |bit| 8 * index + bit)
    });
    Some(bits.collect())
}

fn count(bytes: &[u8]) -> usize {
    bytes.iter().map(|byte| byte.count_ones() as usize).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_set_has_one_form() {
        assert_eq!(encode([0, 3, 9]).unwrap()[..], [0b1001, 0b10]);
        assert_eq!(encode([9, 3, 0, 3]), encode([0, 3, 9]));
        assert_eq!(decode(&[0b1001, 0b10]), Some(vec![0, 3, 9]));
        for other in [&[][..], &[0], &[0b1001, 0b10, 0], &[0; 3], &[1; SIGNERS_BYTES_MAX + 1]] {
            assert_eq!(decode(other), None, "{other:?}");
        }
    }

    #[test]
    fn entries_beyond_the_largest_set_have_no_bit() {
        let last = 8 * SIGNERS_BYTES_MAX as u64 - 1;
        assert_eq!(decode(&encode([last]).unwrap()), Some(vec![last]));
        assert_eq!(encode([last + 1]), None);
        assert_eq!(encode([u64::MAX]), None);
        assert_eq!(encode([]), None);
        assert_eq!(decode(&encode(0..128).unwrap()).unwrap().len(), SIGNERS_MAX);
        assert_eq!(encode(0..129), None);
        assert_eq!(decode(&[0xff; 17]), None);
    }

    proptest! {
        #[test]
        fn what_can_be_read_is_written_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..16)) {
            if let Some(entries) = decode(&bytes) {
                prop_assert_eq!(&encode(entries).unwrap()[..], &bytes[..]);
            } else {
                prop_assert!(bytes.last().is_none_or(|last| *last == 0));
            }
        }
    }
}
