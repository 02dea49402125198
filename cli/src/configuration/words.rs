//! What differs between two configurations, in words: one line per change.

use std::collections::{BTreeMap, BTreeSet};

use consort_channel_config::update::Demand;
use consort_msp::policy::{self, Policy};
use consort_protos::fabric::common::{
    Config, ConfigGroup, ConfigPolicy, ConfigValue, ImplicitMetaPolicy, SignaturePolicyEnvelope,
    policy::PolicyType,
};
use consort_protos::fabric::protos::{AcLs, ApiResource};
use consort_protos::ids::MspId;
use prost::Message;
use serde_json::Value;

use crate::messages;

/// The value that holds a channel's rules of access.
const ACCESS: &str = "ACLs";

/// Characters of a value that are shown; a certificate is recognised by its beginning, and the line stays a line.
const VALUE_CHARACTERS: usize = 60;

/// Alternatives of signers that are listed; a majority of twenty organisations has more than anybody reads.
const ALTERNATIVES: usize = 6;

/// The changes from one configuration to another.
pub(super) fn changes(old: &Config, new: &Config) -> Vec<String> {
    let (empty, mut lines) = (ConfigGroup::default(), Vec::new());
    let old = old.channel_group.as_ref().unwrap_or(&empty);
    let new = new.channel_group.as_ref().unwrap_or(&empty);
    group("", old, new, &mut lines);
    lines
}

fn group(path: &str, old: &ConfigGroup, new: &ConfigGroup, lines: &mut Vec<String>) {
    let within = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
    for name in names(&old.groups, &new.groups) {
        let at = within(name);
        match (old.groups.get(name), new.groups.get(name)) {
            (Some(old), Some(new)) => group(&at, old, new, lines),
            (None, Some(_)) => lines.push(format!("{at}: the organisation joins")),
            _ => lines.push(format!("{at}: the organisation leaves")),
        }
    }
    for name in names(&old.values, &new.values) {
        let (old, new) = (old.values.get(name), new.values.get(name));
        if old.map(|value| &value.value) == new.map(|value| &value.value) {
            continue;
        }
        if name == ACCESS {
            lines.extend(rules_of_access(old, new));
            continue;
        }
        let json = |value: Option<&ConfigValue>| {
            value.map_or(Value::Null, |value| messages::configuration_value(name, &value.value))
        };
        compare(&within(name), &json(old), &json(new), lines);
    }
    for name in names(&old.policies, &new.policies) {
        let (old, new) = (old.policies.get(name), new.policies.get(name));
        if old.map(|policy| &policy.policy) != new.map(|policy| &policy.policy) {
            lines.push(format!("policy {}: {} -> {}", within(name), rule(old), rule(new)));
        }
    }
}

/// Who may do what: each resource with the policy that guarded it and that will. Without an entry it has the default of Fabric.
fn rules_of_access(old: Option<&ConfigValue>, new: Option<&ConfigValue>) -> Vec<String> {
    let entries = |value: Option<&ConfigValue>| {
        value.and_then(|value| AcLs::decode(value.value.clone()).ok()).unwrap_or_default().acls
    };
    let (old, new) = (entries(old), entries(new));
    let policy = |entry: Option<&ApiResource>| {
        let named = entry.map(|entry| entry.policy_ref.as_str()).filter(|policy| !policy.is_empty());
        named.unwrap_or("the default").to_owned()
    };
    names(&old, &new)
        .into_iter()
        .filter(|resource| old.get(*resource) != new.get(*resource))
        .map(|resource| {
            let (before, after) = (policy(old.get(resource)), policy(new.get(resource)));
            format!("access to {resource}: {before} -> {after}")
        })
        .collect()
}

fn names<'a, T>(old: &'a BTreeMap<String, T>, new: &'a BTreeMap<String, T>) -> BTreeSet<&'a String> {
    old.keys().chain(new.keys()).collect()
}

fn compare(path: &str, old: &Value, new: &Value, lines: &mut Vec<String>) {
    match (old, new) {
        (old, new) if old == new => {}
        (Value::Object(left), Value::Object(right)) => {
            let keys: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
            for key in keys {
                let none = Value::Null;
                let at = format!("{path}.{key}");
                compare(&at, left.get(key).unwrap_or(&none), right.get(key).unwrap_or(&none), lines);
            }
        }
        (Value::Array(left), Value::Array(right)) => {
            lines.extend(
                left.iter()
                    .filter(|item| !right.contains(item))
                    .map(|item| format!("{path}: without {}", short(item))),
            );
            lines.extend(
                right
                    .iter()
                    .filter(|item| !left.contains(item))
                    .map(|item| format!("{path}: with {}", short(item))),
            );
        }
        (Value::Null, new @ Value::Object(fields)) if !fields.is_empty() => {
            lines.push(format!("{path}: new: {}", short(new)));
        }
        (old, new) => lines.push(format!("{path}: {} -> {}", short(old), short(new))),
    }
}

fn short(value: &Value) -> String {
    let text = match value {
        Value::Null => return "nothing".to_owned(),
        Value::String(text) => text.clone(),
        // A consenter or an anchor peer is known by where it is.
        Value::Object(fields) if fields.contains_key("host") && fields.contains_key("port") => {
            format!("{}:{}", short(&fields["host"]), fields["port"])
        }
        other => other.to_string(),
    };
    if text.chars().count() <= VALUE_CHARACTERS {
        return text;
    }
    let beginning: String = text.chars().take(VALUE_CHARACTERS).collect();
    format!("{beginning}...")
}

/// A policy's rule as it is written in profiles.
pub(super) fn rule(policy: Option<&ConfigPolicy>) -> String {
    let Some(policy) = policy.and_then(|policy| policy.policy.as_ref()) else { return "nothing".to_owned() };
    let kind = PolicyType::try_from(policy.r#type).unwrap_or(PolicyType::Unknown);
    match kind {
        PolicyType::Signature => SignaturePolicyEnvelope::decode(policy.value.clone())
            .map_or_else(|_| "unreadable".to_owned(), |envelope| policy::to_text(&envelope)),
        PolicyType::ImplicitMeta => ImplicitMetaPolicy::decode(policy.value.clone())
            .map_or_else(|_| "unreadable".to_owned(), |rule| policy::implicit::to_text(&rule)),
        _ => format!("a policy of type {}", policy.r#type),
    }
}

/// Whose signatures a changed element needs.
pub(super) fn demand(demand: &Demand) -> String {
    let who = alternatives(&demand.signers);
    let state = if demand.unmet.is_none() { "signed" } else { "open  " };
    format!("[{state}] {} (policy {}): {who}", demand.element, demand.policy)
}

/// The smallest sets of organisations whose signatures satisfy a policy.
pub(super) fn sets(policy: &Policy) -> String {
    alternatives(&policy.organisation_sets())
}

fn alternatives(all: &[BTreeMap<MspId, usize>]) -> String {
    let of = |set: &BTreeMap<MspId, usize>| {
        let one = |(organisation, count): (&MspId, &usize)| match count {
            1 => organisation.to_string(),
            count => format!("{count} of {organisation}"),
        };
        match set.len() {
            0 => "nobody needs to sign".to_owned(),
            _ => set.iter().map(one).collect::<Vec<_>>().join(" and "),
        }
    };
    let shown: Vec<String> = all.iter().take(ALTERNATIVES).map(of).collect();
    let more = if all.len() > shown.len() { ", or others" } else { "" };
    if shown.is_empty() { "nobody can sign it".to_owned() } else { format!("{}{more}", shown.join(", or ")) }
}

#[cfg(test)]
mod tests {
    use consort_channel_config::{BatchChange, Change};
    use consort_protos::fabric::common::{Block, ConfigEnvelope, Envelope, Payload};

    use super::*;

    fn golden() -> Config {
        let path = "../protos/tests/golden/fabric-channel/blocks/0000.pb";
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        let block = Block::decode(std::fs::read(file).unwrap().as_slice()).unwrap();
        let envelope = Envelope::decode(block.data.unwrap().data[0].clone()).unwrap();
        let payload = Payload::decode(envelope.payload).unwrap();
        ConfigEnvelope::decode(payload.data).unwrap().config.unwrap()
    }

    #[test]
    fn a_change_is_told_field_by_field() {
        let old = golden();
        let batch = BatchChange { max_message_count: Some(77), ..BatchChange::default() };
        let mut change = Change { batch, ..Change::default() };
        change.policies.insert("Application/Endorsement".to_owned(), "ANY Endorsement".to_owned());
        let lines = changes(&old, &change.apply(&old).unwrap());
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(
            lines[0]
                .starts_with("policy Application/Endorsement: AND('Org1MSP.peer', 'Org2MSP.peer') -> ANY"),
            "{lines:?}"
        );
        assert!(lines[1].starts_with("Orderer/BatchSize.max_message_count: "), "{lines:?}");
        assert!(lines[1].ends_with(" -> 77"), "{lines:?}");
    }

    #[test]
    fn rules_of_access_are_told_one_by_one() {
        let old = golden();
        let rule = |resource: &str, policy: &str| (resource.to_owned(), policy.to_owned());
        let some = [rule("event/Block", "Auditors"), rule("peer/Propose", "/Channel/Application/Admins")];
        let guarded = Change { acls: some.into(), ..Change::default() }.apply(&old).unwrap();
        assert_eq!(
            changes(&old, &guarded),
            [
                "access to event/Block: the default -> Auditors",
                "access to peer/Propose: the default -> /Channel/Application/Admins"
            ]
        );
        let back = Change { acls: [rule("event/Block", "")].into(), ..Change::default() };
        assert_eq!(
            changes(&guarded, &back.apply(&guarded).unwrap()),
            ["access to event/Block: Auditors -> the default"]
        );
    }

    #[test]
    fn maintenance_is_told_and_changes_nothing_else() {
        let old = golden();
        let enter = Change { maintenance: Some(true), ..Change::default() };
        let entered = enter.apply(&old).unwrap();
        let lines = changes(&old, &entered);
        assert_eq!(lines, ["Orderer/ConsensusType.state: STATE_NORMAL -> STATE_MAINTENANCE"]);
        let leave = Change { maintenance: Some(false), ..Change::default() };
        assert_eq!(changes(&old, &leave.apply(&entered).unwrap()), Vec::<String>::new());
    }

    #[test]
    fn anchor_peers_and_removals_are_told() {
        let old = golden();
        let mut change = Change::default();
        let peer = serde_json::json!({ "host": "peer1.org1.example.com", "port": 7151 });
        change.anchor_peers.insert("Org1MSP".to_owned(), vec![serde_json::from_value(peer).unwrap()]);
        change.organisations.remove.push("Org2MSP".to_owned());
        let lines = changes(&old, &change.apply(&old).unwrap());
        assert!(lines.iter().any(|line| line == "Application/Org2MSP: the organisation leaves"), "{lines:?}");
        assert!(lines.iter().any(|line| line.contains("peer1.org1.example.com:7151")), "{lines:?}");
    }

    #[test]
    fn an_unknown_organisation_is_answered_with_the_known_ones() {
        let mut change = Change::default();
        change.anchor_peers.insert("Org9".to_owned(), Vec::new());
        let error = change.apply(&golden()).unwrap_err().to_string();
        assert!(error.starts_with("the channel has no organisation Org9 (known are: Org1MSP"), "{error}");
    }
}
