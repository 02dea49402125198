//! The sandbox, judged by chaincode that behaves and by chaincode that does not.

#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod parts;

use std::sync::Arc;
use std::time::Duration;

use consort_chaincode_runtime::{InstallError, Limits, RuntimeError};
use parts::memory::{memory_host, value};
use parts::{Runtime, basic, component, open, package, small_limits};

/// Leaves a response with status 200 at address 64; memory is zero, so message and payload are empty.
const ANSWER: &str = "(i32.store (i32.const 64) (i32.const 200)) (i32.const 64)";

async fn failure(extra: &str, body: &str) -> String {
    let runtime = Runtime::new(small_limits());
    let package = runtime.install("bad", &component(extra, body));
    let execution = runtime.invoke("bad", &package, Arc::new(memory_host()), &["Run"]).await.unwrap();
    assert_eq!(execution.response.status, 500);
    assert!(execution.response.payload.is_empty());
    execution.response.message
}

#[tokio::test]
async fn a_chaincode_in_any_language_answers() {
    let runtime = Runtime::new(small_limits());
    let package = runtime.install("tiny", &component("", ANSWER));
    let execution = runtime.invoke("tiny", &package, Arc::new(memory_host()), &["Run"]).await.unwrap();
    assert_eq!(execution.response.status, 200);
}

#[tokio::test]
async fn what_is_no_number_has_one_form() {
    // Processors differ in the sign and the payload of such a result; here it is the canonical one.
    let runtime = Runtime::new(small_limits());
    let bits = "(i32.reinterpret_f32 (f32.div (f32.const 0) (f32.const 0)))";
    let canonical = format!("(i32.eq {bits} (i32.const 0x7fc00000))");
    let wide = "(i64.reinterpret_f64 (f64.sqrt (f64.const -1)))";
    let canonical_wide = format!("(i64.eq {wide} (i64.const 0x7ff8000000000000))");
    let body = format!(
        "(i32.store (i32.const 64) (select (i32.const 200) (i32.const 500) (i32.and {canonical} {canonical_wide})))
         (i32.const 64)"
    );
    let package = runtime.install("nan", &component("", &body));
    let execution = runtime.invoke("nan", &package, Arc::new(memory_host()), &["Run"]).await.unwrap();
    assert_eq!(execution.response.status, 200);
}

#[tokio::test]
async fn an_endless_loop_ends_when_its_fuel_does() {
    let message = failure("", "(loop $again br $again) unreachable").await;
    assert!(
        message
            .starts_with("chaincode bad did not finish within its 50000000 units of fuel (in function Run"),
        "{message}"
    );
}

#[tokio::test]
async fn a_memory_storm_ends_at_the_limit() {
    let message =
        failure("", "(loop $again (drop (memory.grow (i32.const 16))) br $again) unreachable").await;
    assert!(message.contains("bytes of memory, and may have 16777216"), "{message}");
}

#[tokio::test]
async fn deep_recursion_exhausts_its_own_stack_only() {
    let extra = "(func $down (param i32) (result i32) (i32.add (call $down (local.get 0)) (i32.const 1)))";
    let message = failure(extra, "(call $down (i32.const 0))").await;
    assert!(message.contains("the stack ceiling of 2048 KiB (chaincode definition) is reached"), "{message}");
    assert!(message.contains("at down"), "{message}");
}

#[tokio::test]
async fn an_abort_names_the_function_that_was_called() {
    let message = failure("", "unreachable").await;
    assert!(
        message.starts_with("chaincode bad aborted: it reached code marked as unreachable (in function Run"),
        "{message}"
    );
}

#[tokio::test]
async fn memory_that_is_not_its_own_cannot_be_read() {
    let message = failure("", "(i32.load (i32.const 0x7fffffff))").await;
    assert!(message.contains("trapped: "), "{message}");
    // A response that points outside of the memory is refused as well.
    let message = failure("", "i32.const 0x7fffff00").await;
    assert!(message.starts_with("chaincode bad failed: ") || message.contains("trapped"), "{message}");
}

#[tokio::test]
async fn time_is_this_peers_failure_and_not_the_chaincodes() {
    let limits = Limits { fuel_max: u64::MAX / 2, timeout: Duration::from_millis(100), ..small_limits() };
    let runtime = Runtime::new(limits);
    let package = runtime.install("slow", &component("", "(loop $again br $again) unreachable"));
    let error = runtime.invoke("slow", &package, Arc::new(memory_host()), &["Run"]).await.unwrap_err();
    assert!(matches!(error, RuntimeError::Expired));
    assert_eq!(error.to_string(), "timeout expired while executing transaction");
    // The slot is free again soon: as many executions as there are slots can follow.
    let package = runtime.install("tiny", &component("", ANSWER));
    for _ in 0..8 {
        let execution = loop {
            match runtime.invoke("tiny", &package, Arc::new(memory_host()), &["Run"]).await {
                Ok(execution) => break execution,
                Err(RuntimeError::Expired) => {}
                Err(other) => panic!("{other}"),
            }
        };
        assert_eq!(execution.response.status, 200);
    }
}

#[test]
fn imports_beyond_the_ledger_are_refused_by_name() {
    let text = r#"(component
        (import "wasi:cli/environment@0.2.0" (instance))
        (import "wasi:clocks/wall-clock@0.2.0" (instance))
    )"#;
    let runtime = Runtime::new(small_limits());
    let error = runtime.runtime.install(package("wasi", &wat::parse_str(text).unwrap())).unwrap_err();
    let text = error.to_string();
    let expected = "the chaincode imports what the sandbox does not offer: wasi:cli/environment@0.2.0, wasi:clocks/wall-clock@0.2.0. ";
    assert!(text.starts_with(expected), "{text}");
}

#[test]
fn what_is_no_component_is_refused() {
    let runtime = Runtime::new(small_limits());
    let error = runtime.runtime.install(package("garbage", b"garbage")).unwrap_err();
    assert!(matches!(error, InstallError::Invalid(_)), "{error}");
    let core = wat::parse_str("(module)").unwrap();
    let error = runtime.runtime.install(package("core", &core)).unwrap_err();
    assert!(matches!(error, InstallError::Invalid(_)), "{error}");
    let error =
        runtime.runtime.install(package("empty", &wat::parse_str("(component)").unwrap())).unwrap_err();
    assert!(matches!(error, InstallError::Interface(_)), "{error}");
    assert!(runtime.runtime.packages().list().is_empty());
}

#[test]
fn threads_and_relaxed_instructions_are_refused() {
    let runtime = Runtime::new(small_limits());
    for module in [
        "(component (core module (memory 1 1 shared)))",
        "(component (core module (func (param v128 v128) (result v128) (i8x16.relaxed_swizzle (local.get 0) (local.get 1)))))",
        "(component (core module (memory i64 1)))",
    ] {
        let error = runtime.runtime.install(package("exotic", &wat::parse_str(module).unwrap())).unwrap_err();
        assert!(matches!(error, InstallError::Invalid(_)), "{error}");
    }
}

#[test]
fn a_package_is_installed_once() {
    let runtime = Runtime::new(small_limits());
    let component = component("", ANSWER);
    let id = runtime.install("tiny", &component);
    let error = runtime.runtime.install(package("tiny", &component)).unwrap_err();
    assert_eq!(error.to_string(), format!("chaincode already successfully installed (package ID '{id}')"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_chaincode_runs_in_the_sandbox() {
    let Some(component) = basic() else { return };
    let runtime = Runtime::new(small_limits());
    let package = runtime.install("basic_1.0", component);
    let host = Arc::new(memory_host());
    let call = |arguments: &'static [&'static str]| {
        let host = Arc::clone(&host);
        let (runtime, package) = (&runtime, &package);
        async move { runtime.invoke("basic", package, host, arguments).await.unwrap() }
    };

    let execution = call(&["InitLedger"]).await;
    assert_eq!((execution.response.status, execution.response.message.as_str()), (200, ""));
    host.commit();
    let execution = call(&["CreateAsset", "asset7", "yellow", "5", "Tom", "1300"]).await;
    assert_eq!(execution.response.status, 200, "{}", execution.response.message);
    let event = execution.event.unwrap();
    assert_eq!(event.name, "CreateAsset");
    host.commit();
    let asset = &br#"{"AppraisedValue":1300,"Color":"yellow","ID":"asset7","Owner":"Tom","Size":5}"#[..];
    assert_eq!(event.payload, asset);
    assert_eq!(value(&host, "basic", "asset7").unwrap(), asset);
    assert_eq!(call(&["ReadAsset", "asset7"]).await.response.payload, asset);
    assert_eq!(call(&["TransferAsset", "asset7", "Saptha"]).await.response.payload, "Tom");
    let all: Vec<serde_json::Value> =
        serde_json::from_slice(&call(&["GetAllAssets"]).await.response.payload).unwrap();
    assert_eq!(all.len(), 7);

    let refused = call(&["UpdateAsset", "asset70", "blue", "5", "Tomoko", "300"]).await;
    assert_eq!(refused.response.status, 500);
    assert_eq!(refused.response.message, "The asset asset70 does not exist");
    assert_eq!(refused.event, None);
}

#[tokio::test]
async fn what_was_compiled_is_found_after_a_restart() {
    let Some(component) = basic() else { return };
    let Runtime { runtime, allowance, folder } = Runtime::new(small_limits());
    let package = runtime.install(package("basic_1.0", component)).unwrap();
    drop(runtime);
    let runtime = Runtime { runtime: open(folder.path(), small_limits()), allowance, folder };
    let host = Arc::new(memory_host());
    let execution = runtime.invoke("basic", &package, host, &["AssetExists", "asset1"]).await.unwrap();
    assert_eq!(execution.response.payload, "false");
}

#[tokio::test]
async fn a_package_that_is_not_here_is_this_peers_failure() {
    let runtime = Runtime::new(small_limits());
    let package = consort_chaincode_runtime::PackageId::of("absent", b"");
    let error = runtime.invoke("absent", &package, Arc::new(memory_host()), &["Run"]).await.unwrap_err();
    assert_eq!(error.to_string(), format!("chaincode package {package} cannot be loaded"));
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(cause, format!("package {package} is not installed"));
}

#[tokio::test]
async fn a_panic_shows_its_message() {
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
        (type $diagnostics (instance (export "panicked" (func (param "message" string)))))
        (import "consort:chaincode/diagnostics@1.0.0" (instance $d (type $diagnostics)))
        (core module $memory
            (memory (export "memory") 1)
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 4096))
        (core instance $mem (instantiate $memory))
        (core func $panicked (canon lower (func $d "panicked") (memory (core memory $mem "memory"))))
        (core module $code
            (import "mem" "memory" (memory 1))
            (import "host" "panicked" (func $panicked (param i32 i32)))
            (data (i32.const 16) "no asset at src/lib.rs:7")
            (func (export "invoke") (param i32 i32 i32) (result i32)
                (call $panicked (i32.const 16) (i32.const 24))
                unreachable))
        (core instance $run (instantiate $code
            (with "mem" (instance $mem)) (with "host" (instance (export "panicked" (func $panicked))))))
        (func (export "invoke") (param "invocation" $invocation) (result $response)
            (canon lift (core func $run "invoke")
                (memory (core memory $mem "memory")) (realloc (core func $mem "realloc"))))
    )"#;
    let runtime = Runtime::new(small_limits());
    let package = runtime.install("bad", &wat::parse_str(text).unwrap());
    let execution = runtime.invoke("bad", &package, Arc::new(memory_host()), &["Run"]).await.unwrap();
    let message = execution.response.message;
    assert!(
        message.starts_with("chaincode bad panicked: no asset at src/lib.rs:7 (in function Run"),
        "{message}"
    );
}

#[tokio::test]
async fn invocations_beyond_the_queue_are_refused_at_once() {
    let limits = Limits {
        fuel_max: u64::MAX / 2,
        timeout: Duration::from_millis(300),
        instances_max: 1,
        ..small_limits()
    };
    let runtime = Arc::new(Runtime::new(limits));
    let package = runtime.install("slow", &component("", "(loop $again br $again) unreachable"));
    let mut invocations = tokio::task::JoinSet::new();
    // One is executed, and four wait.
    for _ in 0..7 {
        let (runtime, package) = (Arc::clone(&runtime), package.clone());
        invocations.spawn(async move {
            runtime.invoke("slow", &package, Arc::new(memory_host()), &["Run"]).await.unwrap_err()
        });
    }
    let errors = invocations.join_all().await;
    let refused = errors.iter().filter(|error| matches!(error, RuntimeError::Overloaded)).count();
    let expired = errors.iter().filter(|error| matches!(error, RuntimeError::Expired)).count();
    assert_eq!((refused, expired), (2, 5), "{errors:?}");
}
