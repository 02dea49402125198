//! Which bytes hold which message (Fabric's `protolator/protoext`).

use prost_reflect::{DynamicMessage, ReflectMessage, Value};

/// Bytes that always hold the same message: message, field, content.
const FIXED: [(&str, &str, &str); 18] = [
    ("common.BlockData", "data", "common.Envelope"),
    ("common.Envelope", "payload", "common.Payload"),
    ("common.Header", "channel_header", "common.ChannelHeader"),
    ("common.Header", "signature_header", "common.SignatureHeader"),
    ("common.SignatureHeader", "creator", "msp.SerializedIdentity"),
    ("common.ConfigUpdateEnvelope", "config_update", "common.ConfigUpdate"),
    ("common.ConfigSignature", "signature_header", "common.SignatureHeader"),
    ("protos.SignedProposal", "proposal_bytes", "protos.Proposal"),
    ("protos.TransactionAction", "header", "common.SignatureHeader"),
    ("protos.TransactionAction", "payload", "protos.ChaincodeActionPayload"),
    ("protos.ChaincodeActionPayload", "chaincode_proposal_payload", "protos.ChaincodeProposalPayload"),
    ("protos.ChaincodeProposalPayload", "input", "protos.ChaincodeInvocationSpec"),
    ("protos.ChaincodeEndorsedAction", "proposal_response_payload", "protos.ProposalResponsePayload"),
    ("protos.ProposalResponsePayload", "extension", "protos.ChaincodeAction"),
    ("protos.ChaincodeAction", "results", "rwset.TxReadWriteSet"),
    ("protos.ChaincodeAction", "events", "protos.ChaincodeEvent"),
    ("protos.Proposal", "header", "common.Header"),
    ("rwset.NsReadWriteSet", "rwset", "kvrwset.KVRWSet"),
];

/// Values of the configuration tree: key, content. A key means the same in every group.
const CONFIGURATION: [(&str, &str); 15] = [
    ("ACLs", "protos.ACLs"),
    ("AnchorPeers", "protos.AnchorPeers"),
    ("BatchSize", "orderer.BatchSize"),
    ("BatchTimeout", "orderer.BatchTimeout"),
    ("BlockDataHashingStructure", "common.BlockDataHashingStructure"),
    ("Capabilities", "common.Capabilities"),
    ("ChannelRestrictions", "orderer.ChannelRestrictions"),
    ("ConsensusType", "orderer.ConsensusType"),
    ("Consortium", "common.Consortium"),
    ("Endpoints", "common.OrdererAddresses"),
    ("HashingAlgorithm", "common.HashingAlgorithm"),
    ("KafkaBrokers", "orderer.KafkaBrokers"),
    ("MSP", "msp.MSPConfig"),
    ("OrdererAddresses", "common.OrdererAddresses"),
    ("Orderers", "common.Orderers"),
];

/// The type of the message that a field's bytes hold, as far as the rest of `message` says. `key` is the name of a
/// configuration value.
pub(super) fn content(message: &DynamicMessage, field: &str, key: &str) -> Option<&'static str> {
    let descriptor = message.descriptor();
    let of = descriptor.full_name();
    if let Some((_, _, content)) = FIXED.iter().find(|(name, bytes, _)| *name == of && *bytes == field) {
        return Some(content);
    }
    match (of, field) {
        ("common.ConfigValue", "value") => configuration_type(key),
        ("common.Payload", "data") => match header_type(message)? {
            1 => Some("common.ConfigEnvelope"),
            2 => Some("common.ConfigUpdateEnvelope"),
            3 => Some("protos.Transaction"),
            5 => Some("orderer.SeekInfo"),
            _ => None,
        },
        ("common.ChannelHeader", "extension") => {
            (number(message, "type")? == 3).then_some("protos.ChaincodeHeaderExtension")
        }
        ("common.Policy", "value") => match number(message, "type")? {
            1 => Some("common.SignaturePolicyEnvelope"),
            3 => Some("common.ImplicitMetaPolicy"),
            _ => None,
        },
        ("common.MSPPrincipal", "principal") => match number(message, "principal_classification")? {
            0 => Some("common.MSPRole"),
            1 => Some("common.OrganizationUnit"),
            2 => Some("msp.SerializedIdentity"),
            _ => None,
        },
        ("msp.MSPConfig", "config") => (number(message, "type")? == 0).then_some("msp.FabricMSPConfig"),
        ("orderer.ConsensusType", "metadata") => {
            let consensus = message.get_field_by_name("type")?.into_owned();
            (consensus.as_str()? == "etcdraft").then_some("etcdraft.ConfigMetadata")
        }
        _ => None,
    }
}

/// The type of a configuration value.
pub(super) fn configuration_type(key: &str) -> Option<&'static str> {
    CONFIGURATION.iter().find(|(name, _)| *name == key).map(|(_, content)| *content)
}

/// The type that a payload's channel header names.
fn header_type(payload: &DynamicMessage) -> Option<i32> {
    let header = payload.get_field_by_name("header")?.into_owned();
    let bytes = header.as_message()?.get_field_by_name("channel_header")?.into_owned();
    let descriptor = super::descriptor("common.ChannelHeader").ok()?;
    let header = DynamicMessage::decode(descriptor, bytes.as_bytes()?.clone()).ok()?;
    number(&header, "type")
}

fn number(message: &DynamicMessage, field: &str) -> Option<i32> {
    match message.get_field_by_name(field)?.as_ref() {
        Value::I32(number) | Value::EnumNumber(number) => Some(*number),
        _ => None,
    }
}
