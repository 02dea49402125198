//! Implicit meta policies: `ANY Readers`, `ALL Writers`, `MAJORITY Admins`.

use std::fmt;

use consort_protos::fabric::common::{ImplicitMetaPolicy, implicit_meta_policy::Rule};

/// How many of the sub-policies must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImplicitRule {
    /// One.
    Any,
    /// Every one.
    All,
    /// More than half.
    Majority,
}

impl ImplicitRule {
    /// The number that must hold of `groups` sub-policies. Without groups nothing is demanded.
    #[must_use]
    pub fn threshold(self, groups: usize) -> usize {
        match self {
            _ if groups == 0 => 0,
            Self::Any => 1,
            Self::All => groups,
            Self::Majority => groups / 2 + 1,
        }
    }

    pub(crate) fn from_proto(rule: i32) -> Option<Self> {
        Some(match Rule::try_from(rule).ok()? {
            Rule::Any => Self::Any,
            Rule::All => Self::All,
            Rule::Majority => Self::Majority,
        })
    }
}

impl fmt::Display for ImplicitRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "ANY",
            Self::All => "ALL",
            Self::Majority => "MAJORITY",
        })
    }
}

/// The text of an implicit meta policy is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImplicitTextError {
    /// Not two words.
    #[error("expected two space separated tokens, but got {0}")]
    Tokens(usize),
    /// The first word is no rule.
    #[error("unknown rule type '{0}', expected ALL, ANY, or MAJORITY")]
    Rule(String),
}

/// Reads `<ANY|ALL|MAJORITY> <policy name>`.
///
/// # Errors
/// [`ImplicitTextError`].
pub fn parse(text: &str) -> Result<ImplicitMetaPolicy, ImplicitTextError> {
    let words: Vec<&str> = text.split(' ').collect();
    let [rule, sub_policy] = words.as_slice() else { return Err(ImplicitTextError::Tokens(words.len())) };
    let rule = match *rule {
        "ANY" => Rule::Any,
        "ALL" => Rule::All,
        "MAJORITY" => Rule::Majority,
        other => return Err(ImplicitTextError::Rule(other.to_owned())),
    };
    Ok(ImplicitMetaPolicy { sub_policy: (*sub_policy).to_owned(), rule: rule.into() })
}

/// Prints the text that [`parse`] reads.
#[must_use]
pub fn to_text(policy: &ImplicitMetaPolicy) -> String {
    let rule =
        ImplicitRule::from_proto(policy.rule).map_or("<unknown rule>".to_owned(), |rule| rule.to_string());
    format!("{rule} {}", policy.sub_policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn implicit_texts_are_read_and_refused_in_fabrics_words() {
        let policy = parse("MAJORITY Admins").unwrap();
        assert_eq!((policy.sub_policy.as_str(), policy.rule), ("Admins", 2));
        assert_eq!(to_text(&policy), "MAJORITY Admins");
        let refusal = |text: &str| parse(text).unwrap_err().to_string();
        assert_eq!(refusal("ANY of Readers"), "expected two space separated tokens, but got 3");
        assert_eq!(refusal("any Readers"), "unknown rule type 'any', expected ALL, ANY, or MAJORITY");
    }

    #[test]
    fn thresholds_count_groups() {
        assert_eq!([0, 1, 2, 3, 4].map(|n| ImplicitRule::Majority.threshold(n)), [0, 1, 2, 2, 3]);
        assert_eq!([0, 1, 2].map(|n| ImplicitRule::All.threshold(n)), [0, 1, 2]);
        assert_eq!([0, 1, 2].map(|n| ImplicitRule::Any.threshold(n)), [0, 1, 1]);
    }
}
