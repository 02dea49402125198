//! Where the servers' programs are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::plan::Role;

/// The program of every role.
#[derive(Debug, Clone)]
pub(crate) struct Programs(BTreeMap<Role, PathBuf>);

impl Programs {
    /// Looks beside this program first, then along `PATH`.
    ///
    /// # Errors
    /// One message with every program that is missing and how to build it.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let this = std::env::current_exe().context("cannot find the consort program itself")?;
        let beside = this.parent().map(Path::to_owned);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders: Vec<PathBuf> = beside.into_iter().chain(std::env::split_paths(&path)).collect();
        Self::find_in(&folders)
    }

    fn find_in(folders: &[PathBuf]) -> anyhow::Result<Self> {
        let mut found = BTreeMap::new();
        let mut missing = Vec::new();
        for role in [Role::Authority, Role::Orderer, Role::Peer] {
            match folders.iter().map(|folder| folder.join(role.program())).find(|path| path.is_file()) {
                Some(path) => {
                    found.insert(role, path);
                }
                None => missing.push(role.program()),
            }
        }
        anyhow::ensure!(
            missing.is_empty(),
            "{} not found beside this program or along PATH.\nRemedy: build the servers with `make build` (or `cargo build --workspace --bins`).",
            missing.join(", ")
        );
        Ok(Self(found))
    }

    /// The program of a role.
    pub(crate) fn of(&self, role: Role) -> &Path {
        self.0.get(&role).expect("invariant: find_in fails unless every role has a program")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_programs_are_all_named_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("consort-peer"), "").unwrap();
        let error = Programs::find_in(&[folder.path().to_owned()]).unwrap_err().to_string();
        assert!(error.contains("consort-ca, consort-orderer not found"), "{error}");
        assert!(error.contains("make build"), "{error}");
    }
}
