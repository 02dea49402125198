//! Private data that valid transactions promised and that this peer does not have.
//!
//! What the organisation is a member of stands apart from the rest: the first is searched for, newest first, the second is only kept
//! because the organisation may become a member (Fabric `core/ledger/pvtdatastorage`, "eligible" and "ineligible").

use consort_protos::ids::{BlockNumber, Height};

use crate::{
    database::{Change, Column, Database},
    error::Error,
    holdings::{set_key, split_set_key},
    order::prefix_end,
};

/// First byte of the records of collections that the organisation is a member of.
const OWN: u8 = 1;
/// First byte of the other records.
const OTHER: u8 = 2;

/// Records that become the organisation's in one write, so that a change of membership never holds up commits noticeably.
const RECONSIDERED_PER_WRITE_MAX: usize = 4_096;

/// Private data that a valid transaction promised and that this peer does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingPrivate {
    /// The transaction.
    pub place: Height,
    /// The chaincode's namespace.
    pub namespace: String,
    /// The collection.
    pub collection: String,
    /// Whether this peer's organisation is a member.
    pub member: bool,
}

impl MissingPrivate {
    /// Newer blocks sort first: they are asked for first.
    fn key(&self) -> Vec<u8> {
        let inverted = Height { block: BlockNumber::new(!self.place.block.get()), tx: self.place.tx };
        let kind = if self.member { OWN } else { OTHER };
        [&[kind], set_key(inverted, &self.namespace, &self.collection).as_slice()].concat()
    }

    fn from_key(key: &[u8]) -> Result<Self, Error> {
        let (kind, rest) =
            key.split_first().ok_or_else(|| Error::damaged("missing private set", "an empty key"))?;
        let (place, namespace, collection) = split_set_key(rest)?;
        let place = Height { block: BlockNumber::new(!place.block.get()), tx: place.tx };
        Ok(Self { place, namespace, collection, member: *kind == OWN })
    }

    /// Adds the record to what will be written with the block.
    pub(crate) fn stage(&self, change: &mut Change<'_>) {
        change.put(Column::MissingPrivate, self.key(), b"");
    }

    /// Adds its removal, when there is such a record of one kind or the other; says whether there is.
    pub(crate) fn stage_removal(&self, database: &Database, change: &mut Change<'_>) -> Result<bool, Error> {
        for member in [true, false] {
            let key = Self { member, ..self.clone() }.key();
            if database.contains(Column::MissingPrivate, &key)? {
                change.delete(Column::MissingPrivate, key);
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// What members lack, newest first, after the given record.
pub(crate) fn after(
    database: &Database,
    last: Option<&MissingPrivate>,
    results_max: usize,
) -> Result<Vec<MissingPrivate>, Error> {
    let start = match last {
        // The smallest key after it.
        Some(last) => [last.key().as_slice(), &[0]].concat(),
        None => vec![OWN],
    };
    database
        .scan(Column::MissingPrivate, &start, Some(&[OTHER]))
        .take(results_max)
        .map(|record| MissingPrivate::from_key(&record?.0))
        .collect()
}

/// Turns the records of collections that the organisation has become a member of into its own; says how many.
pub(crate) fn reconsider(
    database: &Database,
    is_member: impl Fn(&str, &str) -> bool,
) -> Result<usize, Error> {
    let mut turned = 0;
    let mut change = database.change();
    let mut staged = 0;
    for record in database.scan(Column::MissingPrivate, &[OTHER], None) {
        let (key, _) = record?;
        let mut missing = MissingPrivate::from_key(&key)?;
        if !is_member(&missing.namespace, &missing.collection) {
            continue;
        }
        change.delete(Column::MissingPrivate, key);
        missing.member = true;
        missing.stage(&mut change);
        staged += 1;
        if staged == RECONSIDERED_PER_WRITE_MAX {
            std::mem::replace(&mut change, database.change()).write()?;
            turned += std::mem::take(&mut staged);
        }
    }
    if staged > 0 {
        change.write()?;
    }
    Ok(turned + staged)
}

/// Adds the removal of the records of a collection in one block.
pub(crate) fn forget(
    database: &Database,
    block: BlockNumber,
    (namespace, collection): (&str, &str),
    change: &mut Change<'_>,
) -> Result<(), Error> {
    for kind in [OWN, OTHER] {
        let start = [&[kind], (!block.get()).to_be_bytes().as_slice()].concat();
        for record in database.scan(Column::MissingPrivate, &start, prefix_end(&start).as_deref()) {
            let (key, _) = record?;
            let missing = MissingPrivate::from_key(&key)?;
            if missing.namespace == namespace && missing.collection == collection {
                change.delete(Column::MissingPrivate, &key);
            }
        }
    }
    Ok(())
}
