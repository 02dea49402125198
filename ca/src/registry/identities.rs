//! Identities in the registry.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::audit::{AuditAction, Deed, append};
use super::certificates::{reason_text, revoke_all};
use super::{PAGE_ROWS, Registry, RegistryError};
use crate::affiliation::Affiliation;
use crate::attributes::{Attribute, Attributes};

/// A registered identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The enrolment id: the common name of its certificates.
    pub id: String,
    /// The type: `client`, `peer`, `orderer`, `admin`, or another word.
    pub kind: String,
    /// Where it stands.
    pub affiliation: Affiliation,
    /// Its attributes, with the three that the certificate authority sets.
    pub attributes: Attributes,
    /// PHC string of its secret.
    pub secret_hash: String,
    /// How often it may enrol; -1 means without limit.
    pub max_enrollments: i64,
    /// How often it has enrolled.
    pub enrollments: i64,
    /// Wrong secrets since the last right one.
    pub failed_attempts: i64,
    /// Whether it has been revoked: it can neither enrol nor act.
    pub revoked: bool,
}

/// What a registration brings.
#[derive(Debug, Clone)]
pub struct NewIdentity {
    /// The enrolment id.
    pub id: String,
    /// The type.
    pub kind: String,
    /// Where it stands.
    pub affiliation: Affiliation,
    /// Its attributes.
    pub attributes: Attributes,
    /// PHC string of its secret.
    pub secret_hash: String,
    /// How often it may enrol; -1 means without limit.
    pub max_enrollments: i64,
}

/// What a modification changes; `None` leaves as it is.
#[derive(Debug, Clone, Default)]
pub struct IdentityChange {
    /// The type.
    pub kind: Option<String>,
    /// Where it stands.
    pub affiliation: Option<Affiliation>,
    /// All attributes after the change.
    pub attributes: Option<Attributes>,
    /// PHC string of a new secret; it also forgives wrong attempts.
    pub secret_hash: Option<String>,
    /// How often it may enrol.
    pub max_enrollments: Option<i64>,
}

const COLUMNS: &str = "id, type, affiliation, attributes, secret_hash, max_enrollments, enrollments, \
                       failed_attempts, revoked";

impl Registry {
    /// The identity of that name.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub fn identity(&self, id: &str) -> Result<Option<Identity>, RegistryError> {
        self.read(|connection| find(connection, id))
    }

    /// Adds an identity; `false` when the name is taken.
    ///
    /// # Errors
    /// When the registry cannot be written.
    pub fn add_identity(&self, new: &NewIdentity) -> Result<bool, RegistryError> {
        let attributes = attributes_to_text(&new.attributes)?;
        self.write(|transaction| {
            let added = transaction
                .prepare_cached(
                    "INSERT INTO identities (id, type, affiliation, attributes, secret_hash, max_enrollments) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (id) DO NOTHING",
                )?
                .execute(params![
                    new.id,
                    new.kind,
                    new.affiliation.as_str(),
                    attributes,
                    new.secret_hash,
                    new.max_enrollments
                ])?;
            Ok(added == 1)
        })
    }

    /// Changes an identity; `None` when there is no such identity.
    ///
    /// # Errors
    /// When the registry cannot be written.
    pub fn change_identity(
        &self,
        id: &str,
        change: &IdentityChange,
    ) -> Result<Option<Identity>, RegistryError> {
        self.write(|transaction| {
            let Some(current) = find(transaction, id)? else {
                return Ok(None);
            };
            let kind = change.kind.clone().unwrap_or(current.kind);
            let affiliation = change.affiliation.clone().unwrap_or(current.affiliation);
            let attributes = change.attributes.clone().unwrap_or(current.attributes);
            let attributes = attributes.with_fixed(id, &kind, affiliation.as_str());
            let new_secret = change.secret_hash.is_some();
            let changed = Identity {
                id: current.id,
                kind,
                affiliation,
                attributes,
                secret_hash: change.secret_hash.clone().unwrap_or(current.secret_hash),
                max_enrollments: change.max_enrollments.unwrap_or(current.max_enrollments),
                enrollments: current.enrollments,
                failed_attempts: if new_secret { 0 } else { current.failed_attempts },
                revoked: current.revoked,
            };
            update(transaction, &changed)?;
            Ok(Some(changed))
        })
    }

    /// Removes an identity and revokes its certificates; `None` when there is no such identity.
    ///
    /// # Errors
    /// When the registry cannot be written.
    pub fn remove_identity(
        &self,
        id: &str,
        deed: Deed<'_>,
        reason: u8,
    ) -> Result<Option<Identity>, RegistryError> {
        self.write(|transaction| {
            let removed = find(transaction, id)?;
            if removed.is_some() {
                remove(transaction, id, deed, reason)?;
            }
            Ok(removed)
        })
    }

    /// One page of the identities at or below an affiliation, after the name `after`, in order of name.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub fn identities(&self, within: &Affiliation, after: &str) -> Result<Vec<Identity>, RegistryError> {
        self.read(|connection| {
            let (from, to) = super::affiliations::below(within);
            let sql = format!(
                "SELECT {COLUMNS} FROM identities WHERE id > ?1 AND \
                 (?2 = '' OR affiliation = ?2 OR (affiliation >= ?3 AND affiliation < ?4)) \
                 ORDER BY id LIMIT ?5"
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let mut rows = statement.query(params![after, within.as_str(), from, to, PAGE_ROWS as i64])?;
            let mut page = Vec::new();
            while let Some(row) = rows.next()? {
                page.push(from_row(row)?);
            }
            Ok(page)
        })
    }

    /// Counts a wrong secret.
    ///
    /// # Errors
    /// When the registry cannot be written.
    pub fn count_failed_attempt(&self, id: &str) -> Result<(), RegistryError> {
        self.write(|transaction| {
            transaction
                .prepare_cached("UPDATE identities SET failed_attempts = failed_attempts + 1 WHERE id = ?1")?
                .execute([id])?;
            Ok(())
        })
    }
}

/// Removes an identity that is there, and revokes its certificates.
pub(super) fn remove(
    connection: &Connection,
    id: &str,
    deed: Deed<'_>,
    reason: u8,
) -> Result<(), RegistryError> {
    connection.execute("DELETE FROM identities WHERE id = ?1", [id])?;
    append(connection, &deed.on_identity(AuditAction::RemoveIdentity, id, reason_text(reason)))?;
    revoke_all(connection, id, deed, reason)?;
    Ok(())
}

pub(super) fn find(connection: &Connection, id: &str) -> Result<Option<Identity>, RegistryError> {
    let sql = format!("SELECT {COLUMNS} FROM identities WHERE id = ?1");
    let mut statement = connection.prepare_cached(&sql)?;
    statement.query_row([id], |row| Ok(from_row(row))).optional()?.transpose()
}

pub(super) fn update(connection: &Connection, identity: &Identity) -> Result<(), RegistryError> {
    let attributes = attributes_to_text(&identity.attributes)?;
    connection
        .prepare_cached(
            "UPDATE identities SET type = ?2, affiliation = ?3, attributes = ?4, secret_hash = ?5, \
             max_enrollments = ?6, failed_attempts = ?7 WHERE id = ?1",
        )?
        .execute(params![
            identity.id,
            identity.kind,
            identity.affiliation.as_str(),
            attributes,
            identity.secret_hash,
            identity.max_enrollments,
            identity.failed_attempts
        ])?;
    Ok(())
}

pub(super) fn all_within(
    connection: &Connection,
    within: &Affiliation,
) -> Result<Vec<Identity>, RegistryError> {
    let (from, to) = super::affiliations::below(within);
    let sql = format!(
        "SELECT {COLUMNS} FROM identities WHERE affiliation = ?1 OR (affiliation >= ?2 AND affiliation < ?3) \
         ORDER BY id"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![within.as_str(), from, to])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(from_row(row)?);
    }
    Ok(found)
}

fn from_row(row: &Row<'_>) -> Result<Identity, RegistryError> {
    let id: String = row.get(0)?;
    let damaged = |what: &str| RegistryError::Damaged { what: format!("{what} of identity '{id}'") };
    let affiliation: String = row.get(2)?;
    let affiliation = Affiliation::parse(&affiliation).map_err(|_| damaged("the affiliation"))?;
    let attributes: String = row.get(3)?;
    let attributes: Vec<Attribute> =
        serde_json::from_str(&attributes).map_err(|_| damaged("the attributes"))?;
    Ok(Identity {
        kind: row.get(1)?,
        affiliation,
        attributes: attributes.into_iter().collect(),
        secret_hash: row.get(4)?,
        max_enrollments: row.get(5)?,
        enrollments: row.get(6)?,
        failed_attempts: row.get(7)?,
        revoked: row.get(8)?,
        id,
    })
}

fn attributes_to_text(attributes: &Attributes) -> Result<String, RegistryError> {
    let list: Vec<&Attribute> = attributes.iter().collect();
    serde_json::to_string(&list).map_err(|error| RegistryError::Damaged { what: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry() -> (tempfile::TempDir, Registry) {
        let folder = tempfile::tempdir().expect("folder");
        let registry = Registry::open(&folder.path().join("registry.db"), "aa").expect("registry");
        (folder, registry)
    }

    fn identity(id: &str, affiliation: &str) -> NewIdentity {
        NewIdentity {
            id: id.to_owned(),
            kind: "client".to_owned(),
            affiliation: Affiliation::parse(affiliation).expect("affiliation"),
            attributes: Attributes::default().with_fixed(id, "client", affiliation),
            secret_hash: "hash".to_owned(),
            max_enrollments: -1,
        }
    }

    #[test]
    fn a_name_is_given_once() {
        let (_folder, registry) = registry();

        assert!(registry.add_identity(&identity("alice", "org1")).expect("add"));
        assert!(!registry.add_identity(&identity("alice", "org2")).expect("add"));

        let alice = registry.identity("alice").expect("read").expect("alice");
        assert_eq!(alice.affiliation.as_str(), "org1");
        assert_eq!(alice.attributes.named("hf.Type").map(|a| a.value.as_str()), Some("client"));
    }

    #[test]
    fn names_with_sql_in_them_are_only_names() {
        let (_folder, registry) = registry();
        let name = "x'); DROP TABLE identities; --";

        registry.add_identity(&identity(name, "")).expect("add");

        assert!(registry.identity(name).expect("read").is_some());
    }

    #[test]
    fn listing_is_paged_and_bounded_by_affiliation() {
        let (_folder, registry) = registry();
        for number in 0..150 {
            registry.add_identity(&identity(&format!("a{number:03}"), "org1.x")).expect("add");
        }
        registry.add_identity(&identity("other", "org10")).expect("add");
        let org1 = Affiliation::parse("org1").expect("affiliation");

        let first = registry.identities(&org1, "").expect("page");
        let second = registry.identities(&org1, &first.last().expect("row").id).expect("page");

        assert_eq!((first.len(), second.len()), (PAGE_ROWS, 50));
        assert_eq!(registry.identities(&Affiliation::root(), "b").expect("page").len(), 1);
    }

    #[test]
    fn a_new_secret_forgives_wrong_attempts() {
        let (_folder, registry) = registry();
        registry.add_identity(&identity("alice", "")).expect("add");
        registry.count_failed_attempt("alice").expect("count");
        assert_eq!(registry.identity("alice").expect("read").expect("alice").failed_attempts, 1);

        let change = IdentityChange { secret_hash: Some("new".to_owned()), ..IdentityChange::default() };
        registry.change_identity("alice", &change).expect("change");

        assert_eq!(registry.identity("alice").expect("read").expect("alice").failed_attempts, 0);
    }
}
