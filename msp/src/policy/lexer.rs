//! Words of the policy language, with their positions for error messages.

use std::fmt;

use super::language::PolicyTextError;

/// What a word is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind<'a> {
    Name(&'a str),
    /// A quoted string, without its quotes.
    Text(&'a str),
    /// A number; fractions are cut off.
    Number(i64),
    Operator(&'a str),
    End,
}

impl fmt::Display for TokenKind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "Identifier({name:?})"),
            Self::Text(text) => write!(f, "String({text:?})"),
            Self::Number(number) => write!(f, "Number(\"{number}\")"),
            Self::Operator(sign @ ("(" | ")")) => write!(f, "Bracket({sign:?})"),
            Self::Operator(sign) => write!(f, "Operator({sign:?})"),
            Self::End => f.write_str("EOF"),
        }
    }
}

/// A word and the character (counted from 0) at which it starts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Token<'a> {
    pub(crate) kind: TokenKind<'a>,
    pub(crate) position: usize,
}

/// Cuts a text into words; blanks and `// comments` are skipped.
pub(crate) struct Lexer<'a> {
    text: &'a str,
    /// Byte offset of the next word; always at a character boundary.
    offset: usize,
}

impl<'a> Lexer<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, offset: 0 }
    }

    pub(crate) fn next_token(&mut self) -> Result<Token<'a>, PolicyTextError> {
        self.skip_blanks();
        let rest = &self.text[self.offset..];
        let position = self.text[..self.offset].chars().count();
        let Some(first) = rest.chars().next() else {
            // The place that Fabric's tools name is the last character, not the one behind it.
            return Ok(Token { kind: TokenKind::End, position: self.text.chars().count().saturating_sub(1) });
        };
        let (kind, length) = match first {
            '\'' | '"' | '`' => {
                let Some(end) = rest[1..].find(first) else {
                    return Err(located("literal not terminated", self.text, position));
                };
                (TokenKind::Text(&rest[1..=end]), end + 2)
            }
            c if c.is_ascii_digit() => {
                let length = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
                let whole = rest[..length].split('.').next().unwrap_or_default();
                let Ok(number) = whole.parse() else {
                    return Err(located("number too large", self.text, position));
                };
                (TokenKind::Number(number), length)
            }
            c if c.is_alphabetic() || c == '_' => {
                let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
                (TokenKind::Name(&rest[..length]), length)
            }
            _ => {
                let double = ["&&", "||", "==", "!="].iter().any(|sign| rest.starts_with(sign));
                let length = if double { 2 } else { first.len_utf8() };
                (TokenKind::Operator(&rest[..length]), length)
            }
        };
        self.offset += length;
        Ok(Token { kind, position })
    }

    fn skip_blanks(&mut self) {
        loop {
            let rest = &self.text[self.offset..];
            let trimmed = rest.trim_start();
            self.offset += rest.len() - trimmed.len();
            if !trimmed.starts_with("//") {
                return;
            }
            self.offset += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }
}

/// A message with the place it is about: `message (line:column)`, the line, and a mark below the column.
/// `position` counts characters from 0.
pub(crate) fn located(message: &str, text: &str, position: usize) -> PolicyTextError {
    let before: String = text.chars().take(position).collect();
    let line_number = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count();
    let line = text.split('\n').nth(line_number - 1).unwrap_or_default();
    let dots = ".".repeat(column);
    PolicyTextError(format!("{message} ({line_number}:{})\n | {line}\n | {dots}^", column + 1))
}
