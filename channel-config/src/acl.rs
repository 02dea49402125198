//! Which policy guards which resource.
//!
//! Source: Fabric documentation, "Access Control Lists (ACL)", and `core/aclmgmt/defaultaclprovider.go`.

use std::collections::BTreeMap;

use consort_protos::fabric::protos::AcLs;

/// Policy that guards what changes the channel or runs chaincode.
const WRITERS: &str = "/Channel/Application/Writers";

/// Policy that guards what reads the channel.
const READERS: &str = "/Channel/Application/Readers";

/// What an unknown resource needs: nobody should gain from a name that was forgotten here.
const UNKNOWN: &str = "/Channel/Application/Admins";

const WRITER_RESOURCES: [&str; 12] = [
    "_lifecycle/CommitChaincodeDefinition",
    "_lifecycle/QueryChaincodeDefinition",
    "_lifecycle/QueryChaincodeDefinitions",
    "_lifecycle/CheckCommitReadiness",
    "peer/Propose",
    "peer/ChaincodeToChaincode",
    "_sealed/CreateDomain",
    "_sealed/PutRecord",
    "_sealed/Grant",
    "_sealed/Revoke",
    "_sealed/Request",
    "_sealed/Respond",
];

const READER_RESOURCES: [&str; 25] = [
    "qscc/GetAttestation",
    "_identities/Get",
    "_identities/List",
    "lscc/ChaincodeExists",
    "lscc/GetDeploymentSpec",
    "lscc/GetChaincodeData",
    "lscc/GetInstantiatedChaincodes",
    "lscc/GetCollectionsConfig",
    "qscc/GetChainInfo",
    "qscc/GetBlockByNumber",
    "qscc/GetBlockByHash",
    "qscc/GetTransactionByID",
    "qscc/GetBlockByTxID",
    "cscc/GetConfigBlock",
    "cscc/GetChannelConfig",
    "event/Block",
    "event/FilteredBlock",
    "gateway/CommitStatus",
    "gateway/ChaincodeEvents",
    "_sealed/GetDomain",
    "_sealed/GetRecord",
    "_sealed/GetGrant",
    "_sealed/GetRequest",
    "_sealed/Audit",
    "_sealed/ListRecords",
];

/// The channel's own entries: resource to policy path.
pub(crate) fn overrides(message: &AcLs) -> BTreeMap<String, String> {
    message
        .acls
        .iter()
        .filter(|(_, resource)| !resource.policy_ref.is_empty())
        .map(|(name, resource)| {
            let reference = resource.policy_ref.as_str();
            let path = if reference.starts_with('/') {
                reference.to_owned()
            } else {
                format!("/Channel/Application/{reference}")
            };
            (name.clone(), path)
        })
        .collect()
}

/// The policy that guards a resource when the channel says nothing.
pub(crate) fn default(resource: &str) -> &'static str {
    if WRITER_RESOURCES.contains(&resource) {
        WRITERS
    } else if READER_RESOURCES.contains(&resource) {
        READERS
    } else {
        UNKNOWN
    }
}
