//! Affiliations: where an identity stands in its organisation, as a dotted path (`org1.department1`).

use std::fmt;

/// Deepest path; each component becomes one organisational unit of a certificate.
const COMPONENTS_MAX: usize = 16;

/// Longest component in characters: the limit of an organisational unit (X.520 `ub-organizational-unit-name`).
const COMPONENT_CHARACTERS_MAX: usize = 64;

/// A well-formed affiliation path; the empty path is the root, which is above all others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Affiliation(String);

/// Why a text is no affiliation.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("'{text}' is not an affiliation: {rule}")]
pub struct InvalidAffiliation {
    text: String,
    rule: &'static str,
}

impl Affiliation {
    /// The root, above every affiliation.
    pub fn root() -> Self {
        Self(String::new())
    }

    /// Reads a path; `.` and the empty text are the root.
    ///
    /// # Errors
    /// When a component is empty, too long, or holds white space, a control character, a slash or a quote.
    pub fn parse(text: &str) -> Result<Self, InvalidAffiliation> {
        if text.is_empty() || text == "." {
            return Ok(Self::root());
        }
        let refuse = |rule| {
            let shown = text.chars().take(COMPONENT_CHARACTERS_MAX).collect();
            Err(InvalidAffiliation { text: shown, rule })
        };
        let mut count = 0;
        for component in text.split('.') {
            count += 1;
            if count > COMPONENTS_MAX {
                return refuse("it has more than 16 components");
            }
            if component.is_empty() {
                return refuse("a component is empty");
            }
            if component.chars().count() > COMPONENT_CHARACTERS_MAX {
                return refuse("a component is longer than 64 characters");
            }
            if component.chars().any(|c| c.is_whitespace() || c.is_control() || "/\\'\";%?#".contains(c)) {
                return refuse("it holds a space, a slash, a quote or another reserved character");
            }
        }
        Ok(Self(text.to_owned()))
    }

    /// The path as text; empty for the root.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The path one level up; none for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let above = self.0.rsplit_once('.').map_or("", |(above, _)| above);
        Some(Self(above.to_owned()))
    }

    /// The components from the top down.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('.').filter(|component| !component.is_empty())
    }

    /// Whether `other` is this affiliation or lies below it.
    pub fn contains(&self, other: &Self) -> bool {
        if self.is_root() || self == other {
            return true;
        }
        other.0.strip_prefix(&self.0).is_some_and(|rest| rest.starts_with('.'))
    }

    /// The same place after the affiliation `from` above it became `to`; unchanged when `from` is not above it.
    ///
    /// # Errors
    /// When the new path is too deep.
    pub fn renamed(&self, from: &Self, to: &Self) -> Result<Self, InvalidAffiliation> {
        if from.is_root() || !from.contains(self) {
            return Ok(self.clone());
        }
        Self::parse(&format!("{}{}", to.0, &self.0[from.0.len()..]))
    }
}

impl fmt::Display for Affiliation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.is_root() { "." } else { &self.0 })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn affiliation(text: &str) -> Affiliation {
        Affiliation::parse(text).expect("affiliation")
    }

    #[test]
    fn an_affiliation_contains_itself_and_what_is_below() {
        let org1 = affiliation("org1");

        assert!(org1.contains(&org1));
        assert!(org1.contains(&affiliation("org1.department1")));
        assert!(!org1.contains(&affiliation("org10")));
        assert!(!org1.contains(&Affiliation::root()));
        assert!(Affiliation::root().contains(&org1));
    }

    #[test]
    fn malformed_paths_are_refused() {
        for text in ["a..b", ".a", "a.", "a b", "a/b", "..", "a\0", "o'r", &"x".repeat(65), &"a.".repeat(16)]
        {
            assert!(Affiliation::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn renaming_moves_everything_below() {
        let (from, to) = (affiliation("org1"), affiliation("org2.west"));

        assert_eq!(affiliation("org1.a").renamed(&from, &to), Ok(affiliation("org2.west.a")));
        assert_eq!(affiliation("org10.a").renamed(&from, &to), Ok(affiliation("org10.a")));
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_keeps_the_text(text in any::<String>()) {
            if let Ok(parsed) = Affiliation::parse(&text) {
                prop_assert!(parsed.is_root() || parsed.as_str() == text);
                let parent = parsed.parent();
                prop_assert!(parent.is_none_or(|parent| parent.contains(&parsed)));
            }
        }

        #[test]
        fn containment_is_an_order(a in "[a-c](\\.[a-c]){0,3}", b in "[a-c](\\.[a-c]){0,3}") {
            let (a, b) = (affiliation(&a), affiliation(&b));
            prop_assert_eq!(a.contains(&b) && b.contains(&a), a == b);
        }
    }
}
