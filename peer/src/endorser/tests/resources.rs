//! Who may ask the peer what: the policies of resources, as every channel has its own (Fabric documentation, "Access Control Lists").

use consort_channel_config::{REGISTERED_IDENTITIES, SEALED_DATA};

use super::*;
use crate::chaincode::Host;
use crate::testing::configuration::{demand, guard};

/// A policy that one administrator satisfies and no other client.
const GUARD: &str = "/Channel/Application/Org1MSP/Admins";

/// Calls of system chaincodes, by the resource that guards them.
const CALLS: [(&str, &str, &str); 13] = [
    ("qscc/GetChainInfo", "qscc", "GetChainInfo"),
    ("qscc/GetBlockByNumber", "qscc", "GetBlockByNumber"),
    ("qscc/GetBlockByHash", "qscc", "GetBlockByHash"),
    ("qscc/GetTransactionByID", "qscc", "GetTransactionByID"),
    ("qscc/GetBlockByTxID", "qscc", "GetBlockByTxID"),
    ("cscc/GetConfigBlock", "cscc", "GetConfigBlock"),
    ("cscc/GetChannelConfig", "cscc", "GetChannelConfig"),
    ("_lifecycle/CommitChaincodeDefinition", "_lifecycle", "CommitChaincodeDefinition"),
    ("_lifecycle/QueryChaincodeDefinition", "_lifecycle", "QueryChaincodeDefinition"),
    ("_lifecycle/QueryChaincodeDefinitions", "_lifecycle", "QueryChaincodeDefinitions"),
    ("_lifecycle/CheckCommitReadiness", "_lifecycle", "CheckCommitReadiness"),
    ("_identities/List", "_identities", "List"),
    ("_sealed/GetDomain", "_sealed", "GetDomain"),
];

/// A peer of a channel whose configuration guards these resources.
fn peer(guarded: &[&str]) -> Peer {
    let network = Network::altered(&[], |root| {
        demand(root, REGISTERED_IDENTITIES);
        demand(root, SEALED_DATA);
        guard(root, guarded, GUARD);
    });
    Peer::new(&network, &network.org1)
}

fn call(who: &Arc<SigningIdentity>, chaincode: &str, function: &str) -> Signed {
    // A channel's name, or a message in which everything is left out.
    let argument: &[u8] = if matches!(chaincode, "qscc" | "cscc") { CHANNEL.as_bytes() } else { b"" };
    proposal(who, CHANNEL, chaincode, &[function.as_bytes(), argument])
}

/// Why the access rules refuse a call; none when they let it pass, whatever becomes of it.
async fn refusal(peer: &Peer, signed: &Signed) -> Option<String> {
    let text = match peer.endorser.process(&signed.message).await {
        Ok(answer) => answer.response.unwrap().message,
        Err(error) => error.to_string(),
    };
    (text.contains("access denied") || text.contains("check policy") || text.contains("policy ["))
        .then_some(text)
}

#[tokio::test]
async fn calls_of_the_peers_own_chaincodes_are_guarded_as_the_channel_says() {
    let guarded = peer(&CALLS.map(|(resource, ..)| resource));
    let usual = peer(&[]);
    for (resource, chaincode, function) in CALLS {
        let by = |who: &Arc<SigningIdentity>| call(who, chaincode, function);
        assert_eq!(refusal(&usual, &by(&usual.client)).await, None, "{resource}: members may by default");
        let refused = refusal(&guarded, &by(&guarded.client)).await.expect(resource);
        assert!(refused.contains(GUARD), "{resource}: {refused}");
        assert_eq!(refusal(&guarded, &by(&guarded.admin)).await, None, "{resource}: the administrator may");
    }
}

#[tokio::test]
async fn a_rule_for_one_resource_changes_no_other() {
    let peer = peer(&["qscc/GetChainInfo"]);
    assert!(refusal(&peer, &call(&peer.client, "qscc", "GetChainInfo")).await.is_some());
    for (resource, chaincode, function) in &CALLS[1..] {
        assert_eq!(refusal(&peer, &call(&peer.client, chaincode, function)).await, None, "{resource}");
    }
}

#[tokio::test]
async fn proposals_and_calls_between_chaincodes_are_guarded_as_the_channel_says() {
    let guarded = peer(&["peer/Propose"]);
    let refused = refusal(&guarded, &call(&guarded.client, "basic", "Run")).await.expect("guarded");
    assert!(refused.contains(GUARD), "{refused}");
    assert_eq!(refusal(&guarded, &call(&guarded.admin, "basic", "Run")).await, None);

    let guarded = peer(&["peer/ChaincodeToChaincode"]);
    let callee = async |who: &Arc<SigningIdentity>| {
        let signed = call(who, "basic", "Run");
        let accepted = guarded.endorser.accept(&signed.message).await.unwrap().unwrap();
        let host = guarded.endorser.host(&accepted, accepted.channel.as_ref().unwrap());
        host.callee("basic", "other").err().unwrap().to_string()
    };
    let refused = callee(&guarded.client).await;
    assert!(refused.contains(GUARD), "{refused}");
    let absent = callee(&guarded.admin).await;
    assert!(absent.contains("chaincode other not found"), "{absent}");
}
