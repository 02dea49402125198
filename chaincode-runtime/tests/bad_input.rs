//! What chaincode and its authors can do wrong, on purpose or not: each is answered within the limits, and memory comes back.

#![allow(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod parts;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use consort_chaincode_runtime::{
    Allowance, ChaincodeRuntime, Host, InstallError, Invocation, Limits, PackageId, Response,
    THREAD_STACK_BYTES,
};
use parts::memory::{callee, memory_host};
use parts::{Runtime, basic, calling, component, package, small_limits, writing};
use proptest::prelude::*;

/// Longer than any of this may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

async fn answer(limits: Limits, code: &[u8]) -> Response {
    let runtime = Runtime::new(limits);
    let package = runtime.install("bad", code);
    let began = Instant::now();
    let execution = runtime.invoke("bad", &package, Arc::new(memory_host()), &["Run"]).await.unwrap();
    assert!(began.elapsed() < PATIENCE);
    execution.response
}

/// Limits of a definition that chooses none.
fn default_limits() -> Limits {
    Limits { fuel_max: 2_000_000_000, memory_bytes_max: 256 << 20, instances_max: 2, ..Limits::default() }
}

#[tokio::test]
async fn a_million_writes_burn_the_fuel() {
    let body = "(loop $again (drop (call $put (i32.const 16) (i32.const 3) (i32.const 0) (i32.const 8)))
        (br_if $again (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 1000000))))";
    let response = answer(default_limits(), &writing("", body)).await;
    assert_eq!(response.status, 500);
    assert!(
        response.message.starts_with("chaincode bad did not finish within its 2000000000 units of fuel"),
        "{}",
        response.message
    );
}

#[tokio::test]
async fn what_calls_of_the_ledger_cost_is_gone_before_the_next_instruction() {
    // The writes take two thirds of the fuel, and so does the loop after them: what lies behind it is not reached.
    let extra = r#"(data (i32.const 32) "late")"#;
    let body = "(loop $again (drop (call $put (i32.const 16) (i32.const 3) (i32.const 0) (i32.const 8)))
        (br_if $again (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 4000))))
        (local.set $i (i32.const 6000000))
        (loop $burn (br_if $burn (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))
        (drop (call $put (i32.const 32) (i32.const 4) (i32.const 0) (i32.const 8)))";
    let runtime = Runtime::new(small_limits());
    let package = runtime.install("bad", &writing(extra, body));
    let host = Arc::new(memory_host());
    let books: Arc<dyn Host> = host.clone();
    let execution = runtime.invoke("bad", &package, books, &["Run"]).await.unwrap();
    assert_eq!((execution.response.status, execution.usage.fuel), (500, 50_000_000));
    let written: Vec<String> = host.books().written.keys().map(|(_, _, key)| key.clone()).collect();
    assert_eq!(written, ["key"]);
}

/// Puts a value of a hundred megabytes.
const HUGE_PUT: &str = "(drop (memory.grow (i32.const 1700)))
        (if (call $put (i32.const 16) (i32.const 3) (i32.const 65536) (i32.const 104857600)) (then (call $refused)))";

#[tokio::test]
async fn a_value_of_a_hundred_megabytes_is_refused_in_words() {
    let response = answer(default_limits(), &writing("", HUGE_PUT)).await;
    assert_eq!(
        (response.status, response.message.as_str()),
        (500, "the value of key \"key\" has 104857600 bytes, and may have 33554432")
    );
}

#[tokio::test]
async fn a_key_that_is_no_text_ends_the_execution() {
    let extra = r#"(data (i32.const 32) "\ff\fe")"#;
    let body = "(drop (call $put (i32.const 32) (i32.const 2) (i32.const 0) (i32.const 8)))";
    let response = answer(small_limits(), &writing(extra, body)).await;
    assert_eq!(response.status, 500);
    assert!(response.message.starts_with("chaincode bad failed: "), "{}", response.message);
}

#[tokio::test]
async fn keys_of_any_form_are_keys_and_an_empty_one_is_none() {
    let extra = r#"(data (i32.const 32) "\00owner\00tom\00")"#;
    let body =
        "(if (call $put (i32.const 32) (i32.const 11) (i32.const 0) (i32.const 8)) (then (call $refused)))";
    assert_eq!(answer(small_limits(), &writing(extra, body)).await.status, 200);
    let body =
        "(if (call $put (i32.const 32) (i32.const 0) (i32.const 0) (i32.const 8)) (then (call $refused)))";
    let response = answer(small_limits(), &writing("", body)).await;
    assert_eq!((response.status, response.message.as_str()), (500, "key must not be an empty string"));
}

#[tokio::test]
async fn a_response_of_another_shape_is_a_failure() {
    // A message that is no text, and one that lies outside of the memory.
    for body in [
        "(i32.store (i32.const 64) (i32.const 200)) (i32.store8 (i32.const 100) (i32.const 255))
         (i32.store (i32.const 68) (i32.const 100)) (i32.store (i32.const 72) (i32.const 1)) (i32.const 64)",
        "(i32.store (i32.const 68) (i32.const 65535)) (i32.store (i32.const 72) (i32.const -1)) (i32.const 64)",
    ] {
        let response = answer(small_limits(), &component("", body)).await;
        assert_eq!(response.status, 500);
        assert!(response.message.starts_with("chaincode bad "), "{}", response.message);
    }
}

#[tokio::test]
async fn chaincodes_that_call_each_other_in_a_circle_end_at_the_depth_of_the_definition() {
    let mut runtime = Runtime::new(small_limits());
    runtime.allowance.call_depth = 3;
    let package = runtime.install("circle", &calling("", "(call $to (i32.const 16) (i32.const 5))"));
    let mut host = memory_host();
    host.callees.insert("other".to_owned(), callee(package.clone()));
    let execution = runtime.invoke("circle", &package, Arc::new(host), &["Run"]).await.unwrap();
    assert_eq!(execution.response.status, 200, "{}", execution.response.message);
    let fuel = execution.usage.fuel;
    let calls = fuel / (1 << 20);
    assert_eq!(calls, 3, "two calls are made and the third is refused: {fuel}");
}

#[tokio::test]
async fn a_definitions_limit_gives_the_same_words_whatever_the_machine_gives() {
    let code = component("", "(loop $again br $again) unreachable");
    let mut messages = Vec::new();
    for fuel_max in [1_000_000, 5_000_000] {
        let mut runtime = Runtime::new(Limits { fuel_max, ..small_limits() });
        runtime.allowance = Allowance { fuel: 1_000_000, ..runtime.allowance };
        let package = runtime.install("bad", &code);
        let execution = runtime.invoke("bad", &package, Arc::new(memory_host()), &["Run"]).await.unwrap();
        messages.push(execution.response.message);
    }
    assert_eq!(messages[0], messages[1]);

    // A machine that gives less than the definition grants does not blame the chaincode.
    let mut runtime = Runtime::new(Limits { fuel_max: 500_000, ..small_limits() });
    runtime.allowance.fuel = 1_000_000;
    let package = runtime.install("bad", &code);
    let error = runtime.invoke("bad", &package, Arc::new(memory_host()), &["Run"]).await.unwrap_err();
    assert!(error.to_string().contains("this peer's configuration gives 500000"), "{error}");
    let mut runtime = Runtime::new(Limits { memory_bytes_max: 1 << 20, ..small_limits() });
    runtime.allowance.memory_bytes = 16 << 20;
    let storm = component("", "(loop $again (drop (memory.grow (i32.const 1))) br $again) unreachable");
    let package = runtime.install("storm", &storm);
    let error = runtime.invoke("storm", &package, Arc::new(memory_host()), &["Run"]).await.unwrap_err();
    assert!(error.to_string().contains("this peer's configuration gives 1048576"), "{error}");
}

#[tokio::test]
async fn a_module_that_limits_its_own_memory_is_told_so_and_not_ended() {
    // Its own maximum is one page: the instruction answers -1, and the chaincode goes on.
    let text = String::from_utf8(wasm_text("(memory (export \"memory\") 1 1)")).unwrap();
    let response = answer(small_limits(), &wat::parse_str(text).unwrap()).await;
    assert_eq!(response.status, 200);
}

/// The component of [`component`] with another memory; it answers 200 when growing is refused with -1.
fn wasm_text(memory: &str) -> Vec<u8> {
    format!(
        r#"(component
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
                {memory}
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 4096)
                (func (export "invoke") (param i32 i32 i32) (result i32)
                    (i32.store (i32.const 64)
                        (select (i32.const 200) (i32.const 500) (i32.eq (memory.grow (i32.const 1)) (i32.const -1))))
                    i32.const 64))
            (core instance $i (instantiate $m))
            (func (export "invoke") (param "invocation" $invocation) (result $response)
                (canon lift (core func $i "invoke") (memory (core memory $i "memory")) (realloc (core func $i "cabi_realloc"))))
        )"#
    )
    .into_bytes()
}

#[test]
fn a_bomb_for_the_compiler_is_refused_before_it_is_compiled() {
    let runtime = Runtime::new(small_limits());
    let body = "(drop (i32.const 1))".repeat(400_000);
    let text = format!("(component (core module (func {body})))");
    let began = Instant::now();
    let error = runtime.runtime.install(package("bomb", &wat::parse_str(text).unwrap())).unwrap_err();
    assert!(matches!(error, InstallError::TooLarge(_)), "{error}");
    assert!(error.to_string().contains("bytes of code in one function, and may have 131072"), "{error}");
    assert!(began.elapsed() < PATIENCE);
}

#[test]
fn the_heaviest_function_that_is_let_through_compiles_in_time() {
    let runtime = Runtime::new(small_limits());
    // Many values alive at once, and branches between them: what register allocation likes least.
    let step =
        "(local.set 0 (i32.add (local.get 1) (i32.mul (local.get 2) (local.get 3)))) (br_if 0 (local.get 0))";
    let body = step.repeat(8_000);
    let locals = "(local i32 i32 i32 i32)";
    let text = format!("(component (core module (func {locals} (block {body}))))");
    let began = Instant::now();
    let error = runtime.runtime.install(package("heavy", &wat::parse_str(text).unwrap())).unwrap_err();
    // It is no chaincode; that is found out after compiling it.
    assert!(matches!(error, InstallError::Interface(_)), "{error}");
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
}

#[test]
fn recursion_ends_at_the_same_depth_whatever_stack_its_thread_has() {
    let extra = "(func $down (param i32) (result i32) (i32.add (call $down (local.get 0)) (i32.const 1)))";
    let runtime = Runtime::new(small_limits());
    let package = runtime.install("deep", &component(extra, "(call $down (i32.const 0))"));
    let execute = |stack_bytes: usize| {
        let invocation = runtime.invocation("deep", &package, Arc::new(memory_host()), &["Run"]);
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(stack_bytes);
            let thread = thread.spawn_scoped(scope, || runtime.runtime.execute(invocation).unwrap()).unwrap();
            thread.join().unwrap()
        })
    };
    let usual = execute(THREAD_STACK_BYTES);
    assert_eq!(
        usual.response.message,
        "chaincode deep called itself too deeply: the stack ceiling of 2048 KiB (chaincode definition) is reached (in function Run, at down)"
    );
    for stack_bytes in [THREAD_STACK_BYTES / 4, THREAD_STACK_BYTES * 4] {
        // Equal fuel, so equally many calls.
        assert_eq!(execute(stack_bytes), usual);
    }
}

#[tokio::test]
async fn one_package_has_the_ceiling_of_each_definition_that_uses_it() {
    let extra = "(func $down (param i32) (result i32) (i32.add (call $down (local.get 0)) (i32.const 1)))";
    let mut runtime = Runtime::new(small_limits());
    let package = runtime.install("deep", &component(extra, "(call $down (i32.const 0))"));
    let mut fuel = Vec::new();
    for (stack_bytes, shown) in [(1 << 20, "1024 KiB"), (64 << 10, "64 KiB"), (4 << 20, "4096 KiB")] {
        runtime.allowance.stack_bytes = stack_bytes;
        runtime.runtime.prepare_soon(&package, stack_bytes);
        let execution = runtime.invoke("deep", &package, Arc::new(memory_host()), &["Run"]).await.unwrap();
        assert!(execution.response.message.contains(shown), "{}", execution.response.message);
        fuel.push(execution.usage.fuel);
    }
    assert!(fuel[1] < fuel[0] && fuel[0] < fuel[2], "{fuel:?}");
}

/// Bytes of memory that this process has in use.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Chaincodes that take what they can get, their fuel, and a word of what they are told.
fn storms() -> Vec<(Vec<u8>, u64, &'static str)> {
    const FUEL: u64 = 500_000_000;
    let again = |body: &str| {
        format!(
            "(loop $again {body} (br_if $again (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 1000000))))"
        )
    };
    // Touches every page that it gets.
    let allocating = "(loop $again
            (if (i32.ne (memory.grow (i32.const 64)) (i32.const -1))
                (then (memory.fill (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 4194304)) (i32.const 7) (i32.const 4194304))
                      (br $again))))
         unreachable";
    let deep = "(func $down (param i64) (result i64) (i64.add (call $down (local.get 0)) (i64.const 1)))";
    let put = "(drop (call $put (i32.const 16) (i32.const 3) (i32.const 0) (i32.const 60000)))";
    let endless = "(loop $again br $again) unreachable";
    vec![
        (component("", allocating), FUEL, "bytes of memory, and may have 268435456"),
        (
            component(deep, "(drop (call $down (i64.const 0))) unreachable"),
            FUEL,
            "the stack ceiling of 2048 KiB",
        ),
        (writing("", &again(put)), FUEL / 10, "did not finish within its 50000000 units of fuel"),
        (writing("", HUGE_PUT), FUEL, "has 104857600 bytes, and may have 33554432"),
        (component("", endless), FUEL / 10, "did not finish within its 50000000 units of fuel"),
    ]
}

#[tokio::test]
async fn memory_comes_back_after_storms_of_every_kind() {
    let mut runtime = Runtime::new(Limits { timeout: 2 * PATIENCE, ..default_limits() });
    for (number, (code, fuel, expected)) in storms().into_iter().enumerate() {
        let package = runtime.install(&format!("storm{number}"), &code);
        runtime.allowance.fuel = fuel;
        let run = async || {
            let host = Arc::new(memory_host());
            let response = runtime.invoke("storm", &package, host, &["Run"]).await.unwrap().response;
            assert!(response.message.contains(expected), "{}", response.message);
        };
        run().await;
        let before = resident();
        for _ in 0..3 {
            run().await;
        }
        let grown = resident().saturating_sub(before);
        assert!(grown < 64 << 20, "three storms that end with {expected:?} left {grown} bytes behind");
    }
}

/// Arguments of any number and form, the name of a function among them or not.
fn any_arguments() -> impl Strategy<Value = Vec<Vec<u8>>> {
    const NAMES: [&str; 5] =
        ["CreateAsset", "ReadAsset", "TransferAsset", "GetAllAssets", "org.hyperledger.fabric:GetMetadata"];
    let word = prop_oneof![
        prop::sample::select(&NAMES[..]).prop_map(|name| name.as_bytes().to_vec()),
        proptest::collection::vec(any::<u8>(), 0..64),
        any::<i128>().prop_map(|number| number.to_string().into_bytes()),
    ];
    proptest::collection::vec(word, 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_arguments_are_answered_or_refused_and_never_a_trap(arguments in any_arguments()) {
        thread_local! {
            static BASIC: Option<(Runtime, PackageId)> = basic().map(|code| {
                let runtime = Runtime::new(Limits { instances_max: 1, ..small_limits() });
                let package = runtime.install("basic", code);
                (runtime, package)
            });
        }
        BASIC.with(|installed| {
            let Some((runtime, package)) = installed else { return };
            let invocation = Invocation {
                arguments: arguments.into_iter().map(Bytes::from).collect(),
                ..runtime.invocation("basic", package, Arc::new(memory_host()), &[])
            };
            let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let response = executor.block_on(runtime.runtime.invoke(invocation)).unwrap().response;
            // What the sandbox says of a chaincode that did not answer itself.
            assert!(!response.message.starts_with("chaincode basic "), "{}", response.message);
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_a_component_or_an_error(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12)) {
        thread_local! {
            static RUNTIME: Runtime = Runtime::new(Limits { instances_max: 1, ..small_limits() });
        }
        let mut code = component("", "(i32.store (i32.const 64) (i32.const 200)) (i32.const 64)");
        for (index, byte) in changes {
            let at = index.index(code.len());
            code[at] = byte;
        }
        RUNTIME.with(|runtime| {
            let Ok(id) = runtime.runtime.install(package("mutant", &code)) else { return };
            let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            // Whatever it does, it ends.
            let _ = executor.block_on(runtime.invoke("mutant", &id, Arc::new(memory_host()), &["Run"]));
        });
    }
}
