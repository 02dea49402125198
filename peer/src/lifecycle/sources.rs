//! Which installed package runs a definition.
//!
//! An approval holds the id of the package that the organisation chose, as private data. Its hash is in everybody's books, so a
//! peer compares it with the hashes of what is installed here and needs nothing else.

use std::collections::BTreeMap;

use consort_ledger::StateSnapshot;
use consort_ledger::state::StateReader as _;

use super::definition::{Definition, DefinitionError};
use super::{LIFECYCLE, implicit_collection, state};
use crate::chaincode::{PackageId, PackageStore};

/// The installed package that the organisation approved for a definition; `None` when it is not installed here or the
/// organisation has chosen none.
///
/// # Errors
/// The state cannot be read.
pub fn package_of(
    snapshot: &StateSnapshot,
    packages: &PackageStore,
    msp_id: &str,
    definition: &Definition,
) -> Result<Option<PackageId>, consort_ledger::Error> {
    let record = state::sequence_name(&definition.name, definition.sequence);
    let key = state::field_key(state::CHAINCODE_SOURCES, &record, state::PACKAGE_ID);
    let chosen = snapshot.hashed(
        LIFECYCLE,
        &implicit_collection(msp_id),
        &snapshot.hash_algorithm().key_hash(&key),
    )?;
    let Some(chosen) = chosen else { return Ok(None) };
    let algorithm = snapshot.hash_algorithm();
    let digest = |id: &PackageId| algorithm.hash(&state::text(id.as_str()));
    Ok(packages.by_digest(&chosen.value, algorithm.channel_name(), digest))
}

/// The definitions of a channel that installed packages run.
///
/// # Errors
/// The state cannot be read.
pub fn runnable(
    snapshot: &StateSnapshot,
    packages: &PackageStore,
    msp_id: &str,
) -> Result<BTreeMap<PackageId, Vec<Definition>>, DefinitionError> {
    let mut runnable: BTreeMap<PackageId, Vec<Definition>> = BTreeMap::new();
    for name in Definition::names(snapshot)? {
        let Some(definition) = Definition::read(snapshot, &name)? else { continue };
        let package = package_of(snapshot, packages, msp_id, &definition).map_err(DefinitionError::Ledger)?;
        if let Some(package) = package {
            runnable.entry(package).or_default().push(definition);
        }
    }
    Ok(runnable)
}
