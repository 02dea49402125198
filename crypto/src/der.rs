//! Writing ASN.1 DER (X.690): the few types that headers, signatures and certificates need.

use time::OffsetDateTime;

pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const UTF8_STRING: u8 = 0x0c;
pub(crate) const PRINTABLE_STRING: u8 = 0x13;
const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OBJECT_IDENTIFIER: u8 = 0x06;
const ENUMERATED: u8 = 0x0a;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// A tag, the length and the content.
pub(crate) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 6);
    out.push(tag);
    if content.len() < 0x80 {
        out.push(u8::try_from(content.len()).expect("invariant: below 128"));
    } else {
        let length = content.len().to_be_bytes();
        let significant = &length[length.iter().take_while(|byte| **byte == 0).count()..];
        out.push(0x80 | u8::try_from(significant.len()).expect("invariant: at most 8 bytes"));
        out.extend_from_slice(significant);
    }
    out.extend_from_slice(content);
    out
}

/// A sequence of elements.
pub(crate) fn sequence(elements: &[&[u8]]) -> Vec<u8> {
    element(SEQUENCE, &elements.concat())
}

/// Elements of a set, in DER's order.
pub(crate) fn set(mut elements: Vec<Vec<u8>>) -> Vec<u8> {
    elements.sort();
    element(SET, &elements.concat())
}

/// A non-negative integer out of big-endian bytes.
pub(crate) fn unsigned(bytes: &[u8]) -> Vec<u8> {
    let significant = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
    let mut content = Vec::with_capacity(significant.len() + 1);
    if significant.first().is_none_or(|first| first & 0x80 != 0) {
        content.push(0);
    }
    content.extend_from_slice(significant);
    element(INTEGER, &content)
}

/// A bit string of whole bytes.
pub(crate) fn bit_string(bytes: &[u8]) -> Vec<u8> {
    element(BIT_STRING, &[&[0], bytes].concat())
}

/// Named bits: bit 0 is the highest of the first byte; trailing zero bits are left out, as DER wants.
pub(crate) fn named_bits(bits: u16) -> Vec<u8> {
    if bits == 0 {
        return element(BIT_STRING, &[0]);
    }
    let bytes = bits.reverse_bits().to_be_bytes();
    let used = if bytes[1] == 0 { &bytes[..1] } else { &bytes[..] };
    let unused = u8::try_from(used[used.len() - 1].trailing_zeros()).expect("invariant: at most 8");
    element(BIT_STRING, &[&[unused], used].concat())
}

/// A truth value.
pub(crate) fn boolean(value: bool) -> Vec<u8> {
    element(BOOLEAN, &[if value { 0xff } else { 0 }])
}

/// A small number of an enumeration.
pub(crate) fn enumerated(value: u8) -> Vec<u8> {
    element(ENUMERATED, &[value])
}

/// An object identifier of at least two components.
pub(crate) fn object_identifier(components: &[u32]) -> Vec<u8> {
    let mut content = vec![];
    base128(components[0] * 40 + components[1], &mut content);
    for component in &components[2..] {
        base128(*component, &mut content);
    }
    element(OBJECT_IDENTIFIER, &content)
}

fn base128(value: u32, out: &mut Vec<u8>) {
    for shift in [28, 21, 14, 7] {
        if value >> shift != 0 {
            out.push(0x80 | ((value >> shift) & 0x7f) as u8);
        }
    }
    out.push((value & 0x7f) as u8);
}

/// A context-specific constructed element, such as `[0] EXPLICIT`.
pub(crate) fn tagged(number: u8, content: &[u8]) -> Vec<u8> {
    element(0xa0 | number, content)
}

/// A context-specific primitive element, such as `[0] IMPLICIT OCTET STRING`.
pub(crate) fn tagged_primitive(number: u8, content: &[u8]) -> Vec<u8> {
    element(0x80 | number, content)
}

/// A time to the second, in the form that RFC 5280 section 4.1.2.5 demands for its year.
pub(crate) fn time(time: OffsetDateTime) -> Vec<u8> {
    let time = time.to_offset(time::UtcOffset::UTC);
    let rest = format!(
        "{:02}{:02}{:02}{:02}{:02}Z",
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second()
    );
    if (1950..2050).contains(&time.year()) {
        element(UTC_TIME, format!("{:02}{rest}", time.year() % 100).as_bytes())
    } else {
        element(GENERALIZED_TIME, format!("{:04}{rest}", time.year()).as_bytes())
    }
}

/// The content of a sequence that fills the input.
pub(crate) fn content_of_sequence(bytes: &[u8]) -> Option<&[u8]> {
    let (header, length) = header(bytes)?;
    (bytes.first() == Some(&SEQUENCE) && bytes.len() == header + length).then(|| &bytes[header..])
}

/// The first element of the input, with its header.
pub(crate) fn first_element(bytes: &[u8]) -> Option<&[u8]> {
    let (header, length) = header(bytes)?;
    bytes.get(..header.checked_add(length)?)
}

/// Lengths of an element's header and content.
fn header(bytes: &[u8]) -> Option<(usize, usize)> {
    match *bytes.get(1)? {
        short @ 0..=0x7f => Some((2, usize::from(short))),
        long @ 0x81..=0x84 => {
            let count = usize::from(long & 0x7f);
            let length =
                bytes.get(2..2 + count)?.iter().fold(0, |length, byte| (length << 8) | usize::from(*byte));
            Some((2 + count, length))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn integers_are_minimal_and_never_negative() {
        assert_eq!(unsigned(&[]), [2, 1, 0]);
        assert_eq!(unsigned(&[0, 0]), [2, 1, 0]);
        assert_eq!(unsigned(&[0, 0x7f]), [2, 1, 0x7f]);
        assert_eq!(unsigned(&[0x80]), [2, 2, 0, 0x80]);
    }

    #[test]
    fn long_contents_have_long_lengths() {
        assert_eq!(element(4, &[7; 127])[..2], [4, 127]);
        assert_eq!(element(4, &[7; 128])[..3], [4, 0x81, 128]);
        assert_eq!(element(4, &[7; 256])[..4], [4, 0x82, 1, 0]);
    }

    #[test]
    fn named_bits_lose_their_trailing_zeros() {
        assert_eq!(named_bits(1), [3, 2, 7, 0x80]);
        assert_eq!(named_bits(0b110_0000), [3, 2, 1, 0b110]);
        assert_eq!(named_bits(1 << 8), [3, 3, 7, 0, 0x80]);
    }

    #[test]
    fn the_year_decides_the_form_of_a_time() {
        assert_eq!(time(datetime!(2049-12-31 23:59:59 UTC))[2..], *b"491231235959Z");
        assert_eq!(time(datetime!(2050-01-01 00:00:00 UTC))[2..], *b"20500101000000Z");
    }

    #[test]
    fn object_identifiers_pack_seven_bits_a_byte() {
        assert_eq!(object_identifier(&[1, 2, 840, 10045, 2, 1]), [6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1]);
    }
}
