//! Affiliations in the registry.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::audit::Deed;
use super::{Identity, Registry, RegistryError, identities};
use crate::affiliation::Affiliation;

/// An affiliation with those below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AffiliationTree {
    /// The affiliation.
    pub name: Affiliation,
    /// Those directly below, ordered by name.
    pub children: Vec<AffiliationTree>,
}

/// What a modification or a removal touched.
#[derive(Debug, Clone)]
pub struct AffiliationChange {
    /// The affiliation (after a renaming: the new one) with those below it.
    pub tree: AffiliationTree,
    /// The identities that were moved or removed.
    pub identities: Vec<Identity>,
}

/// Why an affiliation cannot be added, renamed or removed.
#[derive(Debug, thiserror::Error)]
pub enum AffiliationError {
    /// The name is taken.
    #[error("affiliation '{0}' already exists")]
    Exists(Affiliation),
    /// The affiliation above it does not exist.
    #[error("affiliation '{0}' does not exist; create it first, or use force")]
    ParentMissing(Affiliation),
    /// There is no such affiliation.
    #[error("affiliation '{0}' does not exist")]
    Missing(Affiliation),
    /// Others depend on it.
    #[error(
        "affiliation '{name}' has {children} affiliations below it and {identities} identities; use force"
    )]
    InUse {
        /// The affiliation.
        name: Affiliation,
        /// Affiliations below it.
        children: usize,
        /// Identities at or below it.
        identities: usize,
    },
    /// The new place lies below the affiliation that moves, or is too deep.
    #[error("affiliation '{0}' cannot move there")]
    BadTarget(Affiliation),
    /// The registry failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl From<rusqlite::Error> for AffiliationError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Registry(error.into())
    }
}

impl Registry {
    /// Whether the affiliation exists; the root always does.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub fn affiliation_exists(&self, name: &Affiliation) -> Result<bool, RegistryError> {
        self.read(|connection| exists(connection, name))
    }

    /// The affiliation with those below it; `None` when it does not exist.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub fn affiliation_tree(&self, name: &Affiliation) -> Result<Option<AffiliationTree>, RegistryError> {
        self.read(|connection| {
            if !exists(connection, name)? {
                return Ok(None);
            }
            Ok(Some(tree(name.clone(), &names_within(connection, name)?)))
        })
    }

    /// Adds an affiliation, and with `with_parents` those above it.
    ///
    /// # Errors
    /// When it exists, or its parent is missing.
    pub fn add_affiliation(&self, name: &Affiliation, with_parents: bool) -> Result<(), AffiliationError> {
        self.write(|transaction| {
            if exists(transaction, name)? {
                return Err(AffiliationError::Exists(name.clone()));
            }
            insert(transaction, name)?;
            let mut above = name.parent();
            while let Some(parent) = above.filter(|parent| !parent.is_root()) {
                if !exists(transaction, &parent)? {
                    if !with_parents {
                        return Err(AffiliationError::ParentMissing(parent));
                    }
                    insert(transaction, &parent)?;
                }
                above = parent.parent();
            }
            Ok(())
        })
    }

    /// Renames an affiliation, those below it, and with `force` the identities there.
    ///
    /// # Errors
    /// When it does not exist, the new name is taken or lies below it, or identities depend on it without `force`.
    pub fn rename_affiliation(
        &self,
        from: &Affiliation,
        to: &Affiliation,
        force: bool,
    ) -> Result<AffiliationChange, AffiliationError> {
        self.write(|transaction| {
            if from.is_root() || !exists(transaction, from)? {
                return Err(AffiliationError::Missing(from.clone()));
            }
            if exists(transaction, to)? {
                return Err(AffiliationError::Exists(to.clone()));
            }
            if from.contains(to) {
                return Err(AffiliationError::BadTarget(from.clone()));
            }
            if let Some(parent) = to.parent()
                && !exists(transaction, &parent)?
            {
                return Err(AffiliationError::ParentMissing(parent));
            }
            let below = names_within(transaction, from)?;
            let mut moved = identities::all_within(transaction, from)?;
            if !force && !moved.is_empty() {
                let (children, identities) = (below.len() - 1, moved.len());
                return Err(AffiliationError::InUse { name: from.clone(), children, identities });
            }
            let place = |old: &Affiliation| {
                old.renamed(from, to).map_err(|_| AffiliationError::BadTarget(from.clone()))
            };
            for old in &below {
                transaction.execute("DELETE FROM affiliations WHERE name = ?1", [old.as_str()])?;
                insert(transaction, &place(old)?)?;
            }
            for identity in &mut moved {
                identity.affiliation = place(&identity.affiliation)?;
                let affiliation = identity.affiliation.as_str();
                identity.attributes =
                    identity.attributes.clone().with_fixed(&identity.id, &identity.kind, affiliation);
                identities::update(transaction, identity)?;
            }
            let tree = tree(to.clone(), &names_within(transaction, to)?);
            Ok(AffiliationChange { tree, identities: moved })
        })
    }

    /// Removes an affiliation; with `force` also those below it and the identities there, whose certificates are
    /// revoked.
    ///
    /// # Errors
    /// When it does not exist, or others depend on it without `force`.
    pub fn remove_affiliation(
        &self,
        name: &Affiliation,
        force: bool,
        deed: Deed<'_>,
        reason: u8,
    ) -> Result<AffiliationChange, AffiliationError> {
        self.write(|transaction| {
            if name.is_root() || !exists(transaction, name)? {
                return Err(AffiliationError::Missing(name.clone()));
            }
            let below = names_within(transaction, name)?;
            let removed = identities::all_within(transaction, name)?;
            if !force && (below.len() > 1 || !removed.is_empty()) {
                let (children, identities) = (below.len() - 1, removed.len());
                return Err(AffiliationError::InUse { name: name.clone(), children, identities });
            }
            for affiliation in &below {
                transaction.execute("DELETE FROM affiliations WHERE name = ?1", [affiliation.as_str()])?;
            }
            for identity in &removed {
                identities::remove(transaction, &identity.id, deed, reason)?;
            }
            Ok(AffiliationChange { tree: tree(name.clone(), &below), identities: removed })
        })
    }
}

/// The names strictly below an affiliation are those in this half-open range: `/` is the character after `.`.
pub(super) fn below(name: &Affiliation) -> (String, String) {
    (format!("{}.", name.as_str()), format!("{}/", name.as_str()))
}

fn exists(connection: &Connection, name: &Affiliation) -> Result<bool, RegistryError> {
    if name.is_root() {
        return Ok(true);
    }
    let mut statement = connection.prepare_cached("SELECT 1 FROM affiliations WHERE name = ?1")?;
    Ok(statement.query_row([name.as_str()], |_| Ok(())).optional()?.is_some())
}

fn insert(connection: &Connection, name: &Affiliation) -> Result<(), RegistryError> {
    connection.execute("INSERT INTO affiliations (name) VALUES (?1)", [name.as_str()])?;
    Ok(())
}

/// The affiliation itself (unless it is the root) and those below it, ordered by name.
fn names_within(connection: &Connection, name: &Affiliation) -> Result<Vec<Affiliation>, RegistryError> {
    let (from, to) = below(name);
    let mut statement = connection.prepare_cached(
        "SELECT name FROM affiliations WHERE ?1 = '' OR name = ?1 OR (name >= ?2 AND name < ?3) ORDER BY name",
    )?;
    let mut rows = statement.query(params![name.as_str(), from, to])?;
    let mut names = Vec::new();
    while let Some(row) = rows.next()? {
        let text: String = row.get(0)?;
        let what = || RegistryError::Damaged { what: format!("affiliation '{text}'") };
        names.push(Affiliation::parse(&text).map_err(|_| what())?);
    }
    Ok(names)
}

fn tree(top: Affiliation, names: &[Affiliation]) -> AffiliationTree {
    let mut by_parent: BTreeMap<Affiliation, Vec<Affiliation>> = BTreeMap::new();
    for name in names {
        if let Some(parent) = name.parent() {
            by_parent.entry(parent).or_default().push(name.clone());
        }
    }
    branch(top, &by_parent)
}

/// Depth is bounded by the 16 components of an affiliation.
fn branch(name: Affiliation, by_parent: &BTreeMap<Affiliation, Vec<Affiliation>>) -> AffiliationTree {
    let below = by_parent.get(&name).map(Vec::as_slice).unwrap_or_default();
    let children = below.iter().map(|child| branch(child.clone(), by_parent)).collect();
    AffiliationTree { name, children }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn affiliation(text: &str) -> Affiliation {
        Affiliation::parse(text).expect("affiliation")
    }

    fn registry() -> (tempfile::TempDir, Registry) {
        let folder = tempfile::tempdir().expect("folder");
        let registry = Registry::open(&folder.path().join("registry.db"), "aa").expect("registry");
        registry.add_affiliation(&affiliation("org1.a.b"), true).expect("add");
        registry.add_affiliation(&affiliation("org1.c"), false).expect("add");
        registry.add_affiliation(&affiliation("org10"), false).expect("add");
        (folder, registry)
    }

    #[test]
    fn parents_are_made_on_request_only() {
        let (_folder, registry) = registry();

        let refused = registry.add_affiliation(&affiliation("x.y"), false);

        assert!(matches!(refused, Err(AffiliationError::ParentMissing(_))));
        assert!(!registry.affiliation_exists(&affiliation("x.y")).expect("read"));
        assert!(matches!(
            registry.add_affiliation(&affiliation("org1"), true),
            Err(AffiliationError::Exists(_))
        ));
    }

    #[test]
    fn the_tree_holds_what_is_below() {
        let (_folder, registry) = registry();

        let org1 = registry.affiliation_tree(&affiliation("org1")).expect("read").expect("org1");
        let all = registry.affiliation_tree(&Affiliation::root()).expect("read").expect("root");

        let names: Vec<_> = org1.children.iter().map(|child| child.name.as_str()).collect();
        assert_eq!(names, ["org1.a", "org1.c"]);
        assert_eq!(org1.children[0].children[0].name.as_str(), "org1.a.b");
        assert_eq!(all.children.len(), 2);
        assert_eq!(registry.affiliation_tree(&affiliation("no")).expect("read"), None);
    }

    #[test]
    fn renaming_takes_the_branch_along() {
        let (_folder, registry) = registry();

        let change = registry
            .rename_affiliation(&affiliation("org1.a"), &affiliation("org10.z"), false)
            .expect("rename");

        assert_eq!(change.tree.children[0].name.as_str(), "org10.z.b");
        assert!(!registry.affiliation_exists(&affiliation("org1.a.b")).expect("read"));
        assert!(matches!(
            registry.rename_affiliation(&affiliation("org1"), &affiliation("org1.q"), true),
            Err(AffiliationError::BadTarget(_))
        ));
    }

    #[test]
    fn a_branch_is_removed_by_force_only() {
        let (_folder, registry) = registry();

        let deed = Deed { caller: "admin", at: 0 };
        let refused = registry.remove_affiliation(&affiliation("org1"), false, deed, 0);
        let removed = registry.remove_affiliation(&affiliation("org1"), true, deed, 0).expect("remove");

        assert!(matches!(refused, Err(AffiliationError::InUse { children: 3, .. })));
        assert_eq!(removed.tree.children.len(), 2);
        assert!(registry.affiliation_exists(&affiliation("org10")).expect("read"));
    }
}
