//! Composite keys: several words in one key, so that a range can ask for all keys that begin alike.
//!
//! The layout is Fabric's (`shim.CreateCompositeKey`): U+0000, then every component followed by U+0000.
//! Plain keys never begin with U+0000, so the two kinds do not meet.

use crate::Error;

/// Opens a composite key and ends each component.
const SEPARATOR: char = '\u{0}';
/// Greater than every character of a component: one past the end of a prefix.
const BEYOND: char = '\u{10FFFF}';

/// The key made of a type and its attributes.
///
/// # Errors
/// A component contains U+0000 or U+10FFFF.
pub fn composite_key(object_type: &str, attributes: &[&str]) -> Result<String, Error> {
    let mut key = String::from(SEPARATOR);
    for component in std::iter::once(&object_type).chain(attributes) {
        if let Some(position) = component.find([SEPARATOR, BEYOND]) {
            return Err(Error::new(format!(
                "a component of a composite key contains U+0000 or U+10FFFF at position {position}, which is not allowed"
            )));
        }
        key.push_str(component);
        key.push(SEPARATOR);
    }
    Ok(key)
}

/// The components of a composite key: its type first.
///
/// # Errors
/// The key is not a composite key.
pub fn split_composite_key(key: &str) -> Result<Vec<&str>, Error> {
    key.strip_prefix(SEPARATOR)
        .and_then(|rest| rest.strip_suffix(SEPARATOR))
        .map(|components| components.split(SEPARATOR).collect())
        .ok_or_else(|| Error::new(format!("{key:?} is not a composite key")))
}

/// Start and end of the range of all keys whose first components are these.
pub(crate) fn composite_range(object_type: &str, attributes: &[&str]) -> Result<(String, String), Error> {
    let start = composite_key(object_type, attributes)?;
    let mut end = start.clone();
    end.push(BEYOND);
    Ok((start, end))
}

/// Start of a plain range: an empty one begins behind all composite keys.
pub(crate) fn plain_start(start: &str) -> &str {
    if start.is_empty() { "\u{1}" } else { start }
}

/// Refuses U+0000 at the front of a plain range's ends.
pub(crate) fn check_plain(key: &str) -> Result<(), Error> {
    if key.starts_with(SEPARATOR) {
        return Err(Error::new(format!(
            "first character of the key [{key}] contains a null character which is not allowed"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_composite_key_has_the_layout_of_the_shims() {
        assert_eq!(composite_key("owner~id", &["tom", "1"]).unwrap(), "\u{0}owner~id\u{0}tom\u{0}1\u{0}");
    }

    #[test]
    fn a_component_with_a_separator_is_refused() {
        assert!(composite_key("owner", &["to\u{0}m"]).is_err());
        assert!(composite_key("own\u{10FFFF}er", &[]).is_err());
    }

    proptest::proptest! {
        #[test]
        fn splitting_gives_back_what_was_joined(kind in "[^\u{0}\u{10FFFF}]*", attributes in proptest::collection::vec("[^\u{0}\u{10FFFF}]*", 0..5)) {
            let borrowed: Vec<&str> = attributes.iter().map(String::as_str).collect();
            let key = composite_key(&kind, &borrowed).unwrap();
            let parts = split_composite_key(&key).unwrap();
            proptest::prop_assert_eq!(parts[0], kind.as_str());
            proptest::prop_assert_eq!(&parts[1..], borrowed.as_slice());
        }
    }
}
