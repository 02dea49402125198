//! Byte forms whose order is the order of what they stand for.

use std::cmp::Ordering;

/// Ends an escaped part of a key; smaller than anything that the part could go on with.
const PART_END: [u8; 2] = [0, 0];

/// Stands for a zero byte inside a part, so that no part looks like the end of one.
const ESCAPED_ZERO: [u8; 2] = [0, 0xff];

/// Appends a part of a composite database key so that keys sort by part after part, whatever bytes a part holds.
pub(crate) fn push_part(key: &mut Vec<u8>, part: &[u8]) {
    let mut runs = part.split(|&byte| byte == 0);
    key.extend_from_slice(runs.next().unwrap_or_default());
    for run in runs {
        key.extend_from_slice(&ESCAPED_ZERO);
        key.extend_from_slice(run);
    }
    key.extend_from_slice(&PART_END);
}

/// Takes the first part off a composite key: the part and what follows it.
pub(crate) fn split_part(key: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut part = Vec::new();
    let mut rest = key;
    loop {
        match rest {
            [0, 0, rest @ ..] => return Some((part, rest)),
            [0, 0xff, after @ ..] => {
                part.push(0);
                rest = after;
            }
            [0, ..] | [] => return None,
            [byte, after @ ..] => {
                part.push(*byte);
                rest = after;
            }
        }
    }
}

/// Takes a part off a composite key that begins with it; else says how the key stands to all keys that do.
pub(crate) fn strip_part<'k>(key: &'k [u8], part: &[u8]) -> Result<&'k [u8], Ordering> {
    let mut escaped = Vec::new();
    let stored: &[u8] = if part.contains(&0) {
        push_part(&mut escaped, part);
        &escaped[..escaped.len() - PART_END.len()]
    } else {
        part
    };
    let shared = key.len().min(stored.len());
    let order = key[..shared].cmp(&stored[..shared]);
    if order.is_ne() || key.len() < stored.len() {
        return Err(order.then(Ordering::Less));
    }
    let rest = &key[stored.len()..];
    rest.strip_prefix(&PART_END).ok_or_else(|| rest.cmp(&PART_END))
}

/// The smallest key that is greater than every key with this prefix, where one exists.
pub(crate) fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

/// Appends Fabric's order preserving form of a number: how many significant bytes it has, then these bytes, most significant first.
pub(crate) fn push_number(bytes: &mut Vec<u8>, number: u64) {
    let big_endian = number.to_be_bytes();
    let zeros = (number.leading_zeros() / 8) as usize;
    bytes.push((big_endian.len() - zeros) as u8);
    bytes.extend_from_slice(&big_endian[zeros..]);
}

/// Reads a number that [`push_number`] wrote, and what follows it.
pub(crate) fn split_number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (&length, rest) = bytes.split_first()?;
    let length = usize::from(length);
    if length > 8 || rest.len() < length {
        return None;
    }
    let (digits, rest) = rest.split_at(length);
    Some((digits.iter().fold(0, |number, &digit| number << 8 | u64::from(digit)), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_have_fabrics_order_preserving_form() {
        for (number, expected) in [
            (0, vec![0]),
            (5, vec![1, 5]),
            (300, vec![2, 1, 0x2c]),
            (u64::MAX, vec![8, 255, 255, 255, 255, 255, 255, 255, 255]),
        ] {
            let mut bytes = Vec::new();
            push_number(&mut bytes, number);
            assert_eq!(bytes, expected);
        }
    }

    #[test]
    fn the_end_of_a_prefix_carries_over_full_bytes() {
        assert_eq!(prefix_end(&[1, 2]), Some(vec![1, 3]));
        assert_eq!(prefix_end(&[1, 255]), Some(vec![2]));
        assert_eq!(prefix_end(&[255]), None);
    }

    proptest! {
        #[test]
        fn composite_keys_sort_like_their_parts(a in any::<(Vec<u8>, Vec<u8>)>(), b in any::<(Vec<u8>, Vec<u8>)>()) {
            let join = |(first, second): &(Vec<u8>, Vec<u8>)| {
                let mut key = Vec::new();
                push_part(&mut key, first);
                key.extend_from_slice(second);
                key
            };
            prop_assert_eq!(a.cmp(&b), join(&a).cmp(&join(&b)));
            match strip_part(&join(&a), &b.0) {
                Ok(rest) => prop_assert_eq!((a.0.as_slice(), rest), (b.0.as_slice(), a.1.as_slice())),
                Err(order) => prop_assert_eq!(order, join(&a).cmp(&join(&b))),
            }
            let joined = join(&a);
            prop_assert_eq!(split_part(&joined), Some((a.0, a.1.as_slice())));
        }

        #[test]
        fn numbers_sort_like_their_bytes_and_read_back(a: u64, b: u64) {
            let bytes = |number| { let mut bytes = Vec::new(); push_number(&mut bytes, number); bytes };
            prop_assert_eq!(a.cmp(&b), bytes(a).cmp(&bytes(b)));
            let stored = bytes(a);
            prop_assert_eq!(split_number(&stored), Some((a, &[][..])));
        }

        #[test]
        fn foreign_bytes_are_refused_not_trusted(bytes: Vec<u8>) {
            let _ = split_part(&bytes);
            let _ = split_number(&bytes);
            let _ = prefix_end(&bytes);
        }
    }
}
