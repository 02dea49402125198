//! Chaincodes that call each other: together they use up what one execution may.

mod parts;

use std::sync::Arc;
use std::time::Duration;

use consort_chaincode_runtime::Limits;
use parts::memory::{callee, memory_host};
use parts::{Runtime, calling, component, small_limits};

/// Calls the chaincode `other`.
const CALL_OTHER: &str = "(call $to (i32.const 16) (i32.const 5))";
/// Calls the chaincode `third`.
const CALL_THIRD: &str = "(call $to (i32.const 32) (i32.const 5))";
/// Calls the chaincode `other` for ever.
const CALL_OTHER_FOR_EVER: &str = "(loop $again (call $to (i32.const 16) (i32.const 5)) br $again)";
/// Leaves a response with status 200 at address 64; memory is zero, so message and payload are empty.
const ANSWER: &str = "(i32.store (i32.const 64) (i32.const 200)) (i32.const 64)";
/// Burns more than half of the fuel in [`small_limits`].
const BURN: &str = "(local.set $i (i32.const 6000000))
    (loop $burn (br_if $burn (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))";

#[tokio::test]
async fn a_chaincode_calls_another_one() {
    let runtime = Runtime::new(small_limits());
    let package = runtime.install("caller", &calling("", CALL_OTHER));
    let mut host = memory_host();
    host.callees.insert("other".to_owned(), callee(runtime.install("tiny", &component("", ANSWER))));
    let execution = runtime.invoke("caller", &package, Arc::new(host), &["Run"]).await.unwrap();
    assert_eq!((execution.response.status, execution.response.message.as_str()), (200, ""));
}

#[tokio::test]
async fn chaincodes_that_call_each_other_for_ever_use_up_one_budget() {
    let limits = Limits { fuel_max: 20_000_000, instances_max: 8, ..small_limits() };
    let runtime = Runtime::new(limits);
    let package = runtime.install("caller", &calling("", CALL_OTHER_FOR_EVER));
    let mut host = memory_host();
    host.callees.insert("other".to_owned(), callee(package.clone()));
    let execution = runtime.invoke("caller", &package, Arc::new(host), &["Run"]).await.unwrap();
    assert_eq!(execution.response.status, 500, "{}", execution.response.message);
}

#[tokio::test]
async fn what_called_chaincodes_burn_is_missing_to_their_caller() {
    let limits = Limits { timeout: Duration::from_secs(10), ..small_limits() };
    let runtime = Runtime::new(limits);
    let burner = runtime.install("burner", &calling("", BURN));
    let middle = runtime.install("middle", &calling("", &format!("{CALL_THIRD} {BURN}")));
    let endless = "(loop $again br $again)";
    let after = runtime.install("after", &calling("", &format!("{CALL_OTHER} {endless}")));
    let run = async |outermost: &_, called: &_| {
        let mut host = memory_host();
        host.callees.insert("other".to_owned(), callee(Clone::clone(called)));
        host.callees.insert("third".to_owned(), callee(burner.clone()));
        runtime.invoke("outer", outermost, Arc::new(host), &["Run"]).await.unwrap().response
    };
    // Alone, either burns less than it may.
    let single = runtime.install("single", &calling("", CALL_OTHER));
    assert_eq!(run(&single, &burner).await.status, 200);
    // Together they burn more, whoever of them is asked first: the outermost chaincode has nothing left.
    let twice = runtime.install("twice", &calling("", &format!("{CALL_OTHER} {CALL_OTHER}")));
    let own = runtime.install("own", &calling("", &format!("{CALL_OTHER} {BURN}")));
    for (outermost, called) in
        [(&single, &middle), (&twice, &middle), (&after, &middle), (&twice, &burner), (&own, &burner)]
    {
        let response = run(outermost, called).await;
        assert_eq!(response.status, 500);
        let expected = "chaincode outer did not finish within its 50000000 units of fuel (in function Run";
        assert!(response.message.starts_with(expected), "{}", response.message);
        assert_eq!(run(outermost, called).await, response);
    }
}

/// A chaincode that goes `frames` calls deep, calls the chaincode `other` there, and with `endless` recurses without end afterwards.
fn deep(frames: u32, endless: bool) -> Vec<u8> {
    let extra = format!(
        "(func $end (param i32) (result i32) (i32.add (call $end (local.get 0)) (i32.const 1)))
         (func $down (param i32) (result i32)
            (if (result i32) (i32.eqz (local.get 0))
                (then {CALL_OTHER} (i32.const 0))
                (else (i32.add (call $down (i32.sub (local.get 0) (i32.const 1))) (i32.const 1)))))"
    );
    let after = if endless { "(drop (call $end (i32.const 0)))" } else { "" };
    calling(&extra, &format!("(drop (call $down (i32.const {frames}))) {after}"))
}

/// A current-thread runtime has threads of the default size for what blocks, as every runtime that does not choose.
#[tokio::test]
async fn chaincodes_that_use_up_the_stack_at_every_depth_end_in_errors() {
    let limits = Limits { instances_max: 2, ..small_limits() };
    let runtime = Runtime::new(limits);
    let alone = async |frames: u32| {
        let package = runtime.install(&format!("deep_{frames}"), &deep(frames, false));
        let response =
            runtime.invoke("deep", &package, Arc::new(memory_host()), &["Run"]).await.unwrap().response;
        response.status == 200
    };
    // As deep as one chaincode can go, within a hundredth.
    let (mut fits, mut overflows) = (1_000, 1_000_000);
    assert!(alone(fits).await);
    while overflows - fits > fits / 100 {
        let middle = u32::midpoint(fits, overflows);
        if alone(middle).await { fits = middle } else { overflows = middle }
    }
    for endless in [false, true] {
        let package = runtime.install(&format!("nested_{endless}"), &deep(fits, endless));
        let mut host = memory_host();
        host.callees.insert("other".to_owned(), callee(package.clone()));
        let response = runtime.invoke("deep", &package, Arc::new(host), &["Run"]).await.unwrap().response;
        assert_eq!(response.status, if endless { 500 } else { 200 }, "{}", response.message);
    }
}
