//! Reading typed values out of a mapping, noting a fault instead of stopping at the first.
//!
//! Always: a value that cannot be read is noted once, with its line, and reading goes on with a default that no later
//! check complains about; [`Section::finish`] notes every key that nobody asked for.

use std::time::Duration;

use super::document::{Entry, Kind, Node};
use super::faults::Faults;

/// A value together with the line it stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Located<T> {
    pub(crate) value: T,
    pub(crate) line: usize,
}

/// One mapping of the file while it is being read.
pub(crate) struct Section<'a> {
    entries: &'a [Entry],
    line: usize,
    /// Where it is, in words: `peer 2 of organisation Org1`.
    place: String,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// Takes a node that must be a mapping.
    pub(crate) fn new(node: &'a Node, place: impl Into<String>, faults: &mut Faults) -> Option<Self> {
        let place = place.into();
        match &node.kind {
            Kind::Map(entries) => Some(Self { entries, line: node.line, place, known: Vec::new() }),
            _ => {
                faults.error(
                    node.line,
                    format!("{place}: expected a mapping of keys to values, found {}", node.describe()),
                );
                None
            }
        }
    }

    /// The line on which the mapping starts.
    pub(crate) fn line(&self) -> usize {
        self.line
    }

    /// The value of a key, if it is given and not left empty.
    pub(crate) fn optional(&mut self, key: &'static str) -> Option<&'a Node> {
        self.known.push(key);
        self.entries
            .iter()
            .find(|entry| entry.key == key)
            .map(|entry| &entry.value)
            .filter(|node| !node.is_nothing())
    }

    /// The value of a key; its absence is a fault.
    pub(crate) fn required(&mut self, key: &'static str, faults: &mut Faults) -> Option<&'a Node> {
        let found = self.optional(key);
        if found.is_none() {
            let line =
                self.entries.iter().find(|entry| entry.key == key).map_or(self.line, |entry| entry.line);
            faults.error(line, format!("{}: '{key}' is missing", self.place));
        }
        found
    }

    /// A text; numbers and booleans are taken as they are written.
    pub(crate) fn text(&mut self, key: &'static str, faults: &mut Faults) -> Option<Located<String>> {
        let node = self.required(key, faults)?;
        self.as_text(key, node, faults)
    }

    /// A text that may be left out.
    pub(crate) fn optional_text(
        &mut self,
        key: &'static str,
        faults: &mut Faults,
    ) -> Option<Located<String>> {
        let node = self.optional(key)?;
        self.as_text(key, node, faults)
    }

    fn as_text(&self, key: &str, node: &Node, faults: &mut Faults) -> Option<Located<String>> {
        match &node.kind {
            Kind::Scalar { text, .. } => Some(Located { value: text.clone(), line: node.line }),
            _ => {
                self.wrong_type(key, "a text", node, faults);
                None
            }
        }
    }

    /// A whole number within bounds that may be left out.
    pub(crate) fn optional_number(
        &mut self,
        key: &'static str,
        bounds: std::ops::RangeInclusive<u64>,
        faults: &mut Faults,
    ) -> Option<Located<u64>> {
        let node = self.optional(key)?;
        let Kind::Scalar { text, quoted: false } = &node.kind else {
            self.wrong_type(key, "a whole number", node, faults);
            return None;
        };
        match text.parse::<u64>() {
            Ok(value) if bounds.contains(&value) => Some(Located { value, line: node.line }),
            Ok(value) => {
                let message =
                    format!("'{key}' is {value}; it must be from {} to {}", bounds.start(), bounds.end());
                faults.error(node.line, format!("{}: {message}", self.place));
                None
            }
            Err(_) => {
                faults.error(
                    node.line,
                    format!("{}: '{key}' must be a whole number, not '{text}'", self.place),
                );
                None
            }
        }
    }

    /// A TCP port.
    pub(crate) fn port(&mut self, key: &'static str, faults: &mut Faults) -> Option<Located<u16>> {
        self.required(key, faults)?;
        let port = self.optional_number(key, 1..=u64::from(u16::MAX), faults)?;
        let value = u16::try_from(port.value).ok()?;
        Some(Located { value, line: port.line })
    }

    /// `true` or `false`, which may be left out.
    pub(crate) fn optional_flag(&mut self, key: &'static str, faults: &mut Faults) -> Option<bool> {
        let node = self.optional(key)?;
        match &node.kind {
            Kind::Scalar { text, quoted: false } if text == "true" => Some(true),
            Kind::Scalar { text, quoted: false } if text == "false" => Some(false),
            _ => {
                self.wrong_type(key, "true or false", node, faults);
                None
            }
        }
    }

    /// A size such as `512 KB`, `10 MB` or a number of bytes; KB and MB are powers of 1024, as in Fabric's profiles.
    pub(crate) fn optional_bytes(&mut self, key: &'static str, faults: &mut Faults) -> Option<Located<u32>> {
        let node = self.optional(key)?;
        let text = self.as_text(key, node, faults)?;
        let value = parse_bytes(&text.value);
        if value.is_none() {
            let message = format!("'{key}' must be a size such as '512 KB' or '10 MB', not '{}'", text.value);
            faults.error(node.line, format!("{}: {message}", self.place));
        }
        value.map(|value| Located { value, line: node.line })
    }

    /// A duration such as `200ms`, `2s` or `1m30s`, at least a millisecond.
    pub(crate) fn optional_duration(
        &mut self,
        key: &'static str,
        faults: &mut Faults,
    ) -> Option<Located<Duration>> {
        let node = self.optional(key)?;
        let text = self.as_text(key, node, faults)?;
        let value = parse_duration(&text.value);
        if value.is_none() {
            let message = format!("'{key}' must be a duration such as '200ms' or '2s', not '{}'", text.value);
            faults.error(node.line, format!("{}: {message}", self.place));
        }
        value.map(|value| Located { value, line: node.line })
    }

    /// The items of a list; absent is empty.
    pub(crate) fn list(&mut self, key: &'static str, faults: &mut Faults) -> &'a [Node] {
        let Some(node) = self.optional(key) else { return &[] };
        match &node.kind {
            Kind::List(items) => items,
            _ => {
                self.wrong_type(key, "a list", node, faults);
                &[]
            }
        }
    }

    /// The entries of a mapping with free keys; absent is empty.
    pub(crate) fn entries(&mut self, key: &'static str, faults: &mut Faults) -> &'a [Entry] {
        let Some(node) = self.optional(key) else { return &[] };
        match &node.kind {
            Kind::Map(entries) => entries,
            _ => {
                self.wrong_type(key, "a mapping", node, faults);
                &[]
            }
        }
    }

    /// Notes every key that nobody asked for, with the nearest known one.
    pub(crate) fn finish(self, faults: &mut Faults) {
        for entry in self.entries.iter().filter(|entry| !self.known.contains(&entry.key.as_str())) {
            let nearest = self
                .known
                .iter()
                .map(|known| (edit_distance(&entry.key, known), known))
                .filter(|(distance, known)| *distance <= 1 + known.len() / 4)
                .min();
            let hint = match nearest {
                Some((_, known)) => format!("did you mean '{known}'?"),
                None => format!("known are: {}", self.known.join(", ")),
            };
            faults.error(entry.line, format!("{}: unknown key '{}' ({hint})", self.place, entry.key));
        }
    }

    fn wrong_type(&self, key: &str, expected: &str, node: &Node, faults: &mut Faults) {
        let found = match &node.kind {
            Kind::Scalar { text, .. } => format!("'{text}'"),
            _ => node.describe().to_owned(),
        };
        faults.error(node.line, format!("{}: '{key}' must be {expected}, not {found}", self.place));
    }
}

/// Reads `99 MB`, `512KB`, `1048576`.
fn parse_bytes(text: &str) -> Option<u32> {
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic()).trim_end();
    let factor: u32 = match text[digits.len()..].trim().to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "KB" => 1024,
        "MB" => 1024 * 1024,
        _ => return None,
    };
    digits.parse::<u32>().ok()?.checked_mul(factor).filter(|bytes| *bytes > 0)
}

/// Reads durations as Go writes them, without fractions: a chain of numbers with the units h, m, s, ms.
fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|character: char| !character.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let after = &rest[digits..];
        let unit = after.find(|character: char| character.is_ascii_digit()).unwrap_or(after.len());
        let milliseconds = match &after[..unit] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        total = total.checked_add(Duration::from_millis(number.checked_mul(milliseconds)?))?;
        rest = &after[unit..];
    }
    Some(total).filter(|total| !total.is_zero())
}

/// Number of single-character edits between two words (Levenshtein).
fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, from) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_fabric_profiles_write_them() {
        assert_eq!(parse_bytes("512 KB"), Some(524_288));
        assert_eq!(parse_bytes("10MB"), Some(10_485_760));
        assert_eq!(parse_bytes("99"), Some(99));
        for wrong in ["", "MB", "1 GB", "-1", "0", "5000 MB", "1.5 MB"] {
            assert_eq!(parse_bytes(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn durations_are_read_as_go_writes_them() {
        assert_eq!(parse_duration("200ms"), Some(Duration::from_millis(200)));
        assert_eq!(parse_duration("1m30s"), Some(Duration::from_secs(90)));
        for wrong in ["", "2", "s", "2 s", "0s", "2x", "-1s"] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_misspelt_key_is_close_to_its_neighbour() {
        assert_eq!(edit_distance("organisation", "organisations"), 1);
        assert_eq!(edit_distance("msp_id", "mspid"), 1);
        assert_eq!(edit_distance("", "abc"), 3);
    }
}
