//! What names, versions and collections may look like (Fabric `core/chaincode/lifecycle/scc.go`).

use std::collections::BTreeSet;

use consort_channel_config::ChannelBundle;
use consort_msp::principal;
use consort_protos::fabric::common::{
    MspPrincipal, SignaturePolicy, msp_principal::Classification, signature_policy,
};
use consort_protos::fabric::protos::{
    CollectionConfigPackage, StaticCollectionConfig, collection_config, collection_policy_config,
};
use consort_protos::ids::MspId;

/// Names that belong to system chaincodes.
const RESERVED: [&str; 5] = ["cscc", "escc", "lscc", "qscc", "vscc"];
/// How deep a collection's member policy may nest; it is one flat choice in practice.
const POLICY_DEPTH_MAX: usize = 16;

/// Checks a chaincode's name and version.
pub(super) fn check(name: &str, version: &str) -> Result<(), String> {
    if !is_chaincode_name(name) {
        return Err(format!(
            "invalid chaincode name '{name}'. Names can only consist of alphanumerics, '_', and '-' and can only begin \
             with alphanumerics"
        ));
    }
    if RESERVED.contains(&name) {
        return Err(format!("chaincode name '{name}' is the name of a system chaincode"));
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.+-".contains(&byte);
    if version.is_empty() || !version.bytes().all(allowed) {
        return Err(format!(
            "invalid chaincode version '{version}'. Versions can only consist of alphanumerics, '_',  '-', '+', and '.'"
        ));
    }
    Ok(())
}

/// `^[a-zA-Z0-9]+([-_][a-zA-Z0-9]+)*$`
fn is_chaincode_name(name: &str) -> bool {
    name.split(['-', '_'])
        .all(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// `^[A-Za-z0-9-]+([A-Za-z0-9_-]+)*$`
fn is_collection_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

/// Checks proposed collections, also against those of the definition in force.
pub(super) fn check_collections(
    proposed: &CollectionConfigPackage,
    committed: Option<&CollectionConfigPackage>,
) -> Result<(), String> {
    let proposed = static_collections(proposed)?;
    let mut names = BTreeSet::new();
    for collection in &proposed {
        check_collection(collection)?;
        if !names.insert(collection.name.as_str()) {
            return Err(format!(
                "collection-name: {} -- found duplicate in collection configuration",
                collection.name
            ));
        }
    }
    let committed = committed.map(static_collections).transpose()?.unwrap_or_default();
    if proposed.is_empty() && !committed.is_empty() {
        return Err(
            "the proposed collection config does not contain previously defined collections".to_owned()
        );
    }
    for existing in committed {
        let Some(new) = proposed.iter().find(|collection| collection.name == existing.name) else {
            return Err(format!(
                "existing collection [{}] missing in the proposed collection configuration",
                existing.name
            ));
        };
        if new.block_to_live != existing.block_to_live {
            return Err(format!(
                "the BlockToLive in an existing collection [{}] modified. Existing value [{}]",
                existing.name, existing.block_to_live
            ));
        }
    }
    Ok(())
}

fn static_collections(package: &CollectionConfigPackage) -> Result<Vec<&StaticCollectionConfig>, String> {
    package
        .config
        .iter()
        .map(|config| match &config.payload {
            Some(collection_config::Payload::StaticCollectionConfig(collection)) => Ok(collection),
            None => Err("unknown collection configuration type".to_owned()),
        })
        .collect()
}

fn check_collection(collection: &StaticCollectionConfig) -> Result<(), String> {
    let name = &collection.name;
    if !is_collection_name(name) {
        return Err(format!(
            "invalid collection name '{name}'. Names can only consist of alphanumerics, '_', and '-' and cannot begin \
             with '_'"
        ));
    }
    if collection.required_peer_count < 0 {
        return Err(format!(
            "collection-name: {name} -- requiredPeerCount ({}) cannot be less than zero",
            collection.required_peer_count
        ));
    }
    if collection.maximum_peer_count < collection.required_peer_count {
        return Err(format!(
            "collection-name: {name} -- maximum peer count ({}) cannot be less than the required peer count ({})",
            collection.maximum_peer_count, collection.required_peer_count
        ));
    }
    let policy = collection.member_orgs_policy.as_ref().and_then(|policy| policy.payload.as_ref());
    let Some(collection_policy_config::Payload::SignaturePolicy(envelope)) = policy else {
        return Err(format!("collection member policy is not set for collection '{name}'"));
    };
    let Some(rule) = &envelope.rule else {
        return Err(format!("collection member org policy is empty for collection '{name}'"));
    };
    if !is_choice(rule, 0) {
        return Err(format!(
            "collection-name: {name} -- error in member org policy: signature policy is not an OR concatenation"
        ));
    }
    consort_msp::policy::SignaturePolicy::from_proto(envelope)
        .map_err(|error| format!("collection-name: {name} -- error in member org policy: {error}"))?;
    if collection.endorsement_policy.as_ref().is_some_and(|policy| policy.r#type.is_none()) {
        return Err(format!(
            "collection-name: {name} -- the endorsement policy is empty; leave it out to use the chaincode's"
        ));
    }
    Ok(())
}

/// Checks that the members of proposed collections are of the channel: a misspelled MSP id would be a collection that nobody reads.
pub(super) fn check_members(
    bundle: &ChannelBundle,
    proposed: &CollectionConfigPackage,
) -> Result<(), String> {
    for collection in static_collections(proposed)? {
        let policy = collection.member_orgs_policy.as_ref().and_then(|policy| policy.payload.as_ref());
        let Some(collection_policy_config::Payload::SignaturePolicy(envelope)) = policy else { continue };
        for principal in &envelope.identities {
            check_member(bundle, principal)
                .map_err(|reason| format!("collection-name: {} -- {reason}", collection.name))?;
        }
    }
    Ok(())
}

fn check_member(bundle: &ChannelBundle, principal: &MspPrincipal) -> Result<(), String> {
    match Classification::try_from(principal.principal_classification) {
        Ok(Classification::Role | Classification::OrganizationUnit) => {
            let named = principal::msp_id(principal).unwrap_or_default();
            let known = MspId::parse(&named).is_ok_and(|msp_id| bundle.msps().msp(&msp_id).is_some());
            if known {
                Ok(())
            } else {
                Err(format!("collection member '{named}' is not part of the channel"))
            }
        }
        Ok(Classification::Identity) => match bundle.msps().deserialize(&principal.principal) {
            Ok(_) => Ok(()),
            Err(_) => Err("contains an identity that is not part of the channel".to_owned()),
        },
        _ => Err(format!("principal type {} is not supported", principal.principal_classification)),
    }
}

/// Whether every node asks for one of its branches: members are those who could satisfy it alone.
fn is_choice(rule: &SignaturePolicy, depth: usize) -> bool {
    match &rule.r#type {
        Some(signature_policy::Type::SignedBy(_)) => true,
        Some(signature_policy::Type::NOutOf(gate)) => {
            gate.n == 1
                && depth < POLICY_DEPTH_MAX
                && gate.rules.iter().all(|rule| is_choice(rule, depth + 1))
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use consort_protos::fabric::protos::{CollectionConfig, CollectionPolicyConfig};

    use super::*;

    fn collection(name: &str, policy: &str, block_to_live: u64) -> CollectionConfigPackage {
        let envelope = consort_msp::policy::parse(policy).unwrap();
        let collection = StaticCollectionConfig {
            name: name.to_owned(),
            member_orgs_policy: Some(CollectionPolicyConfig {
                payload: Some(collection_policy_config::Payload::SignaturePolicy(envelope)),
            }),
            maximum_peer_count: 1,
            block_to_live,
            ..StaticCollectionConfig::default()
        };
        let payload = Some(collection_config::Payload::StaticCollectionConfig(collection));
        CollectionConfigPackage { config: vec![CollectionConfig { payload }] }
    }

    const EITHER: &str = "OR('Org1MSP.member','Org2MSP.member')";

    #[test]
    fn names_are_words_joined_by_dashes_or_underscores() {
        for name in ["basic", "asset-transfer_2"] {
            assert_eq!(check(name, "1.0"), Ok(()), "{name}");
        }
        for name in ["", "-basic", "basic-", "a--b", "../x", "cscc", "_lifecycle"] {
            assert!(check(name, "1.0").is_err(), "{name}");
        }
        assert!(check("basic", "").is_err());
        assert!(check("basic", "1/0").is_err());
    }

    #[test]
    fn collections_need_a_name_and_a_choice_of_members() {
        assert_eq!(check_collections(&collection("both", EITHER, 0), None), Ok(()));
        assert!(check_collections(&collection("_implicit_org_Org1MSP", EITHER, 0), None).is_err());
        let both = "AND('Org1MSP.member','Org2MSP.member')";
        assert!(
            check_collections(&collection("both", both, 0), None).unwrap_err().contains("OR concatenation")
        );
    }

    #[test]
    fn members_are_of_the_channel() {
        let network = crate::testing::Network::new(&[]);
        let bundle = ChannelBundle::from_block(&network.genesis).unwrap();
        assert_eq!(check_members(&bundle, &collection("both", EITHER, 0)), Ok(()));
        assert_eq!(
            check_members(&bundle, &collection("typo", "OR('Org1MSP.member','Org7MSP.member')", 0))
                .unwrap_err(),
            "collection-name: typo -- collection member 'Org7MSP' is not part of the channel"
        );
    }

    #[test]
    fn contradictory_settings_are_refused_by_name() {
        let refused = |change: &dyn Fn(&mut StaticCollectionConfig)| {
            let mut package = collection("both", EITHER, 0);
            let Some(collection_config::Payload::StaticCollectionConfig(both)) =
                &mut package.config[0].payload
            else {
                panic!("a static collection")
            };
            change(both);
            check_collections(&package, None).unwrap_err()
        };
        assert_eq!(
            refused(&|both| both.required_peer_count = 2),
            "collection-name: both -- maximum peer count (1) cannot be less than the required peer count (2)"
        );
        assert_eq!(
            refused(&|both| both.required_peer_count = -1),
            "collection-name: both -- requiredPeerCount (-1) cannot be less than zero"
        );
        assert_eq!(
            refused(&|both| both.member_orgs_policy = None),
            "collection member policy is not set for collection 'both'"
        );
        let mut twice = collection("both", EITHER, 0);
        twice.config.extend(collection("both", EITHER, 0).config);
        assert_eq!(
            check_collections(&twice, None).unwrap_err(),
            "collection-name: both -- found duplicate in collection configuration"
        );
    }

    #[test]
    fn an_empty_endorsement_policy_is_refused() {
        let mut package = collection("both", EITHER, 0);
        let Some(collection_config::Payload::StaticCollectionConfig(both)) = &mut package.config[0].payload
        else {
            panic!("a static collection")
        };
        both.endorsement_policy = Some(Default::default());
        assert_eq!(
            check_collections(&package, None).unwrap_err(),
            "collection-name: both -- the endorsement policy is empty; leave it out to use the chaincode's"
        );
    }

    #[test]
    fn an_existing_collection_stays_and_keeps_its_time_to_live() {
        let committed = collection("both", EITHER, 3);
        assert_eq!(check_collections(&committed, Some(&committed)), Ok(()));
        assert!(check_collections(&collection("both", EITHER, 4), Some(&committed)).is_err());
        assert!(check_collections(&CollectionConfigPackage::default(), Some(&committed)).is_err());
    }
}
