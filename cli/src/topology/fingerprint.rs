//! Whether a data folder belongs to a topology.
//!
//! Credentials, the genesis block and the ledgers in a data folder were made from one description. When organisations,
//! hosts or the channel change afterwards, starting on the old data would fail in ways that nobody understands; so each
//! part of the description is hashed into the data folder and compared first. Chaincodes and users may be added any time; orderers may
//! be added and, once they have left their channels, dropped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::Topology;

/// Name of the file in a data folder.
const FILE_NAME: &str = "fingerprint.json";

/// Begins the parts that stand for orderers, which come and go while a network lives.
const ORDERER: &str = "orderer node ";

/// Hash of each part of a topology that data depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fingerprint {
    /// Name of the network.
    pub(crate) network: String,
    /// Part in words to SHA-256 (hex) of its description.
    pub(crate) parts: BTreeMap<String, String>,
}

/// The data folder was made from another description.
#[derive(Debug, thiserror::Error)]
#[error(
    "the data in {} belongs to another topology: {difference}.\n\
     Remedy: forget that data with `consort network clean --config {} --data {}`, or choose another folder with --data.",
    data.display(), config.display(), data.display()
)]
struct StaleData {
    data: PathBuf,
    config: PathBuf,
    difference: String,
}

impl Fingerprint {
    /// The fingerprint of a topology.
    ///
    /// # Errors
    /// None in practice: a topology serialises.
    pub(crate) fn of(topology: &Topology) -> anyhow::Result<Self> {
        let mut parts = BTreeMap::new();
        let mut add = |part: String, description: Vec<u8>| {
            parts.insert(part, hex::encode(consort_crypto::hash::sha256(&description)));
        };
        for organisation in &topology.organisations {
            let mut organisation = organisation.clone();
            organisation.member.users.clear();
            let name = format!("organisation {}", organisation.member.name);
            add(name, serde_json::to_vec(&organisation)?);
        }
        for organisation in &topology.orderer_organisations {
            let mut organisation = organisation.clone();
            organisation.member.users.clear();
            for orderer in std::mem::take(&mut organisation.orderers) {
                add(format!("{ORDERER}{}", orderer.host), serde_json::to_vec(&orderer)?);
            }
            let name = format!("orderer organisation {}", organisation.member.name);
            add(name, serde_json::to_vec(&organisation)?);
        }
        let channel = match &topology.joins {
            // Its configuration is that of the others, and changes.
            Some(_) => serde_json::to_vec(&(&topology.channel.name, topology.channel.hashing))?,
            None => serde_json::to_vec(&topology.channel)?,
        };
        add(format!("channel {}", topology.channel.name), channel);
        // Where others are is read anew at every start.
        let own = topology.own_hosts();
        let hosts: BTreeMap<_, _> = topology.hosts.iter().filter(|(host, _)| own.contains(host)).collect();
        add("hosts".to_owned(), serde_json::to_vec(&hosts)?);
        Ok(Self { network: topology.name.clone(), parts })
    }

    /// Compares with what the data folder says. Returns whether the folder already carries this fingerprint.
    ///
    /// # Errors
    /// [`StaleData`] when it carries another one; an I/O error; a folder with foreign files and no fingerprint.
    pub(crate) fn check(&self, data: &Path, config: &Path) -> anyhow::Result<bool> {
        let path = data.join(FILE_NAME);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                anyhow::ensure!(
                    is_empty(data)?,
                    "{} holds files but no {FILE_NAME}, so it is no network's data folder.\nRemedy: choose an empty or new folder with --data.",
                    data.display()
                );
                return Ok(false);
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let found: Self = serde_json::from_slice(&text).with_context(|| {
            format!("{} is damaged; `consort network clean` forgets the data", path.display())
        })?;
        match self.difference(&found) {
            None => Ok(true),
            Some(difference) => {
                Err(StaleData { data: data.to_owned(), config: config.to_owned(), difference }.into())
            }
        }
    }

    /// Writes the fingerprint into a data folder.
    ///
    /// # Errors
    /// An I/O error.
    pub(crate) fn write(&self, data: &Path) -> anyhow::Result<()> {
        crate::files::write_atomically(&data.join(FILE_NAME), &serde_json::to_vec_pretty(self)?, false)
    }

    /// Whether a folder carries any fingerprint, that is, was made by `consort network up`.
    pub(crate) fn is_present(data: &Path) -> bool {
        data.join(FILE_NAME).is_file()
    }

    fn difference(&self, found: &Self) -> Option<String> {
        if self.network != found.network {
            return Some(format!("network '{}' instead of '{}'", found.network, self.network));
        }
        let changed = self.parts.iter().filter(|(part, hash)| found.parts.get(*part) != Some(hash));
        let mut words: Vec<String> = changed
            .filter_map(|(part, _)| match found.parts.contains_key(part) {
                true => Some(format!("{part} has changed")),
                false if part.starts_with(ORDERER) => None,
                false => Some(format!("{part} is new")),
            })
            .collect();
        let gone =
            found.parts.keys().filter(|part| !self.parts.contains_key(*part) && !part.starts_with(ORDERER));
        words.extend(gone.map(|part| format!("{part} is gone")));
        (!words.is_empty()).then(|| words.join(", "))
    }
}

/// A folder that is missing counts as empty; so does one that holds only the lock that `up` takes first.
fn is_empty(folder: &Path) -> anyhow::Result<bool> {
    match std::fs::read_dir(folder) {
        Ok(mut entries) => {
            Ok(entries
                .all(|entry| entry.is_ok_and(|entry| entry.file_name() == crate::files::LOCK_FILE_NAME)))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", folder.display())),
    }
}
