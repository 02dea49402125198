//! Definitions of chaincodes, with collections and policies.

use consort_protos::fabric::lifecycle::{
    ChaincodeEndorsementInfo, ChaincodeValidationInfo, StateData, StateMetadata, state_data,
};
use consort_protos::fabric::protos::{
    ApplicationPolicy, CollectionConfig, CollectionConfigPackage, CollectionPolicyConfig,
    StaticCollectionConfig, application_policy, collection_config, collection_policy_config,
};
use consort_protos::rwset::{NamespaceReadWriteSet, TxReadWriteSet};
use prost::Message;

use super::transaction::write;

/// Collection `own` of Org1, which decides alone about writes to it.
pub(crate) fn collections() -> CollectionConfigPackage {
    let own = StaticCollectionConfig {
        name: "own".to_owned(),
        member_orgs_policy: Some(CollectionPolicyConfig {
            payload: Some(collection_policy_config::Payload::SignaturePolicy(
                consort_msp::policy::parse("OR('Org1MSP.member')").expect("a policy"),
            )),
        }),
        endorsement_policy: Some(spelled_policy("OR('Org1MSP.peer')")),
        ..StaticCollectionConfig::default()
    };
    CollectionConfigPackage {
        config: vec![CollectionConfig {
            payload: Some(collection_config::Payload::StaticCollectionConfig(own)),
        }],
    }
}

/// The reference to a policy of the channel.
pub(crate) fn channel_policy(path: &str) -> ApplicationPolicy {
    ApplicationPolicy {
        r#type: Some(application_policy::Type::ChannelConfigPolicyReference(path.to_owned())),
    }
}

/// A policy spelled out.
pub(crate) fn spelled_policy(text: &str) -> ApplicationPolicy {
    let envelope = consort_msp::policy::parse(text).expect("a policy");
    ApplicationPolicy { r#type: Some(application_policy::Type::SignaturePolicy(envelope)) }
}

pub(super) fn definition_set(
    chaincode: &str,
    policy: &ApplicationPolicy,
    collections: &CollectionConfigPackage,
) -> TxReadWriteSet {
    let bytes = |message: Vec<u8>| StateData { r#type: Some(state_data::Type::Bytes(message.into())) };
    let endorsement = ChaincodeEndorsementInfo {
        version: "1".to_owned(),
        init_required: false,
        endorsement_plugin: "escc".to_owned(),
        limits: None,
    };
    let validation = ChaincodeValidationInfo {
        validation_plugin: "vscc".to_owned(),
        validation_parameter: policy.encode_to_vec().into(),
    };
    let metadata = StateMetadata {
        datatype: "ChaincodeDefinition".to_owned(),
        fields: ["Sequence", "EndorsementInfo", "ValidationInfo", "Collections"].map(str::to_owned).to_vec(),
    };
    let field = |name: &str, data: StateData| {
        write(&format!("namespaces/fields/{chaincode}/{name}"), &data.encode_to_vec())
    };
    let mut writes = vec![
        field("Collections", bytes(collections.encode_to_vec())),
        field("EndorsementInfo", bytes(endorsement.encode_to_vec())),
        field("Sequence", StateData { r#type: Some(state_data::Type::Int64(1)) }),
        field("ValidationInfo", bytes(validation.encode_to_vec())),
        write(&format!("namespaces/metadata/{chaincode}"), &metadata.encode_to_vec()),
    ];
    writes.sort_by(|left, right| left.key.cmp(&right.key));
    TxReadWriteSet {
        namespaces: vec![NamespaceReadWriteSet {
            namespace: "_lifecycle".to_owned(),
            writes,
            ..NamespaceReadWriteSet::default()
        }],
    }
}
