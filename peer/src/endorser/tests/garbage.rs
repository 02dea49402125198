//! Whatever stands in the arguments of a system chaincode, the peer answers: every function, with messages of every shape.

use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop, prop_assert, prop_oneof};

use super::*;
use crate::testing::for_all;

/// Every function of every system chaincode, and whether its first argument is the channel's name.
const FUNCTIONS: [(&str, &[&str]); 5] = [
    (
        "_lifecycle",
        &[
            "InstallChaincode",
            "QueryInstalledChaincode",
            "QueryInstalledChaincodes",
            "GetInstalledChaincodePackage",
            "ApproveChaincodeDefinitionForMyOrg",
            "CheckCommitReadiness",
            "CommitChaincodeDefinition",
            "QueryChaincodeDefinition",
            "QueryChaincodeDefinitions",
            "QueryApprovedChaincodeDefinition",
            "QueryApprovedChaincodeDefinitions",
        ],
    ),
    ("cscc", &["JoinChain", "GetChannels", "GetConfigBlock", "GetChannelConfig", "GetPrivateDataStatus"]),
    (
        "qscc",
        &[
            "GetChainInfo",
            "GetBlockByNumber",
            "GetBlockByHash",
            "GetBlockByTxID",
            "GetTransactionByID",
            "GetAttestation",
        ],
    ),
    ("_identities", &["Register", "Renew", "Retire", "Get", "List"]),
    ("_sealed", &["CreateDomain", "PutRecord", "Grant", "Revoke", "Request", "Respond"]),
];

/// Bytes that look like a message: fields with small numbers, of all wire types, with messages in messages.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        vec(any::<u8>(), 0..12),
        "[A-Za-z0-9._-]{0,12}".prop_map(String::into_bytes),
        prop::sample::select(vec![b"Org1MSP".to_vec(), CHANNEL.as_bytes().to_vec(), b"basic".to_vec()]),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        vec((1_u8..12, 0_u8..4, any::<u64>(), inner), 0..6).prop_map(|fields| {
            let mut bytes = Vec::new();
            for (number, kind, value, content) in fields {
                if kind == 0 {
                    bytes.push(number << 3);
                    // A few small numbers, and some at the ends of their range.
                    let value = if value % 3 == 0 { value } else { value % 4 };
                    prost::encoding::encode_varint(value, &mut bytes);
                } else {
                    bytes.push(number << 3 | 2);
                    prost::encoding::encode_varint(content.len() as u64, &mut bytes);
                    bytes.extend(content);
                }
            }
            bytes
        })
    })
}

#[test]
fn system_chaincodes_answer_whatever_their_arguments_are() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let capabilities = [consort_channel_config::REGISTERED_IDENTITIES, consort_channel_config::SEALED_DATA];
    let network = Network::with(&[], &capabilities);
    let peer = runtime.block_on(async { Peer::new(&network, &network.org1) });
    let chaincode = prop::sample::select(FUNCTIONS.to_vec());
    let function = any::<prop::sample::Index>();
    let calls = (chaincode, function, vec(message(), 0..4), any::<bool>(), any::<bool>());
    for_all(192, &calls, |((name, functions), function, arguments, administrator, on_channel)| {
        let function = functions[function.index(functions.len())];
        let mut args: Vec<&[u8]> = vec![function.as_bytes()];
        // These take the channel's name first.
        if name == "qscc" {
            args.push(CHANNEL.as_bytes());
        }
        args.extend(arguments.iter().map(Vec::as_slice));
        let signer = if administrator { &peer.admin } else { &peer.client };
        let signed = proposal(signer, if on_channel { CHANNEL } else { "" }, name, &args);
        let answer = runtime.block_on(peer.endorser.process(&signed.message));
        let response = answer.map(|answer| answer.response.expect("a response"));
        let unexpected = response.as_ref().is_ok_and(|one| one.message.contains("ended unexpectedly"));
        prop_assert!(!unexpected, "{name} {function}: {response:?}");
        Ok(())
    });
}
