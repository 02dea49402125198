//! PEM (RFC 7468), read as leniently as Fabric's nodes read it: text around blocks does not matter, nor do line ends.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Characters of base64 on a line (RFC 7468 section 2).
const LINE_CHARACTERS: usize = 64;

/// A block.
#[derive(Clone, PartialEq, Eq)]
pub struct Block {
    /// What stands after BEGIN, such as `CERTIFICATE`.
    pub label: String,
    /// The decoded contents.
    pub contents: Vec<u8>,
}

impl std::fmt::Debug for Block {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The block may be a private key.
        formatter.debug_struct("Block").field("label", &self.label).finish_non_exhaustive()
    }
}

/// Writes a block.
#[must_use]
pub fn encode(label: &str, contents: &[u8]) -> String {
    let encoded = STANDARD.encode(contents);
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in encoded.as_bytes().chunks(LINE_CHARACTERS) {
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// The first block of a text.
#[must_use]
pub fn first_block(text: &[u8]) -> Option<Block> {
    blocks(text).next()
}

/// All blocks of a text, in order; damaged ones are passed over.
pub fn blocks(text: &[u8]) -> impl Iterator<Item = Block> {
    let mut lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    std::iter::from_fn(move || {
        loop {
            let label = lines.by_ref().find_map(begin)?;
            let mut encoded = Vec::new();
            for line in lines.by_ref() {
                if let Some(end) = line.strip_prefix(b"-----END ") {
                    if end.strip_suffix(b"-----") == Some(label.as_bytes())
                        && let Ok(contents) = STANDARD.decode(&encoded)
                    {
                        return Some(Block { label, contents });
                    }
                    break;
                }
                // Headers of the older form (RFC 1421), such as "Proc-Type: ...".
                if !line.contains(&b':') {
                    encoded.extend(line.iter().filter(|byte| !byte.is_ascii_whitespace()));
                }
            }
        }
    })
}

fn begin(line: &[u8]) -> Option<String> {
    let label = line.strip_prefix(b"-----BEGIN ")?.strip_suffix(b"-----")?;
    String::from_utf8(label.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_around_blocks_and_line_ends_do_not_matter() {
        let text = format!(
            "hello\n{}between\r\n{}",
            encode("A", b"one"),
            encode("B", &[7; 100]).replace('\n', "\r\n")
        );
        let found: Vec<Block> = blocks(text.as_bytes()).collect();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].label.as_str(), found[0].contents.as_slice()), ("A", &b"one"[..]));
        assert_eq!((found[1].label.as_str(), found[1].contents.as_slice()), ("B", &[7; 100][..]));
    }

    #[test]
    fn a_damaged_block_is_passed_over() {
        let text = format!("-----BEGIN A-----\n!!!!\n-----END A-----\n{}", encode("B", b"x"));
        assert_eq!(first_block(text.as_bytes()).unwrap().label, "B");
    }

    proptest! {
        #[test]
        fn every_content_survives(contents in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(first_block(encode("X", &contents).as_bytes()).unwrap().contents, contents);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = blocks(&bytes).count();
        }
    }
}
