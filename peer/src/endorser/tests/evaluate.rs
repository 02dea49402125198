//! Writes during an evaluation: as in Fabric they are simulated and forgotten.

use super::*;

/// A chaincode in WebAssembly text that writes `key` = `value`, gives the key an endorsement policy, writes the same privately into the
/// collection of the first organisation, and answers `done`.
fn writing_everywhere() -> Vec<u8> {
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
        (type $state (instance
            (export "put" (func (param "key" string) (param "value" (list u8)) (result (result (error string)))))
            (export "set-validation-parameter" (func (param "key" string) (param "policy" (list u8)) (result (result (error string)))))
        ))
        (import "consort:chaincode/state@1.0.0" (instance $s (type $state)))
        (type $private (instance
            (export "put" (func (param "collection" string) (param "key" string) (param "value" (list u8)) (result (result (error string)))))
        ))
        (import "consort:chaincode/private-data@1.0.0" (instance $p (type $private)))
        (core module $memory
            (memory (export "memory") 1)
            (global $next (mut i32) (i32.const 4096))
            (func (export "realloc") (param i32 i32 i32 i32) (result i32)
                (local $at i32)
                global.get $next local.set $at
                global.get $next local.get 3 i32.add i32.const 15 i32.add i32.const -16 i32.and global.set $next
                local.get $at))
        (core instance $mem (instantiate $memory))
        (core func $put (canon lower (func $s "put") (memory (core memory $mem "memory")) (realloc (core func $mem "realloc"))))
        (core func $policy (canon lower (func $s "set-validation-parameter") (memory (core memory $mem "memory")) (realloc (core func $mem "realloc"))))
        (core func $private (canon lower (func $p "put") (memory (core memory $mem "memory")) (realloc (core func $mem "realloc"))))
        (core module $code
            (import "mem" "memory" (memory 1))
            (import "host" "put" (func $put (param i32 i32 i32 i32 i32)))
            (import "host" "policy" (func $policy (param i32 i32 i32 i32 i32)))
            (import "host" "private" (func $private (param i32 i32 i32 i32 i32 i32 i32)))
            (data (i32.const 16) "key")
            (data (i32.const 32) "value")
            (data (i32.const 48) "_implicit_org_Org1MSP")
            (data (i32.const 80) "done")
            (func $done (if (i32.load8_u (i32.const 128)) (then unreachable)))
            (func (export "invoke") (param i32 i32 i32) (result i32)
                (call $put (i32.const 16) (i32.const 3) (i32.const 32) (i32.const 5) (i32.const 128)) (call $done)
                (call $policy (i32.const 16) (i32.const 3) (i32.const 32) (i32.const 5) (i32.const 128)) (call $done)
                (call $private (i32.const 48) (i32.const 21) (i32.const 16) (i32.const 3) (i32.const 32) (i32.const 5) (i32.const 128))
                (call $done)
                (i32.store (i32.const 160) (i32.const 200))
                (i32.store (i32.const 172) (i32.const 80))
                (i32.store (i32.const 176) (i32.const 4))
                i32.const 160))
        (core instance $run (instantiate $code
            (with "mem" (instance $mem))
            (with "host" (instance (export "put" (func $put)) (export "policy" (func $policy)) (export "private" (func $private))))))
        (func (export "invoke") (param "invocation" $invocation) (result $response)
            (canon lift (core func $run "invoke") (memory (core memory $mem "memory")) (realloc (core func $mem "realloc"))))
    )"#;
    wat::parse_str(text).unwrap()
}

#[tokio::test]
async fn what_is_written_during_an_evaluation_is_answered_and_kept_nowhere() {
    let mut consortium = Consortium::new();
    consortium.deploy("writer", &writing_everywhere()).await;
    let signed = proposal(&consortium.one.client, CHANNEL, "writer", &[b"Write"]);
    let tx_id = Proposal::open(&signed.message).unwrap().tx_id;
    let ledger = consortium.one.channel.ledger();
    let (height, waiting) = (ledger.snapshot().height(), ledger.transient().waiting_bytes());

    // The caller sees the chaincode's answer and no error, as in Fabric.
    let answer = consortium.one.endorser.evaluate(&signed.message).await.unwrap();
    let response = answer.response.as_ref().unwrap();
    assert_eq!((response.status, &response.payload[..]), (200, &b"done"[..]));
    assert!(answer.payload.is_empty() && answer.endorsement.is_none());
    assert_eq!(ledger.snapshot().height(), height);
    assert!(ledger.snapshot().get("writer", "key").unwrap().is_none());
    assert!(ledger.transient().sets(&tx_id).unwrap().is_empty());
    assert_eq!(ledger.transient().waiting_bytes(), waiting);

    // The same proposal, endorsed for a transaction: all that was written is told, and the private value waits for its block.
    let endorsed = consortium.one.call(&signed).await;
    assert_eq!(ledger.transient().sets(&tx_id).unwrap().len(), 1);
    let results = TxReadWriteSet::decode(&action(&endorsed).1.results).unwrap();
    let written = results.namespaces.iter().find(|namespace| namespace.namespace == "writer").unwrap();
    assert_eq!((written.writes.len(), written.metadata_writes.len(), written.collections.len()), (1, 1, 1));
}
