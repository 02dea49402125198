//! The configuration tree as a map from paths to elements, in which updates are expressed and judged.
//!
//! Source: Fabric `common/configtx/configmap.go`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use consort_protos::fabric::common::{ConfigGroup, ConfigPolicy, ConfigValue};

use crate::names::{CHANNEL, check_element_name};

/// The kinds of elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Group,
    Value,
    Policy,
}

/// Where an element stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) kind: Kind,
    /// `/Channel/Orderer/BatchSize`.
    pub(crate) path: String,
}

impl Key {
    fn new(kind: Kind, path: impl Into<String>) -> Self {
        Self { kind, path: path.into() }
    }

    /// The key of a value.
    pub(crate) fn value(path: &str) -> Self {
        Self::new(Kind::Value, path)
    }

    /// The group whose policies a relative mod_policy means: the element's own if it is a group, else the one around it; without
    /// the leading slash.
    pub(crate) fn policy_group(&self) -> &str {
        let path = self.path.strip_prefix('/').unwrap_or(&self.path);
        match self.kind {
            Kind::Group => path,
            Kind::Value | Kind::Policy => path.rsplit_once('/').map_or(path, |(group, _)| group),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Group => "[Group]  ",
            Kind::Value => "[Value]  ",
            Kind::Policy => "[Policy] ",
        };
        write!(f, "{kind}{}", self.path)
    }
}

/// An element without what is below it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Element {
    Group(GroupElement),
    Value(ConfigValue),
    Policy(ConfigPolicy),
}

/// A group with the names of its members.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GroupElement {
    version: u64,
    mod_policy: String,
    groups: BTreeSet<String>,
    values: BTreeSet<String>,
    policies: BTreeSet<String>,
}

impl Element {
    pub(crate) fn version(&self) -> u64 {
        match self {
            Self::Group(group) => group.version,
            Self::Value(value) => value.version,
            Self::Policy(policy) => policy.version,
        }
    }

    pub(crate) fn mod_policy(&self) -> &str {
        match self {
            Self::Group(group) => &group.mod_policy,
            Self::Value(value) => &value.mod_policy,
            Self::Policy(policy) => &policy.mod_policy,
        }
    }
}

/// All elements of a tree, or of a read or write set.
pub(crate) type ConfigMap = BTreeMap<Key, Element>;

/// Makes the map of a tree. No tree is an empty map.
///
/// # Errors
/// When a name is illegal.
pub(crate) fn map(root: Option<&ConfigGroup>) -> Result<ConfigMap, String> {
    let mut elements = ConfigMap::new();
    if let Some(root) = root {
        add_group(&mut elements, "", CHANNEL, root)?;
    }
    Ok(elements)
}

fn add_group(elements: &mut ConfigMap, prefix: &str, name: &str, group: &ConfigGroup) -> Result<(), String> {
    let path = checked(Kind::Group, prefix, name)?;
    for (name, child) in &group.groups {
        add_group(elements, &path, name, child)?;
    }
    for (name, value) in &group.values {
        elements
            .insert(Key::new(Kind::Value, checked(Kind::Value, &path, name)?), Element::Value(value.clone()));
    }
    for (name, policy) in &group.policies {
        elements.insert(
            Key::new(Kind::Policy, checked(Kind::Policy, &path, name)?),
            Element::Policy(policy.clone()),
        );
    }
    let element = GroupElement {
        version: group.version,
        mod_policy: group.mod_policy.clone(),
        groups: group.groups.keys().cloned().collect(),
        values: group.values.keys().cloned().collect(),
        policies: group.policies.keys().cloned().collect(),
    };
    elements.insert(Key::new(Kind::Group, path), Element::Group(element));
    Ok(())
}

fn checked(kind: Kind, prefix: &str, name: &str) -> Result<String, String> {
    check_element_name(name)
        .map_err(|error| format!("illegal characters in key: {} : {error}", Key::new(kind, "")))?;
    Ok(format!("{prefix}/{name}"))
}

/// Makes a tree of a map: each group has exactly the members that its element names; other elements vanish.
///
/// # Errors
/// When a named member is missing.
pub(crate) fn rebuild(elements: &ConfigMap) -> Result<ConfigGroup, String> {
    group_at(elements, &format!("/{CHANNEL}"))
}

fn group_at(elements: &ConfigMap, path: &str) -> Result<ConfigGroup, String> {
    let Some(Element::Group(element)) = elements.get(&Key::new(Kind::Group, path)) else {
        return Err(format!("missing group at path: {path}"));
    };
    let mut group = ConfigGroup {
        version: element.version,
        mod_policy: element.mod_policy.clone(),
        ..ConfigGroup::default()
    };
    for name in &element.groups {
        group.groups.insert(name.clone(), group_at(elements, &format!("{path}/{name}"))?);
    }
    for name in &element.values {
        let path = format!("{path}/{name}");
        let Some(Element::Value(value)) = elements.get(&Key::new(Kind::Value, path.as_str())) else {
            return Err(format!("missing value at path: {path}"));
        };
        group.values.insert(name.clone(), value.clone());
    }
    for name in &element.policies {
        let path = format!("{path}/{name}");
        let Some(Element::Policy(policy)) = elements.get(&Key::new(Kind::Policy, path.as_str())) else {
            return Err(format!("missing policy at path: {path}"));
        };
        group.policies.insert(name.clone(), policy.clone());
    }
    Ok(group)
}

/// Sets every empty mod_policy, as configurations with orderer capabilities have it.
pub(crate) fn fill_mod_policies(group: &mut ConfigGroup, mod_policy: &str) {
    let fill = |text: &mut String| {
        if text.is_empty() {
            mod_policy.clone_into(text);
        }
    };
    fill(&mut group.mod_policy);
    group.values.values_mut().for_each(|value| fill(&mut value.mod_policy));
    group.policies.values_mut().for_each(|policy| fill(&mut policy.mod_policy));
    group.groups.values_mut().for_each(|child| fill_mod_policies(child, mod_policy));
}
