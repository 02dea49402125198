//! The smallest update that leads from one configuration to another.

use std::collections::BTreeMap;

use consort_protos::{
    fabric::common::{Config, ConfigGroup, ConfigPolicy, ConfigUpdate, ConfigValue},
    ids::ChannelId,
};

/// No update can be computed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ComputeError {
    /// The original has no tree.
    #[error("no channel group included for original config")]
    NoOriginal,
    /// The updated configuration has no tree.
    #[error("no channel group included for updated config")]
    NoUpdated,
    /// Nothing differs (versions in the updated tree do not count).
    #[error("no differences detected between original and updated config")]
    NoDifferences,
}

/// Computes the update that makes `original` into `updated`. Versions in `updated` are ignored; it is compared by content.
///
/// # Errors
/// [`ComputeError`].
pub fn compute(
    original: &Config,
    updated: &Config,
    channel: &ChannelId,
) -> Result<ConfigUpdate, ComputeError> {
    let original = original.channel_group.as_ref().ok_or(ComputeError::NoOriginal)?;
    let updated = updated.channel_group.as_ref().ok_or(ComputeError::NoUpdated)?;
    let difference = group(original, updated);
    if !difference.changed {
        return Err(ComputeError::NoDifferences);
    }
    Ok(ConfigUpdate {
        channel_id: channel.as_str().to_owned(),
        read_set: Some(difference.read),
        write_set: Some(difference.write),
        ..ConfigUpdate::default()
    })
}

/// What a comparison of two groups gives.
struct Difference {
    read: ConfigGroup,
    write: ConfigGroup,
    changed: bool,
}

fn group(original: &ConfigGroup, updated: &ConfigGroup) -> Difference {
    let mut values = Members::default();
    values.compare(&original.values, &updated.values);
    let mut policies = Members::default();
    policies.compare(&original.policies, &updated.policies);
    let mut groups = Groups::default();
    groups.compare(&original.groups, &updated.groups);

    let membership_changed =
        values.membership_changed || policies.membership_changed || groups.membership_changed;
    let bare = ConfigGroup { version: original.version, ..ConfigGroup::default() };
    if !membership_changed && original.mod_policy == updated.mod_policy {
        let changed =
            !(values.written.is_empty() && policies.written.is_empty() && groups.written.is_empty());
        let read = ConfigGroup { groups: groups.read, ..bare.clone() };
        let write = ConfigGroup {
            groups: groups.written,
            values: values.written,
            policies: policies.written,
            ..bare
        };
        return Difference { read, write, changed };
    }
    // The list of members changes, so the write set must name all that remain; unchanged ones stand in both sets.
    let read = ConfigGroup {
        groups: union(groups.read, &groups.same),
        values: values.same.clone(),
        policies: policies.same.clone(),
        ..bare
    };
    let write = ConfigGroup {
        version: original.version.wrapping_add(1),
        groups: union(groups.written, &groups.same),
        values: union(values.written, &values.same),
        policies: union(policies.written, &policies.same),
        mod_policy: updated.mod_policy.clone(),
    };
    Difference { read, write, changed: true }
}

fn union<T: Clone>(mut left: BTreeMap<String, T>, right: &BTreeMap<String, T>) -> BTreeMap<String, T> {
    left.extend(right.iter().map(|(name, member)| (name.clone(), member.clone())));
    left
}

/// A value or policy: compared by content, written as a whole.
trait Member: Clone {
    fn same(&self, other: &Self) -> bool;
    fn version(&self) -> u64;
    fn at_version(&self, version: u64) -> Self;
    fn only_version(version: u64) -> Self;
}

impl Member for ConfigValue {
    fn same(&self, other: &Self) -> bool {
        self.mod_policy == other.mod_policy && self.value == other.value
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn at_version(&self, version: u64) -> Self {
        Self { version, ..self.clone() }
    }

    fn only_version(version: u64) -> Self {
        Self { version, ..Self::default() }
    }
}

impl Member for ConfigPolicy {
    fn same(&self, other: &Self) -> bool {
        self.mod_policy == other.mod_policy && self.policy == other.policy
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn at_version(&self, version: u64) -> Self {
        Self { version, ..self.clone() }
    }

    fn only_version(version: u64) -> Self {
        Self { version, ..Self::default() }
    }
}

struct Members<T> {
    same: BTreeMap<String, T>,
    written: BTreeMap<String, T>,
    membership_changed: bool,
}

impl<T> Default for Members<T> {
    fn default() -> Self {
        Self { same: BTreeMap::new(), written: BTreeMap::new(), membership_changed: false }
    }
}

impl<T: Member> Members<T> {
    fn compare(&mut self, original: &BTreeMap<String, T>, updated: &BTreeMap<String, T>) {
        self.membership_changed = !original.keys().eq(updated.keys());
        for (name, new) in updated {
            match original.get(name) {
                Some(old) if old.same(new) => {
                    self.same.insert(name.clone(), T::only_version(old.version()));
                }
                Some(old) => {
                    self.written.insert(name.clone(), new.at_version(old.version().wrapping_add(1)));
                }
                None => {
                    self.written.insert(name.clone(), new.at_version(0));
                }
            }
        }
    }
}

#[derive(Default)]
struct Groups {
    same: BTreeMap<String, ConfigGroup>,
    read: BTreeMap<String, ConfigGroup>,
    written: BTreeMap<String, ConfigGroup>,
    membership_changed: bool,
}

impl Groups {
    fn compare(&mut self, original: &BTreeMap<String, ConfigGroup>, updated: &BTreeMap<String, ConfigGroup>) {
        self.membership_changed = !original.keys().eq(updated.keys());
        for (name, new) in updated {
            let Some(old) = original.get(name) else {
                self.written.insert(name.clone(), fresh(new));
                continue;
            };
            let difference = group(old, new);
            if difference.changed {
                self.read.insert(name.clone(), difference.read);
                self.written.insert(name.clone(), difference.write);
            } else {
                let only_version = ConfigGroup { version: old.version, ..ConfigGroup::default() };
                self.same.insert(name.clone(), only_version);
            }
        }
    }
}

/// A group that did not exist, with everything in it at version 0.
fn fresh(group: &ConfigGroup) -> ConfigGroup {
    ConfigGroup {
        version: 0,
        groups: group.groups.iter().map(|(name, child)| (name.clone(), fresh(child))).collect(),
        values: group.values.iter().map(|(name, value)| (name.clone(), value.at_version(0))).collect(),
        policies: group.policies.iter().map(|(name, policy)| (name.clone(), policy.at_version(0))).collect(),
        mod_policy: group.mod_policy.clone(),
    }
}
