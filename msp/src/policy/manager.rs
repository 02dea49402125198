//! The policies of a channel, by path.
//!
//! Source: Fabric `common/policies` (policy manager and implicit meta policies).

use std::{collections::BTreeMap, sync::Arc};

use consort_protos::fabric::common::{
    ConfigGroup, ImplicitMetaPolicy, Policy as PolicyMessage, policy::PolicyType,
};
use prost::Message;

use super::{ImplicitRule, Policy, SignaturePolicy};
use crate::MspManager;

/// Name of the root group.
const ROOT: &str = "Channel";

/// A channel's policies cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyManagerError {
    /// A policy entry holds no policy.
    #[error("policy {name} at path {path} was nil")]
    Absent {
        /// Name of the policy.
        name: String,
        /// Group that holds it.
        path: String,
    },
    /// Neither SIGNATURE nor IMPLICIT_META.
    #[error("policy {name} at path {path} has unknown policy type: {kind}")]
    UnknownType {
        /// Name of the policy.
        name: String,
        /// Group that holds it.
        path: String,
        /// Its type.
        kind: i32,
    },
    /// A policy's content is wrong.
    #[error("policy {name} at path {path} did not compile: {reason}")]
    Signature {
        /// Name of the policy.
        name: String,
        /// Group that holds it.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// An implicit meta policy's content is wrong.
    #[error("implicit policy {name} at path {path} did not compile: {reason}")]
    Implicit {
        /// Name of the policy.
        name: String,
        /// Group that holds it.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

/// All policies of a configuration tree, compiled.
#[derive(Debug, Clone)]
pub struct PolicyManager {
    /// By full path without the leading slash: `Channel/Application/Writers`.
    policies: BTreeMap<String, Arc<Policy>>,
}

impl PolicyManager {
    /// Compiles the policies of the tree below the channel's root group.
    ///
    /// # Errors
    /// [`PolicyManagerError`] with the first policy that does not compile. A reference to a sub-policy that does not exist is
    /// no error: it counts as one that rejects.
    pub fn new(root: &ConfigGroup, msps: &Arc<MspManager>) -> Result<Self, PolicyManagerError> {
        let mut manager = Self { policies: BTreeMap::new() };
        manager.add_group(ROOT, root, msps)?;
        Ok(manager)
    }

    /// The policy at an absolute path (`/Channel/Application/Writers`), or relative to the root.
    #[must_use]
    pub fn policy(&self, path: &str) -> Option<&Policy> {
        self.policy_from(ROOT, path)
    }

    /// The policy that `id` means within a group (path without leading slash, `Channel/Orderer`): absolute ids must lie within the
    /// group, others are relative to it.
    #[must_use]
    pub fn policy_from(&self, group: &str, id: &str) -> Option<&Policy> {
        self.lookup(group, id).map(AsRef::as_ref)
    }

    fn lookup(&self, group: &str, id: &str) -> Option<&Arc<Policy>> {
        let relative = match id.strip_prefix('/') {
            None => id,
            Some(absolute) => {
                let rest = absolute.strip_prefix(group)?;
                // The character after the group's path is skipped whatever it is, as Fabric does.
                let mut characters = rest.chars();
                characters.next()?;
                characters.as_str()
            }
        };
        if relative.is_empty() {
            return None;
        }
        self.policies.get(&format!("{group}/{relative}"))
    }

    /// All policies with their absolute paths.
    pub fn iter(&self) -> impl Iterator<Item = (String, &Policy)> {
        self.policies.iter().map(|(path, policy)| (format!("/{path}"), policy.as_ref()))
    }

    fn add_group(
        &mut self,
        path: &str,
        group: &ConfigGroup,
        msps: &Arc<MspManager>,
    ) -> Result<(), PolicyManagerError> {
        // Sub-groups first: an implicit policy asks them.
        for (name, child) in &group.groups {
            self.add_group(&format!("{path}/{name}"), child, msps)?;
        }
        for (name, entry) in &group.policies {
            let Some(message) = &entry.policy else {
                return Err(PolicyManagerError::Absent { name: name.clone(), path: path.to_owned() });
            };
            let policy = self.compile(name, path, message, group, msps)?;
            self.policies.insert(format!("{path}/{name}"), Arc::new(policy));
        }
        Ok(())
    }

    fn compile(
        &self,
        name: &str,
        path: &str,
        message: &PolicyMessage,
        group: &ConfigGroup,
        msps: &Arc<MspManager>,
    ) -> Result<Policy, PolicyManagerError> {
        let full_name = format!("/{path}/{name}");
        match PolicyType::try_from(message.r#type) {
            Ok(PolicyType::Signature) => SignaturePolicy::decode(&message.value)
                .map(|policy| Policy::signature(full_name, policy, Arc::clone(msps)))
                .map_err(|error| PolicyManagerError::Signature {
                    name: name.to_owned(),
                    path: path.to_owned(),
                    reason: error.to_string(),
                }),
            Ok(PolicyType::ImplicitMeta) => {
                let fail = |reason: String| PolicyManagerError::Implicit {
                    name: name.to_owned(),
                    path: path.to_owned(),
                    reason,
                };
                let implicit = ImplicitMetaPolicy::decode(message.value.as_ref())
                    .map_err(|error| fail(error.to_string()))?;
                let rule = ImplicitRule::from_proto(implicit.rule)
                    .ok_or_else(|| fail(format!("unknown rule type {}", implicit.rule)))?;
                let children = group
                    .groups
                    .keys()
                    .map(|child| {
                        let child_path = format!("{path}/{child}");
                        (child.clone(), self.lookup(&child_path, &implicit.sub_policy).map(Arc::clone))
                    })
                    .collect();
                Ok(Policy::implicit(full_name, rule, implicit.sub_policy, children, Arc::clone(msps)))
            }
            _ => Err(PolicyManagerError::UnknownType {
                name: name.to_owned(),
                path: path.to_owned(),
                kind: message.r#type,
            }),
        }
    }
}
