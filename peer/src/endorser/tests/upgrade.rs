//! Definitions that replace others, and the limits in them.

use consort_protos::fabric::lifecycle::SandboxLimits;

use super::*;

/// A chaincode of which the body of `invoke` is given, and functions that it calls.
fn chaincode(functions: &str, body: &str) -> Vec<u8> {
    let text = r#"(component
        (type $types (instance
            (type $response (record (field "status" u32) (field "message" string) (field "payload" (list u8))))
            (export "response" (type (eq $response)))
            (type $invocation (record (field "arguments" (list (list u8))) (field "is-init" bool)))
            (export "invocation" (type (eq $invocation)))
        ))
        (import "consort:chaincode/types@1.0.0" (instance $t (type $types)))
        (alias export $t "response" (type $response))
        (alias export $t "invocation" (type $invocation))
        (core module $m
            (memory (export "memory") 1)
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 4096)
            FUNCTIONS
            (func (export "invoke") (param i32 i32 i32) (result i32) BODY))
        (core instance $i (instantiate $m))
        (func (export "invoke") (param "invocation" $invocation) (result $response)
            (canon lift (core func $i "invoke") (memory (core memory $i "memory")) (realloc (core func $i "cabi_realloc"))))
    )"#;
    wat::parse_str(text.replace("FUNCTIONS", functions).replace("BODY", body)).unwrap()
}

/// A chaincode that never ends by itself.
fn endless() -> Vec<u8> {
    chaincode("", "(loop $again br $again) unreachable")
}

#[tokio::test]
async fn an_upgrade_may_change_package_policy_initialisation_and_limits() {
    let mut consortium = Consortium::new();
    consortium.deploy("writer", &writer()).await;
    let first = proposal(&consortium.one.client, CHANNEL, "writer", &[b"Write"]);
    assert_eq!(consortium.submit(&first, true).await, TxValidationCode::Valid);

    let limits = Some(SandboxLimits { fuel: 5_000_000, ..SandboxLimits::default() });
    let upgrade = ApproveChaincodeDefinitionForMyOrgArgs {
        sequence: 2,
        version: "2.0".to_owned(),
        init_required: true,
        limits,
        ..approval("writer", None)
    };
    let id = consortium.install("writer", &endless()).await;
    for first in [true, false] {
        let peer = if first { &consortium.one } else { &consortium.two };
        let arguments =
            ApproveChaincodeDefinitionForMyOrgArgs { source: Some(local(&id)), ..upgrade.clone() };
        let signed = lifecycle(&peer.admin, "ApproveChaincodeDefinitionForMyOrg", &arguments);
        let response = peer.call(&signed).await;
        assert_eq!(consortium.commit(envelope(&signed, &[response])).await, TxValidationCode::Valid);
    }
    // Another limit is another definition.
    let readiness = CheckCommitReadinessArgs {
        sequence: 2,
        name: "writer".to_owned(),
        version: "2.0".to_owned(),
        init_required: true,
        ..CheckCommitReadinessArgs::default()
    };
    let check = lifecycle(&consortium.one.client, "CheckCommitReadiness", &readiness);
    let payload = consortium.one.call(&check).await.response.unwrap().payload;
    let result = CheckCommitReadinessResult::decode(payload).unwrap();
    assert_eq!(result.mismatches["Org1MSP"].items, ["EndorsementInfo"]);

    let commit = CommitChaincodeDefinitionArgs {
        sequence: 2,
        version: "2.0".to_owned(),
        init_required: true,
        limits,
        ..commit_arguments("writer")
    };
    let commit = lifecycle(&consortium.one.admin, "CommitChaincodeDefinition", &commit);
    assert_eq!(consortium.submit(&commit, true).await, TxValidationCode::Valid);

    let answer = consortium
        .one
        .call(&proposal(&consortium.one.client, CHANNEL, "writer", &[b"Write"]))
        .await
        .response
        .unwrap();
    assert!(
        answer.message.ends_with("has not been initialized for this version, must call as init first"),
        "{}",
        answer.message
    );
    let mut initial = parts(&consortium.one.client, CHANNEL, "writer", vec![Bytes::from_static(b"Write")]);
    initial.is_init = true;
    let initial = sign(&consortium.one.client, initial);
    for peer in [&consortium.one, &consortium.two] {
        let answer = peer.call(&initial).await.response.unwrap();
        let expected = "chaincode writer did not finish within its 5000000 units of fuel (in function Write";
        assert!(answer.message.starts_with(expected), "{}", answer.message);
    }
}

#[tokio::test]
async fn a_limit_that_no_peer_has_room_for_is_not_approved() {
    let consortium = Consortium::new();
    let open = SandboxLimits::default();
    for (limits, text) in [
        (
            SandboxLimits { memory_bytes: 5 << 30, ..open },
            "the limit memory_bytes is 5368709120, and may be 4294967296 at most",
        ),
        (
            SandboxLimits { stack_bytes: 5 << 20, ..open },
            "the limit stack_bytes is 5242880, and may be 4194304 at most",
        ),
    ] {
        let limits = Some(limits);
        let arguments = ApproveChaincodeDefinitionForMyOrgArgs { limits, ..approval("writer", None) };
        let signed = lifecycle(&consortium.one.admin, "ApproveChaincodeDefinitionForMyOrg", &arguments);
        let answer = consortium.one.call(&signed).await.response.unwrap();
        assert!(answer.message.ends_with(text), "{}", answer.message);
    }
}

#[tokio::test]
async fn the_stack_of_a_definition_ends_recursion_at_every_endorser_in_the_same_words() {
    let mut consortium = Consortium::new();
    let limits = Some(SandboxLimits { stack_bytes: 64 << 10, ..SandboxLimits::default() });
    let down = "(func $down (param i32) (result i32) (i32.add (call $down (local.get 0)) (i32.const 1)))";
    let id = consortium.install("deep", &chaincode(down, "(call $down (i32.const 0))")).await;
    for first in [true, false] {
        let peer = if first { &consortium.one } else { &consortium.two };
        let arguments =
            ApproveChaincodeDefinitionForMyOrgArgs { limits, ..approval("deep", Some(local(&id))) };
        let signed = lifecycle(&peer.admin, "ApproveChaincodeDefinitionForMyOrg", &arguments);
        let response = peer.call(&signed).await;
        assert_eq!(consortium.commit(envelope(&signed, &[response])).await, TxValidationCode::Valid);
    }
    let commit = CommitChaincodeDefinitionArgs { limits, ..commit_arguments("deep") };
    let commit = lifecycle(&consortium.one.admin, "CommitChaincodeDefinition", &commit);
    assert_eq!(consortium.submit(&commit, true).await, TxValidationCode::Valid);
    let signed = proposal(&consortium.one.client, CHANNEL, "deep", &[b"Run"]);
    for peer in [&consortium.one, &consortium.two] {
        let answer = peer.call(&signed).await;
        assert_eq!(
            answer.response.unwrap().message,
            "chaincode deep called itself too deeply: the stack ceiling of 64 KiB (chaincode definition) is reached (in function Run, at \
             down)"
        );
        assert!(answer.endorsement.is_none());
    }
}

#[tokio::test]
async fn limits_that_choose_nothing_leave_the_bytes_of_a_definition_as_they_are() {
    let consortium = Consortium::new();
    let arguments = ApproveChaincodeDefinitionForMyOrgArgs {
        limits: Some(SandboxLimits::default()),
        ..approval("writer", None)
    };
    let results = async |arguments: &ApproveChaincodeDefinitionForMyOrgArgs| {
        let signed = lifecycle(&consortium.one.admin, "ApproveChaincodeDefinitionForMyOrg", arguments);
        action(&consortium.one.call(&signed).await).1.results
    };
    assert_eq!(results(&arguments).await, results(&approval("writer", None)).await);
}
