//! The ceiling in code of every form: equal results below it, the same end at it, and the engine's own stack always large enough.

use wasmtime::component::{Component, Linker};
use wasmtime::{Engine, Store, Trap, WasmBacktrace};

use super::super::engine::{self, STACK_FACTOR, UNMEASURED_STACK_BYTES};
use super::*;

/// Ceiling of these tests.
const STACK: u32 = 1 << 20;
/// Fuel that none of them uses up.
const FUEL: u64 = 1 << 40;

/// A component that offers the function `run` of a module.
fn component(module: &str) -> Vec<u8> {
    let text = format!(
        r#"(component (core module $m {module}) (core instance $i (instantiate $m))
            (func (export "run") (param "number" u32) (result u32) (canon lift (core func $i "run"))))"#
    );
    wat::parse_str(text).unwrap()
}

/// How a run ended.
#[derive(Debug, PartialEq)]
enum End {
    Result(u32),
    /// At the ceiling, with this many units of fuel burnt, and the innermost function.
    Ceiling(u64, String),
    /// The engine's own stack was used up.
    Engine,
    Trap(Trap),
}

/// Runs a component that has `engine_stack` bytes of the engine's stack.
fn run_within(component: &[u8], number: u32, engine_stack: usize) -> End {
    let mut config = engine::code();
    engine::with_stack(&mut config, engine_stack);
    let engine = Engine::new(&config).unwrap();
    let component = Component::new(&engine, component).unwrap();
    let run = || {
        let mut store = Store::new(&engine, ());
        store.set_fuel(FUEL).unwrap();
        store.set_epoch_deadline(1);
        let instance = Linker::new(&engine).instantiate(&mut store, &component).unwrap();
        let function = instance.get_typed_func::<(u32,), (u32,)>(&mut store, "run").unwrap();
        let error = match function.call(&mut store, (number,)) {
            Ok((result,)) => return End::Result(result),
            Err(error) => error,
        };
        let names: Vec<&str> = error
            .downcast_ref::<WasmBacktrace>()
            .map(|trace| trace.frames().iter().filter_map(wasmtime::FrameInfo::func_name).collect())
            .unwrap_or_default();
        match error.downcast_ref::<Trap>() {
            Some(Trap::UnreachableCodeReached) if names.first() == Some(&CEILING_FUNCTION) => {
                End::Ceiling(FUEL - store.get_fuel().unwrap(), names[1].to_owned())
            }
            Some(Trap::StackOverflow) => End::Engine,
            Some(trap) => End::Trap(*trap),
            None => panic!("{error:#}"),
        }
    };
    // The thread has more than the engine may use.
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(engine_stack + (2 << 20));
        thread.spawn_scoped(scope, run).unwrap().join().unwrap()
    })
}

/// Runs a module with the ceiling, and with as much of the engine's stack as a chaincode has for it.
fn run(module: &str, number: u32) -> End {
    let counting = with_ceiling(&component(module), STACK).unwrap();
    run_within(&counting, number, STACK_FACTOR * STACK as usize + UNMEASURED_STACK_BYTES)
}

/// Functions that need as much of the engine's stack as functions can.
fn worst_functions() -> Vec<(&'static str, String)> {
    let down = |locals: &str, before: &str, after: &str| {
        format!(
            r#"(memory 1) (func $down (export "run") (param i32) (result i32) {locals} {before}
                (local.set 0 (call $down (i32.add (local.get 0) (i32.const 1)))) {after} (local.get 0))"#
        )
    };
    let repeated = |count: u32, each: &dyn Fn(u32) -> String| (1..=count).map(each).collect::<String>();
    let many = 2_000;
    let locals = |kind: &str, count: usize| format!("(local {})", vec![kind; count].join(" "));
    let load = |kind: &'static str, bytes: u32| {
        move |n: u32| {
            format!("(local.set {n} ({kind}.load (i32.add (local.get 0) (i32.const {}))))", n * bytes)
        }
    };
    let store = |kind: &'static str, bytes: u32| {
        move |n: u32| format!("({kind}.store (i32.const {}) (local.get {n}))", n * bytes)
    };
    // Equal expressions before and after the call: the optimiser keeps the values of the first.
    let kept = |n: u32| {
        format!(
            "(i32.store (i32.const {}) (i32.xor (i32.mul (local.get 1) (i32.const {})) (i32.const {n})))",
            n * 4,
            2 * n + 77
        )
    };
    let kept_vectors = |n: u32| {
        format!(
            "(v128.store (i32.const {}) (i16x8.mul (local.get 1) (v128.const i32x4 {n} {n} 7 9)))",
            n * 16
        )
    };
    let vector = "(local v128) (local.set 1 (v128.load (i32.const 0)))";
    vec![
        ("a frame of nothing", down("", "", "")),
        (
            "many variables",
            down(
                &locals("i64", many),
                &repeated(many as u32, &load("i64", 8)),
                &repeated(many as u32, &store("i64", 8)),
            ),
        ),
        (
            "many vectors",
            down(
                &locals("v128", many),
                &repeated(many as u32, &load("v128", 16)),
                &repeated(many as u32, &store("v128", 16)),
            ),
        ),
        (
            "values that the optimiser keeps",
            down(
                "(local i32) (local.set 1 (i32.load (i32.const 0)))",
                &repeated(4_000, &kept),
                &repeated(4_000, &kept),
            ),
        ),
        (
            "vectors that the optimiser keeps",
            down(vector, &repeated(3_000, &kept_vectors), &repeated(3_000, &kept_vectors)),
        ),
    ]
}

/// Functions that need much stack to call others.
fn wide_functions() -> Vec<(&'static str, String)> {
    let results = vec!["i64"; 900].join(" ");
    vec![
        (
            "many parameters and results",
            format!(
                r#"(func $wide (param {results}) (result {results}) (global.set $count (i32.add (global.get $count) (i32.const 1)))
                    {} (call $wide) (call $wide))
                (global $count (mut i32) (i32.const 0))
                (func (export "run") (param i32) (result i32) {} (call $wide) {} (i32.const 0))"#,
                (0..900).map(|n| format!("(local.get {n})")).collect::<String>(),
                "(i64.const 1)".repeat(900),
                "(drop)".repeat(900),
            ),
        ),
        (
            "operands of many calls",
            format!(
                r#"(func $one (export "run") (param i32) (result i32) {} {})"#,
                "(call $one (local.get 0))".repeat(1_500),
                "(i32.add)".repeat(1_499),
            ),
        ),
    ]
}

#[test]
fn the_ceiling_comes_before_the_engines_stack_for_the_worst_functions() {
    for (what, module) in worst_functions().into_iter().chain(wide_functions()) {
        let counting = with_ceiling(&component(&module), STACK).unwrap();
        // The measure alone would do, with what is not measured; the engine has twice as much.
        let usual = run_within(&counting, 0, STACK as usize + UNMEASURED_STACK_BYTES);
        assert!(matches!(usual, End::Ceiling(..)), "{what}: {usual:?}");
        // Equal fuel, so equally many calls, whatever stack there is.
        let twice = STACK_FACTOR * STACK as usize + UNMEASURED_STACK_BYTES;
        assert_eq!(run_within(&counting, 0, twice), usual, "{what}");
    }
}

#[test]
fn code_that_counts_does_what_it_did_before() {
    // Ends of every form: a value at the end, returns from within blocks, branches out of the function, results by the dozen.
    let module = r#"
        (type $unary (func (param i32) (result i32)))
        (table 2 funcref) (elem (i32.const 0) $early $late)
        (func $early (param i32) (result i32)
            (block $c
                (block $b (block $a (br_table $a $b $c (local.get 0))) (return (call $add (i32.const 10))))
                (br 1 (call $add (i32.const 20))))
            (if (result i32) (i32.gt_u (local.get 0) (i32.const 50))
                (then (return (call $add (i32.const 30)))) (else (call $add (i32.const 40)))))
        (func $late (param i32) (result i32) (loop (br_if 1 (call $add (local.get 0)) (i32.const 1)) (drop)) (unreachable))
        (func $add (param i32) (result i32) (call $noop) (i32.add (local.get 0) (i32.const 1)))
        (func $noop)
        (func $two (param i32) (result i32 i64 f32)
            (if (i32.and (local.get 0) (i32.const 1))
                (then (return (call $add (local.get 0)) (i64.const 2) (f32.const 3))))
            (call $add (local.get 0)) (i64.const 5) (f32.const 6))
        (func $tail (param i32) (result i32)
            (if (i32.eqz (local.get 0)) (then (return_call $add (i32.const 7))))
            (return_call_indirect (type $unary) (i32.sub (local.get 0) (i32.const 1)) (i32.const 1)))
        (func $many (param i32) (result i32)
            (if (i32.eqz (local.get 0)) (then (return (i32.const 0))))
            (return_call $many (i32.sub (local.get 0) (i32.const 1))))
        (func (export "run") (param $n i32) (result i32) (local $sum i32) (local $i i32)
            (loop $again
                (local.set $sum (i32.add (i32.mul (local.get $sum) (i32.const 31))
                    (call_indirect (type $unary) (i32.rem_u (local.get $i) (i32.const 60)) (i32.and (local.get $i) (i32.const 1)))))
                (call $two (local.get $i)) (drop) (i32.wrap_i64)
                (local.set $sum (i32.add (local.get $sum)))
                (local.set $sum (i32.add (local.get $sum)))
                (local.set $sum (i32.add (local.get $sum) (call $tail (i32.and (local.get $i) (i32.const 3)))))
                (br_if $again (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (local.get $n))))
            ;; As many tail calls as no stack would hold.
            (i32.add (local.get $sum) (call $many (i32.const 1000000))))"#;
    let plain = component(module);
    let small = with_ceiling(&plain, 4096).unwrap();
    for number in [1, 2, 3, 59, 100_000] {
        let expected = run_within(&plain, number, STACK as usize);
        assert!(matches!(expected, End::Result(_)), "{expected:?}");
        // A cost that was not given back would reach this ceiling soon.
        assert_eq!(run_within(&small, number, STACK as usize), expected, "{number}");
    }
}

#[test]
fn every_way_of_calling_counts_and_the_innermost_function_is_named() {
    let direct = r#"(func $down (export "run") (param i32) (result i32) (call $down (local.get 0)) (drop) (i32.const 0))"#;
    let indirect = r#"(type $t (func (param i32) (result i32))) (table 1 funcref) (elem (i32.const 0) $down)
        (func $down (export "run") (param i32) (result i32) (i32.add (call_indirect (type $t) (local.get 0) (i32.const 0)) (i32.const 1)))"#;
    let mutual = r#"(func $down (export "run") (param i32) (result i32) (i32.add (call $other (local.get 0)) (i32.const 1)))
        (func $other (param i32) (result i32) (i32.add (call $down (local.get 0)) (i32.const 1)))"#;
    for module in [direct, indirect, mutual] {
        let End::Ceiling(_, name) = run(module, 0) else { panic!("{module}") };
        assert!(["down", "other"].contains(&name.as_str()), "{name}");
    }
    // What is marked as unreachable is not the ceiling.
    let aborting = r#"(func (export "run") (param i32) (result i32) (call $a) unreachable) (func $a)"#;
    assert_eq!(run(aborting, 0), End::Trap(Trap::UnreachableCodeReached));
}

#[test]
fn a_ceiling_of_twice_the_height_is_reached_after_twice_the_calls() {
    let module = r#"(func $down (export "run") (param i32) (result i32) (i32.add (call $down (local.get 0)) (i32.const 1)))"#;
    let fuel =
        |stack_bytes| match run_within(&with_ceiling(&component(module), stack_bytes).unwrap(), 0, 8 << 20) {
            End::Ceiling(fuel, _) => fuel,
            other => panic!("{other:?}"),
        };
    let (once, twice) = (fuel(STACK), fuel(2 * STACK));
    assert!(twice.abs_diff(2 * once) < 200, "{once} {twice}");
}

#[test]
fn nested_components_and_modules_that_are_all_functions_of_their_own_are_counted() {
    let text = r#"(component
        (component $inner
            (core module $m (func $down (export "run") (param i32) (result i32) (i32.add (call $down (local.get 0)) (i32.const 1))))
            (core instance $i (instantiate $m))
            (func (export "run") (param "number" u32) (result u32) (canon lift (core func $i "run"))))
        (core module (func (export "unused")) (data (i32.const 0) "a") (memory 1))
        (instance $n (instantiate $inner))
        (export "run" (func $n "run")))"#;
    let counting = with_ceiling(&wat::parse_str(text).unwrap(), STACK).unwrap();
    let end = run_within(&counting, 0, STACK_FACTOR * STACK as usize + UNMEASURED_STACK_BYTES);
    assert!(matches!(end, End::Ceiling(..)), "{end:?}");
}

#[test]
fn modules_that_have_no_room_together_are_refused_with_the_remedy() {
    let module = r#"(core module (func $down (call $down)))"#;
    let text = format!("(component {})", module.repeat(5));
    let error = with_ceiling(&wat::parse_str(text).unwrap(), 2 << 20).unwrap_err().to_string();
    assert_eq!(
        error,
        "its 5 core modules may use 2097152 bytes of stack each, and 8388608 together; remedy: choose a smaller stack_bytes in the definition"
    );
}

#[test]
fn what_is_no_component_is_refused() {
    for bytes in [&b"garbage"[..], b"", b"\0asm\x01\0\0\0"] {
        assert!(with_ceiling(bytes, STACK).is_err());
    }
}

proptest::proptest! {
    #[test]
    fn damaged_components_end_nothing(place in 0_usize..4096, byte in proptest::num::u8::ANY) {
        let mut bytes = component(r#"(func $down (export "run") (param i32) (result i32)
            (if (result i32) (local.get 0) (then (return (call $down (local.get 0)))) (else (i32.const 1))))"#);
        let place = place % bytes.len();
        bytes[place] = byte;
        let _ = with_ceiling(&bytes, STACK);
    }
}
