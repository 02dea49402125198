//! The chaincode definitions in force on a channel, and the policies that come with them, read once and not for each proposal.
//!
//! A definition changes with a block that writes to `_lifecycle`, and its policies with the configuration as well. What was read is
//! therefore the same for all snapshots between the last such block and the newest published one. Any other snapshot (of a block
//! that is durable but not published yet, or from before a change) is read itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use consort_channel_config::ChannelBundle;
use consort_ledger::StateSnapshot;

use crate::committer::governance::{Governance, GovernanceError};
use crate::lifecycle::{Definition, DefinitionError};

/// Definitions that are kept; a channel has fewer chaincodes.
const KEPT_MAX: usize = 1_000;

/// What was read of the definitions in force.
#[derive(Debug)]
pub(crate) struct Definitions(Mutex<Kept>);

#[derive(Debug)]
struct Kept {
    /// Height (number of blocks) from which on the definitions are those in force.
    since: u64,
    /// Height of the newest block that is known to have left them alone.
    until: u64,
    definitions: HashMap<String, Arc<Definition>>,
    /// With the sequence of the configuration that the policies were made under.
    governance: HashMap<String, (u64, Arc<Governance>)>,
}

impl Definitions {
    /// Nothing read yet, of books of this height.
    pub(crate) fn new(height: u64) -> Self {
        Self(Mutex::new(Kept {
            since: height,
            until: height,
            definitions: HashMap::new(),
            governance: HashMap::new(),
        }))
    }

    /// A block was published, after which the books have this height; whether it may have changed definitions or configuration.
    pub(crate) fn published(&self, height: u64, changed: bool) {
        let mut kept = self.kept();
        if changed || height != kept.until + 1 {
            kept.since = height;
            kept.definitions.clear();
            kept.governance.clear();
        }
        kept.until = height;
    }

    /// Height since which no block has changed a definition.
    pub(crate) fn since(&self) -> u64 {
        self.kept().since
    }

    /// The definition of a chaincode; `None` when there is none.
    ///
    /// # Errors
    /// As [`Definition::read`].
    pub(crate) fn definition(
        &self,
        snapshot: &StateSnapshot,
        name: &str,
    ) -> Result<Option<Arc<Definition>>, DefinitionError> {
        let height = snapshot.height().get();
        let known = |kept: &Kept| kept.definitions.get(name).cloned();
        if let Some(definition) = self.look_up(height, known) {
            return Ok(Some(definition));
        }
        let Some(definition) = Definition::read(snapshot, name)?.map(Arc::new) else { return Ok(None) };
        self.keep(height, |kept| kept.definitions.insert(name.to_owned(), Arc::clone(&definition)));
        Ok(Some(definition))
    }

    /// What governs a namespace; `None` when no chaincode of that name is defined.
    ///
    /// # Errors
    /// As [`Governance::find`].
    pub(crate) fn governance(
        &self,
        bundle: &ChannelBundle,
        snapshot: &StateSnapshot,
        namespace: &str,
    ) -> Result<Option<Arc<Governance>>, GovernanceError> {
        let (height, sequence) = (snapshot.height().get(), bundle.sequence());
        let known = |kept: &Kept| {
            let (made_under, governance) = kept.governance.get(namespace)?;
            (*made_under == sequence).then(|| Arc::clone(governance))
        };
        if let Some(governance) = self.look_up(height, known) {
            return Ok(Some(governance));
        }
        let found = Governance::find(bundle, snapshot, namespace)?.map(Arc::new);
        let Some(governance) = found else { return Ok(None) };
        let entry = (sequence, Arc::clone(&governance));
        self.keep(height, |kept| kept.governance.insert(namespace.to_owned(), entry));
        Ok(Some(governance))
    }

    fn look_up<T>(&self, height: u64, known: impl FnOnce(&Kept) -> Option<T>) -> Option<T> {
        let kept = self.kept();
        if kept.covers(height) { known(&kept) } else { None }
    }

    /// Keeps what was read of a snapshot, unless a definition has changed since.
    fn keep<T>(&self, height: u64, insert: impl FnOnce(&mut Kept) -> T) {
        let mut kept = self.kept();
        if kept.covers(height) && kept.definitions.len().max(kept.governance.len()) < KEPT_MAX {
            insert(&mut kept);
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn covers(&self, height: u64) -> bool {
        (self.since..=self.until).contains(&height)
    }
}

#[cfg(test)]
mod tests {
    use consort_protos::fabric::protos::TxValidationCode::Valid;

    use super::*;
    use crate::testing::{TestChannel, collections, spelled_policy};

    #[test]
    fn what_was_read_before_a_change_is_not_kept_after_it() {
        let definitions = Definitions::new(5);
        let covered = |heights: [u64; 4]| heights.map(|height| definitions.kept().covers(height));
        assert_eq!(covered([4, 5, 6, 7]), [false, true, false, false]);
        definitions.published(6, false);
        assert_eq!(covered([4, 5, 6, 7]), [false, true, true, false]);
        definitions.published(7, true);
        assert_eq!(covered([5, 6, 7, 8]), [false, false, true, false]);
        // Blocks that nobody spoke of may have changed anything.
        definitions.published(9, false);
        assert_eq!(covered([7, 8, 9, 10]), [false, false, true, false]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_new_definition_is_read_when_its_block_is_there_and_old_snapshots_keep_the_old_one() {
        let mut bench = TestChannel::new().await;
        let channel = Arc::clone(&bench.channel);
        let read = |snapshot: &StateSnapshot| {
            let definition = channel.definitions().definition(snapshot, "basic").unwrap().unwrap();
            let governance = channel.definitions().governance(&channel.bundle(), snapshot, "basic");
            let rule = format!("{:?}", governance.unwrap().unwrap().rule());
            (definition, rule)
        };
        let before = channel.ledger().snapshot();
        let (old, old_rule) = read(&before);
        let put = bench.basic().build();
        assert_eq!(bench.commit(vec![put]).await, [Valid]);
        let (same, _) = read(&channel.ledger().snapshot());
        assert!(Arc::ptr_eq(&old, &same), "read once");

        let policy = spelled_policy("OR('Org2MSP.peer')");
        let change = bench.network.definition("basic", &policy, &collections()).build();
        assert_eq!(bench.commit(vec![change]).await, [Valid]);
        let (new, new_rule) = read(&channel.ledger().snapshot());
        assert!(new.validation_parameter != old.validation_parameter && new_rule != old_rule);
        let (kept, kept_rule) = read(&before);
        assert_eq!((&*kept, kept_rule), (&*old, old_rule));
    }
}
