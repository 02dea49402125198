//! Private data that transactions promised and that this peer does not have.
//!
//! What the organisation is a member of stands apart from the rest: the first is searched for, newest first, the second is only kept
//! because the organisation may become a member (Fabric `core/ledger/pvtdatastorage`, "eligible" and "ineligible"). Invalid transactions count
//! as well, as in Fabric (`gossip/privdata`, `computeEligibility`), and stand behind all valid ones: theirs never reaches the state.

use std::collections::{BTreeMap, BTreeSet};

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
/// First byte of the organisation's records whose transactions are invalid.
const OWN_OF_INVALID: u8 = 3;
/// First byte of the other records whose transactions are invalid.
const OTHER_OF_INVALID: u8 = 4;
/// All of them.
const KINDS: [u8; 4] = [OWN, OTHER, OWN_OF_INVALID, OTHER_OF_INVALID];

/// Records that become the organisation's in one write, so that a change of membership never holds up commits noticeably.
const RECONSIDERED_PER_WRITE_MAX: usize = 4_096;

/// Private data that a transaction promised and that this peer does not have.
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
    /// Whether the transaction is invalid: its data is kept for readers of the block alone.
    pub invalid: bool,
}

impl MissingPrivate {
    /// Newer blocks sort first: they are asked for first.
    fn key(&self) -> Vec<u8> {
        let inverted = Height { block: BlockNumber::new(!self.place.block.get()), tx: self.place.tx };
        [&[self.kind()], set_key(inverted, &self.namespace, &self.collection).as_slice()].concat()
    }

    fn kind(&self) -> u8 {
        match (self.member, self.invalid) {
            (true, false) => OWN,
            (false, false) => OTHER,
            (true, true) => OWN_OF_INVALID,
            (false, true) => OTHER_OF_INVALID,
        }
    }

    fn from_key(key: &[u8]) -> Result<Self, Error> {
        let (kind, rest) =
            key.split_first().ok_or_else(|| Error::damaged("missing private set", "an empty key"))?;
        let (place, namespace, collection) = split_set_key(rest)?;
        let place = Height { block: BlockNumber::new(!place.block.get()), tx: place.tx };
        let (member, invalid) = match *kind {
            OWN => (true, false),
            OTHER => (false, false),
            OWN_OF_INVALID => (true, true),
            OTHER_OF_INVALID => (false, true),
            kind => return Err(Error::damaged("missing private set", format!("of kind {kind}"))),
        };
        Ok(Self { place, namespace, collection, member, invalid })
    }

    /// Adds the record to what will be written with the block.
    pub(crate) fn stage(&self, change: &mut Change<'_>) {
        change.put(Column::MissingPrivate, self.key(), b"");
    }
}

/// Adds the removal of the record of a set, of whatever kind it is, to what will be written; gives the record, when there is one.
pub(crate) fn stage_removal(
    database: &Database,
    place: Height,
    (namespace, collection): (&str, &str),
    change: &mut Change<'_>,
) -> Result<Option<MissingPrivate>, Error> {
    for (member, invalid) in [(true, false), (false, false), (true, true), (false, true)] {
        let (namespace, collection) = (namespace.to_owned(), collection.to_owned());
        let record = MissingPrivate { place, namespace, collection, member, invalid };
        let key = record.key();
        if database.contains(Column::MissingPrivate, &key)? {
            change.delete(Column::MissingPrivate, key);
            return Ok(Some(record));
        }
    }
    Ok(None)
}

/// What members lack, after the given record: of valid transactions, the newest first, and then of invalid ones.
pub(crate) fn after(
    database: &Database,
    last: Option<&MissingPrivate>,
    results_max: usize,
) -> Result<Vec<MissingPrivate>, Error> {
    let mut found = match last {
        Some(last) if last.invalid => Vec::new(),
        last => of_kind(database, OWN, last, results_max)?,
    };
    let last_invalid = last.filter(|last| last.invalid);
    found.extend(of_kind(database, OWN_OF_INVALID, last_invalid, results_max - found.len())?);
    Ok(found)
}

/// What members lack of invalid transactions, the newest first, after the given record.
pub(crate) fn of_invalid_after(
    database: &Database,
    last: Option<&MissingPrivate>,
    results_max: usize,
) -> Result<Vec<MissingPrivate>, Error> {
    of_kind(database, OWN_OF_INVALID, last, results_max)
}

fn of_kind(
    database: &Database,
    kind: u8,
    last: Option<&MissingPrivate>,
    results_max: usize,
) -> Result<Vec<MissingPrivate>, Error> {
    let start = match last {
        // The smallest key after it.
        Some(last) => [last.key().as_slice(), &[0]].concat(),
        None => vec![kind],
    };
    database
        .scan(Column::MissingPrivate, &start, Some(&[kind + 1]))
        .take(results_max)
        .map(|record| MissingPrivate::from_key(&record?.0))
        .collect()
}

/// Where sets of valid transactions are missing, by namespace and collection, also of collections that the organisation is no member of.
pub(crate) fn of_valid(database: &Database) -> Result<BTreeMap<(String, String), BTreeSet<Height>>, Error> {
    let mut places: BTreeMap<_, BTreeSet<Height>> = BTreeMap::new();
    for record in database.scan(Column::MissingPrivate, &[OWN], Some(&[OTHER + 1])) {
        let MissingPrivate { place, namespace, collection, .. } = MissingPrivate::from_key(&record?.0)?;
        places.entry((namespace, collection)).or_default().insert(place);
    }
    Ok(places)
}

/// Turns the records of collections that the organisation has become a member of into its own; says how many.
pub(crate) fn reconsider(
    database: &Database,
    is_member: impl Fn(&str, &str) -> bool,
) -> Result<usize, Error> {
    let mut turned = 0;
    let mut change = database.change();
    let mut staged = 0;
    let others = |kind: u8| database.scan(Column::MissingPrivate, &[kind], Some(&[kind + 1]));
    for record in others(OTHER).chain(others(OTHER_OF_INVALID)) {
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
    for kind in KINDS {
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
