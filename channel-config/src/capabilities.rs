//! Capabilities: the versions of behaviour that a channel has switched on.
//!
//! Source: Fabric documentation, "Channel capabilities", and `common/capabilities`. A function is on when any of the names that
//! bring it is present; higher names do not imply lower ones.

use std::collections::BTreeSet;

use consort_msp::MspVersion;

/// Application capability, ours: transactions may name their signers by the number of an entry in the channel's own table of
/// identities (namespace `_identities`).
pub const REGISTERED_IDENTITIES: &str = "CONSORT_REGISTERED_IDENTITIES";

/// Application capability, ours: registered identities with a BLS key may endorse together, with one signature. Without
/// [`REGISTERED_IDENTITIES`] it does nothing.
pub const AGGREGATED_ENDORSEMENTS: &str = "CONSORT_AGGREGATED_ENDORSEMENTS";

/// Application capability, ours: the system chaincode `_sealed` and its namespace exist (sealed data).
pub const SEALED_DATA: &str = "CONSORT_SEALED_DATA";

/// Where capabilities stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Everybody must understand them.
    Channel,
    /// Orderers must understand them.
    Orderer,
    /// Peers must understand them.
    Application,
}

impl Level {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Channel => "Channel",
            Self::Orderer => "Orderer",
            Self::Application => "Application",
        }
    }

    /// The names that this implementation understands.
    pub(crate) fn known(self) -> &'static [&'static str] {
        match self {
            Self::Channel => &["V1_1", "V1_3", "V1_4_2", "V1_4_3", "V2_0", "V3_0"],
            Self::Orderer => &["V1_1", "V1_4_2", "V2_0"],
            Self::Application => &[
                "V1_1",
                "V1_2",
                "V1_3",
                "V1_4_2",
                "V2_0",
                "V2_5",
                "V1_1_PVTDATA_EXPERIMENTAL",
                "V1_1_RESOURCETREE_EXPERIMENTAL",
                REGISTERED_IDENTITIES,
                AGGREGATED_ENDORSEMENTS,
                SEALED_DATA,
            ],
        }
    }
}

/// The capabilities of one level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    level: Level,
    names: BTreeSet<String>,
}

impl Capabilities {
    pub(crate) fn new(level: Level, names: impl IntoIterator<Item = String>) -> Self {
        Self { level, names: names.into_iter().collect() }
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// Whether a name is present.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    fn any(&self, level: Level, names: &[&str]) -> bool {
        self.level == level && names.iter().any(|name| self.has(name))
    }

    /// Whether all of them are understood here.
    ///
    /// # Errors
    /// Names the first that is not.
    pub fn check_supported(&self) -> Result<(), String> {
        let known = self.level.known();
        match self.names.iter().find(|name| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) => {
                Err(format!("{} capability {name} is required but not supported", self.level.name()))
            }
        }
    }

    /// Channel: the rules of its MSPs.
    #[must_use]
    pub fn msp_version(&self) -> MspVersion {
        let channel = |names: &[&str]| self.any(Level::Channel, names);
        if channel(&["V3_0"]) {
            MspVersion::V3_0
        } else if channel(&["V1_4_3", "V2_0"]) {
            MspVersion::V1_4_3
        } else if channel(&["V1_3", "V1_4_2"]) {
            MspVersion::V1_3
        } else if channel(&["V1_1"]) {
            MspVersion::V1_1
        } else {
            MspVersion::V1_0
        }
    }

    /// Channel: organisations of orderers may list their endpoints, and the consensus type may change.
    #[must_use]
    pub fn organisation_endpoints(&self) -> bool {
        self.any(Level::Channel, &["V1_4_2", "V1_4_3", "V2_0", "V3_0"])
    }

    /// Channel: consenters by Byzantine agreement; global orderer addresses are forbidden.
    #[must_use]
    pub fn byzantine_consensus(&self) -> bool {
        self.any(Level::Channel, &["V3_0"])
    }

    /// Orderer: expired clients are refused, and messages are validated again when the configuration moved on.
    #[must_use]
    pub fn expiration_check(&self) -> bool {
        self.any(Level::Orderer, &["V1_1", "V1_4_2", "V2_0"])
    }

    /// Orderer: maintenance mode.
    #[must_use]
    pub fn maintenance_mode(&self) -> bool {
        self.any(Level::Orderer, &["V1_4_2", "V2_0"])
    }

    /// Application: access control lists may be given.
    #[must_use]
    pub fn access_control_lists(&self) -> bool {
        self.any(Level::Application, &["V1_2", "V1_3", "V1_4_2", "V2_0", "V2_5"])
    }

    /// Application: policies of single keys.
    #[must_use]
    pub fn key_level_endorsement(&self) -> bool {
        self.any(Level::Application, &["V1_3", "V1_4_2", "V2_0", "V2_5"])
    }

    /// Application: the lifecycle in which organisations approve, with implicit collections.
    #[must_use]
    pub fn new_lifecycle(&self) -> bool {
        self.any(Level::Application, &["V2_0", "V2_5"])
    }

    /// Application: private data may be purged.
    #[must_use]
    pub fn purge_private_data(&self) -> bool {
        self.any(Level::Application, &["V2_5"])
    }

    /// Application: the channel keeps a table of identities, and transactions name signers by its numbers.
    #[must_use]
    pub fn registered_identities(&self) -> bool {
        self.any(Level::Application, &[REGISTERED_IDENTITIES])
    }

    /// Application: registered identities endorse together, with one signature.
    #[must_use]
    pub fn aggregated_endorsements(&self) -> bool {
        self.registered_identities() && self.any(Level::Application, &[AGGREGATED_ENDORSEMENTS])
    }

    /// Application: sealed data; the system chaincode `_sealed` and its namespace exist.
    #[must_use]
    pub fn sealed_data(&self) -> bool {
        self.any(Level::Application, &[SEALED_DATA])
    }
}
