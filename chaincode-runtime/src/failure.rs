//! Why an execution ended early, in words.

use wasmtime::{Trap, WasmBacktrace};

use super::ceiling::CEILING_FUNCTION;

/// Names of functions that a failure shows; the innermost ones say where it happened.
const FUNCTIONS_SHOWN: usize = 6;

/// A bound that a chaincode ran into. The definition's bound is the same on every peer, and thus the chaincode's own failure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Bound {
    /// Linear memory.
    #[error("asked for {asked} bytes of memory, and may have {limit}")]
    Memory { asked: usize, limit: usize },
    /// Elements of a table.
    #[error("asked for a table of {asked} elements, and may have {limit}")]
    Table { asked: usize, limit: usize },
    /// Instructions and calls of the ledger together.
    #[error("did not finish within its fuel")]
    Fuel,
}

/// This peer cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Broken(pub(super) String);

/// The wall-clock limit has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("timeout expired while executing transaction")]
pub(super) struct Expired;

/// The error of making an instance. Only what the chaincode's own code does or asks for is its failure; anything else, such as
/// an exhausted pool, depends on this peer's load and must not be endorsed.
pub(super) fn of_instance(error: wasmtime::Error) -> wasmtime::Error {
    let own = error.downcast_ref::<Trap>().is_some() || error.downcast_ref::<Bound>().is_some();
    if own || error.downcast_ref::<Broken>().is_some() || error.downcast_ref::<Expired>().is_some() {
        return error;
    }
    Broken(format!("no instance of the chaincode could be made: {error:#}")).into()
}

/// How an execution ended that did not return.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// By the chaincode's doing.
    Chaincode(String),
    /// By this peer's state.
    Peer(String),
    /// By time.
    Expired,
}

/// The execution that is judged.
pub(super) struct Judged<'j> {
    /// The chaincode's name.
    pub(super) chaincode: &'j str,
    /// The function that the client called.
    pub(super) function: &'j str,
    /// The message of a panic.
    pub(super) panic: Option<&'j str>,
    /// Fuel that the definition grants.
    pub(super) fuel: u64,
    /// Fuel that this peer is set to give at most.
    pub(super) fuel_ceiling: u64,
    /// Stack that the definition grants, in bytes of its measure.
    pub(super) stack_bytes: u32,
}

/// Judges the error of a call.
pub(super) fn judge(error: &wasmtime::Error, judged: &Judged<'_>) -> Failure {
    if let Some(broken) = error.downcast_ref::<Broken>() {
        return Failure::Peer(broken.0.clone());
    }
    if error.downcast_ref::<Expired>().is_some() {
        return Failure::Expired;
    }
    let Judged { chaincode, function, panic, fuel, fuel_ceiling, stack_bytes } = *judged;
    let bound = error.downcast_ref::<Bound>();
    let trap = error.downcast_ref::<Trap>();
    let what = if matches!(bound, Some(Bound::Fuel)) || matches!(trap, Some(Trap::OutOfFuel)) {
        if fuel_ceiling < fuel {
            return Failure::Peer(format!(
                "chaincode {chaincode} may burn {fuel} units of fuel, and this peer's configuration gives {fuel_ceiling} \
                 (chaincode.fuel_max)"
            ));
        }
        format!("did not finish within its {fuel} units of fuel")
    } else if let Some(bound) = bound {
        bound.to_string()
    } else if let Some(panic) = panic {
        format!("panicked: {panic}")
    } else {
        match trap {
            Some(Trap::StackOverflow) => {
                return Failure::Peer(format!(
                    "chaincode {chaincode} needs more of this peer's stack than its definition's {stack_bytes} bytes stand for"
                ));
            }
            Some(Trap::UnreachableCodeReached) if is_ceiling(error) => format!(
                "called itself too deeply: the stack ceiling of {} KiB (chaincode definition) is reached",
                stack_bytes.div_ceil(1024)
            ),
            Some(Trap::UnreachableCodeReached) => "aborted: it reached code marked as unreachable".to_owned(),
            Some(trap) => format!("trapped: {trap}"),
            None => format!("failed: {}", error.root_cause()),
        }
    };
    let mut text = format!("chaincode {chaincode} {what} (in function {function}");
    let functions = error.downcast_ref::<WasmBacktrace>().map(functions).unwrap_or_default();
    if !functions.is_empty() {
        text.push_str(", at ");
        text.push_str(&functions.join(" < "));
    }
    text.push(')');
    Failure::Chaincode(text)
}

/// Whether the function that trapped is the one that stands for the stack's ceiling.
fn is_ceiling(error: &wasmtime::Error) -> bool {
    let innermost = error.downcast_ref::<WasmBacktrace>().and_then(|backtrace| backtrace.frames().first());
    innermost.and_then(wasmtime::FrameInfo::func_name) == Some(CEILING_FUNCTION)
}

/// The chaincode's own names of the innermost functions.
fn functions(backtrace: &WasmBacktrace) -> Vec<String> {
    // The text form is the one that has the names demangled: `0: 0x1c2 - basic.wasm!basic::create_asset`.
    let text = backtrace.to_string();
    let mut names: Vec<String> = Vec::new();
    for line in text.lines() {
        let Some((_, name)) = line.split_once(" - ") else { continue };
        let name = name.rsplit_once('!').map_or(name, |(_, name)| name);
        let name = name.rsplit_once("::h").map_or(name, |(name, hash)| {
            if hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) { name } else { line }
        });
        let machinery = ["core::", "std::", "__rust", "__rustc", "<wasm function", "rust_", "alloc::"];
        if name == CEILING_FUNCTION
            || machinery.iter().any(|prefix| name.starts_with(prefix))
            || names.last().is_some_and(|last| last == name)
        {
            continue;
        }
        names.push(name.to_owned());
        if names.len() == FUNCTIONS_SHOWN {
            break;
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use wasmtime::{
        Config, Engine, Instance, InstanceAllocationStrategy, Module, PoolingAllocationConfig, Store,
    };

    use super::*;

    fn instance_error(wat: &str) -> wasmtime::Error {
        let mut pool = PoolingAllocationConfig::new();
        pool.total_core_instances(1).total_memories(1).total_tables(1);
        let mut config = Config::new();
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        let engine = Engine::new(&config).unwrap();
        let mut store = Store::new(&engine, ());
        let module = Module::new(&engine, wat::parse_str(wat).unwrap()).unwrap();
        match Instance::new(&mut store, &module, &[]) {
            Err(error) => error,
            Ok(_) => Instance::new(&mut store, &module, &[]).unwrap_err(),
        }
    }

    fn judged(error: &wasmtime::Error, fuel_ceiling: u64) -> Failure {
        let execution = Judged {
            chaincode: "basic",
            function: "Run",
            panic: None,
            fuel: 5,
            fuel_ceiling,
            stack_bytes: 1024,
        };
        judge(error, &execution)
    }

    #[test]
    fn an_exhausted_pool_is_the_peers_failure_and_a_trap_at_the_start_is_the_chaincodes() {
        let error = of_instance(instance_error("(module)"));
        assert!(matches!(judged(&error, 5), Failure::Peer(_)), "{error:#}");
        let error = of_instance(instance_error("(module (func $start unreachable) (start $start))"));
        assert!(matches!(judged(&error, 5), Failure::Chaincode(_)), "{error:#}");
        let error = of_instance(Bound::Fuel.into());
        assert!(matches!(judged(&error, 5), Failure::Chaincode(_)), "{error:#}");
    }

    #[test]
    fn a_peer_that_gives_less_than_the_definition_grants_does_not_blame_the_chaincode() {
        let expected = "chaincode basic did not finish within its 5 units of fuel (in function Run)";
        assert_eq!(judged(&Bound::Fuel.into(), 5), Failure::Chaincode(expected.to_owned()));
        assert!(matches!(judged(&Bound::Fuel.into(), 4), Failure::Peer(_)));
        assert!(matches!(judged(&Trap::OutOfFuel.into(), 4), Failure::Peer(_)));
    }
}
