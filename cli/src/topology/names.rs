//! The form of names, as Fabric demands it where Fabric has a say.

/// A kind of name and its rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NameRule {
    /// Network and certificate authority names, which become file names.
    File,
    /// Organisation names and users.
    Word,
    /// MSP ids: the letters of the policy language's principals (Fabric `common/policydsl`).
    Msp,
    /// DNS names (RFC 1123).
    Host,
    /// Channels (Fabric `common/configtx/validator.go`).
    Channel,
    /// Chaincodes (Fabric `core/chaincode/lifecycle`).
    Chaincode,
    /// Chaincode versions (same source).
    Version,
    /// Collections (same source).
    Collection,
}

/// Longest channel name (Fabric `common/configtx/validator.go`).
const CHANNEL_LENGTH_MAX: usize = 249;

/// Names that Fabric keeps for system chaincodes.
const RESERVED_CHAINCODES: [&str; 6] = ["cscc", "escc", "lscc", "qscc", "vscc", "_lifecycle"];

impl NameRule {
    /// Why the name is not allowed, if it is not.
    pub(crate) fn fault(self, name: &str) -> Option<String> {
        let rule = match self {
            Self::File if !of(name, is_lower, |c| is_lower(c) || matches!(c, '-' | '_')) => {
                "small letters, digits, '-' and '_', beginning with a letter or digit"
            }
            Self::Word if !of(name, alphanumeric, |c| alphanumeric(c) || matches!(c, '-' | '_' | '.')) => {
                "letters, digits, '-', '_' and '.', beginning with a letter or digit"
            }
            Self::Msp if !of(name, alphanumeric, |c| alphanumeric(c) || matches!(c, '-' | '.')) => {
                "letters, digits, '-' and '.' (principals such as 'Org1MSP.peer' allow no others)"
            }
            Self::Host if !is_host(name) => {
                "a DNS name: labels of small letters, digits and '-', separated by '.'"
            }
            Self::Channel
                if name.len() > CHANNEL_LENGTH_MAX
                    || !of(name, |c| c.is_ascii_lowercase(), |c| is_lower(c) || matches!(c, '-' | '.')) =>
            {
                "small letters, digits, '-' and '.', beginning with a letter, at most 249 long"
            }
            Self::Chaincode if RESERVED_CHAINCODES.contains(&name) => "a name that no system chaincode has",
            Self::Chaincode if !is_chaincode(name) => "letters and digits, joined by single '-' or '_'",
            Self::Version
                if name.is_empty()
                    || !name.chars().all(|c| alphanumeric(c) || matches!(c, '_' | '.' | '+' | '-')) =>
            {
                "letters, digits, '_', '.', '+' and '-'"
            }
            Self::Collection
                if !of(
                    name,
                    |c| alphanumeric(c) || c == '-',
                    |c| alphanumeric(c) || matches!(c, '-' | '_'),
                ) || name.ends_with('_') =>
            {
                "letters, digits, '-' and '_', with a letter or digit at both ends"
            }
            _ => return None,
        };
        Some(format!("'{name}' must be {rule}"))
    }
}

fn of(name: &str, first: impl Fn(char) -> bool, rest: impl Fn(char) -> bool) -> bool {
    let mut characters = name.chars();
    characters.next().is_some_and(first) && characters.all(rest)
}

fn alphanumeric(character: char) -> bool {
    character.is_ascii_alphanumeric()
}

fn is_lower(character: char) -> bool {
    character.is_ascii_lowercase() || character.is_ascii_digit()
}

fn is_chaincode(name: &str) -> bool {
    name.split(['-', '_']).all(|part| !part.is_empty() && part.chars().all(alphanumeric))
}

fn is_host(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && of(label, is_lower, |c| is_lower(c) || c == '-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(rule: NameRule, name: &str) -> bool {
        rule.fault(name).is_none()
    }

    #[test]
    fn names_of_the_test_network_are_allowed() {
        assert!(allowed(NameRule::File, "two-org-raft"));
        assert!(allowed(NameRule::Word, "Org1"));
        assert!(allowed(NameRule::Msp, "Org1MSP"));
        assert!(allowed(NameRule::Host, "peer0.org1.example.com"));
        assert!(allowed(NameRule::Channel, "mychannel"));
        assert!(allowed(NameRule::Chaincode, "asset-transfer_basic"));
        assert!(allowed(NameRule::Version, "1.0"));
        assert!(allowed(NameRule::Collection, "assetCollection"));
    }

    #[test]
    fn malformed_names_are_refused_with_their_rule() {
        for (rule, name) in [
            (NameRule::File, "../up"),
            (NameRule::File, ""),
            (NameRule::Msp, "Org_1"),
            (NameRule::Host, "peer0..com"),
            (NameRule::Host, "-peer"),
            (NameRule::Host, "Peer0"),
            (NameRule::Channel, "MyChannel"),
            (NameRule::Chaincode, "a--b"),
            (NameRule::Chaincode, "qscc"),
            (NameRule::Version, "1 0"),
            (NameRule::Collection, "c_"),
        ] {
            assert!(rule.fault(name).is_some_and(|fault| fault.contains(name)), "{name}");
        }
    }
}
