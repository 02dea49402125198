//! A YAML document as a tree in which every key and value knows its line.
//!
//! Scalars keep their text and whether they were quoted, so that `version: 1.10` stays `1.10` and the reader can tell
//! `7051` from `"7051"`. Anchors and aliases are refused: a topology is short enough to be written out.

use granit_parser::{Event, Parser, ScalarStyle, Span};

use super::faults::Faults;

/// Deepest nesting that is read; a topology needs six levels, the rest is a mistake or an attack on the stack.
const DEPTH_MAX: usize = 32;

/// A value and the line (from 1) on which it starts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) line: usize,
    pub(crate) kind: Kind,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    /// A scalar; `quoted` when it cannot be a number, a boolean or nothing.
    Scalar { text: String, quoted: bool },
    /// A list.
    List(Vec<Node>),
    /// A mapping in the order of the file.
    Map(Vec<Entry>),
}

/// One `key: value` of a mapping.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) line: usize,
    pub(crate) value: Node,
}

impl Node {
    /// The kind of value in words, for messages.
    pub(crate) fn describe(&self) -> &'static str {
        match &self.kind {
            Kind::Scalar { text, quoted: false } if is_null(text) => "nothing",
            Kind::Scalar { .. } => "a single value",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
        }
    }

    /// Whether the value was left out (`key:`) or is `null`.
    pub(crate) fn is_nothing(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { text, quoted: false } if is_null(text))
    }
}

/// Whether an event belongs to a value, rather than to the stream around it.
fn is_content(event: &Event<'_>) -> bool {
    !matches!(
        event,
        Event::Comment(..)
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(..)
            | Event::DocumentEnd
    )
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// Reads one document. A text that is no YAML gives one fault, because nothing after it can be trusted.
pub(crate) fn parse(text: &str, faults: &mut Faults) -> Option<Node> {
    let mut events = Vec::new();
    for event in Parser::new_from_str(text) {
        match event {
            Ok((event, _)) if !is_content(&event) => {}
            Ok(event) => events.push(event),
            Err(error) => {
                faults.error(error.marker().line(), format!("not valid YAML: {error}"));
                return None;
            }
        }
    }
    let mut events = events.into_iter();
    let first = events.next();
    let Some(first) = first else {
        faults.error(1, "the file is empty");
        return None;
    };
    let root = build(first, &mut events, 0, faults)?;
    if let Some((_, span)) = events.next() {
        faults.error(span.start.line(), "a second YAML document: a topology is one document");
    }
    Some(root)
}

type Located<'a> = (Event<'a>, Span);

fn build<'a>(
    (event, span): Located<'a>,
    events: &mut impl Iterator<Item = Located<'a>>,
    depth: usize,
    faults: &mut Faults,
) -> Option<Node> {
    let line = span.start.line();
    if depth > DEPTH_MAX {
        faults.error(line, format!("nested deeper than {DEPTH_MAX} levels"));
        return None;
    }
    let kind = match event {
        Event::Scalar(text, style, _, _) => {
            Kind::Scalar { text: text.into_owned(), quoted: style != ScalarStyle::Plain }
        }
        Event::SequenceStart(..) => {
            let mut items = Vec::new();
            loop {
                match events.next()? {
                    (Event::SequenceEnd, _) => break Kind::List(items),
                    event => items.push(build(event, events, depth + 1, faults)?),
                }
            }
        }
        Event::MappingStart(..) => Kind::Map(build_map(events, depth, faults)?),
        _ => {
            faults.error(line, "anchors and aliases are not supported in a topology: write the value out");
            return None;
        }
    };
    Some(Node { line, kind })
}

fn build_map<'a>(
    events: &mut impl Iterator<Item = Located<'a>>,
    depth: usize,
    faults: &mut Faults,
) -> Option<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let (key, line) = match events.next()? {
            (Event::MappingEnd, _) => return Some(entries),
            (Event::Scalar(text, ..), span) => (text.into_owned(), span.start.line()),
            (_, span) => {
                faults.error(span.start.line(), "a key must be a single value");
                return None;
            }
        };
        let value = build(events.next()?, events, depth + 1, faults)?;
        if let Some(first) = entries.iter().find(|entry| entry.key == key) {
            faults.error(line, format!("key '{key}' is given twice (first on line {})", first.line));
            continue;
        }
        entries.push(Entry { key, line, value });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_knows_its_line() {
        let mut faults = Faults::default();
        let root = parse("a: 1\n# comment\nb:\n  - x\n  - c: \"2\"\n", &mut faults).unwrap();
        let Kind::Map(entries) = root.kind else { panic!("a mapping") };
        assert_eq!((entries[0].line, entries[1].line), (1, 3));
        let Kind::List(items) = &entries[1].value.kind else { panic!("a list") };
        assert_eq!((items[0].line, items[1].line), (4, 5));
        assert!(faults.is_empty());
    }

    #[test]
    fn broken_yaml_is_one_fault_with_its_line() {
        let mut faults = Faults::default();
        assert!(parse("a: 1\nb: [1, 2\nc: 3\n", &mut faults).is_none());
        assert_eq!(faults.iter().count(), 1);
        assert!(faults.iter().all(|fault| fault.line >= 2), "{faults:?}");
    }

    #[test]
    fn a_key_given_twice_is_reported_and_reading_goes_on() {
        let mut faults = Faults::default();
        assert!(parse("a: 1\nb: 2\na: 3\n", &mut faults).is_some());
        let fault = faults.iter().next().unwrap();
        assert_eq!(fault.line, 3);
        assert!(fault.message.contains("line 1"));
    }

    #[test]
    fn an_alias_is_refused() {
        let mut faults = Faults::default();
        assert!(parse("a: &x 1\nb: *x\n", &mut faults).is_none());
        assert_eq!(faults.iter().next().unwrap().line, 2);
    }
}
