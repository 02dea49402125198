//! The WebAssembly engine: what code may use, and how much.

use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::limits::{ALLOWANCE_MAX, Limits, STACK_BYTES_TOTAL};

/// Chaincodes in a chain of calls, the first one included: the most that a definition may allow.
pub(super) const CALL_DEPTH_MAX: usize = ALLOWANCE_MAX.call_depth as usize;

/// The engine's own stack for each byte of the definition's measure. What a frame takes is below the measure (tests show it for the
/// worst functions); the rest is for compilers and processors to come.
pub(super) const STACK_FACTOR: usize = 2;
/// Stack for what is not measured: one function that calls nothing, the engine's way to a function of the ledger and back.
pub(super) const UNMEASURED_STACK_BYTES: usize = 512 << 10;
/// Stack of the executing code, for each chaincode in a chain of calls: so large that the ceiling of the definition comes first.
const STACK_BYTES_MAX: usize = STACK_FACTOR * STACK_BYTES_TOTAL as usize + UNMEASURED_STACK_BYTES;
/// Stack of the peer's own functions, for each chaincode in a chain of calls: the ledger below it, and making an instance.
const HOST_STACK_BYTES: usize = 512 << 10;
/// Stack of a thread that executes chaincode: called chaincodes run on the thread of their caller, so it has room for all. What is not
/// used is address space without memory behind it.
pub const THREAD_STACK_BYTES: usize = CALL_DEPTH_MAX * (STACK_BYTES_MAX + HOST_STACK_BYTES);
/// Core modules in one component: the chaincode, and the adapters that `wit-component` puts around it.
const CORE_INSTANCES_PER_COMPONENT: u32 = 10;
/// Linear memories in one component. Chaincode has one.
const MEMORIES_PER_COMPONENT: u32 = 2;
/// Tables in one component: the chaincode's, and the adapters'.
const TABLES_PER_COMPONENT: u32 = 4;
/// Elements of one table: the functions that are called by address.
const TABLE_ELEMENTS_MAX: usize = ALLOWANCE_MAX.table_elements as usize;
/// Bytes of an instance's description, which grows with the number of functions and imports.
const INSTANCE_BYTES_MAX: usize = 4 << 20;
/// Memory that a slot keeps for its next instance: writing the pages that were written (Linux 6.7 and later tell which) is cheaper than
/// asking the system for new ones, and most chaincodes never use more. Older systems do not tell, and clear the first so many bytes.
const KEPT_BYTES: usize = 256 << 10;

/// Makes the engine.
///
/// # Errors
/// The system does not give the address space for the instances.
pub(super) fn engine(limits: &Limits) -> wasmtime::Result<Engine> {
    let mut config = code();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(limits)));
    Engine::new(&config)
}

/// An engine that compiles the same code and has no room for instances: how they are made does not change the code.
///
/// # Errors
/// The engine's own.
pub(super) fn for_compiling() -> wasmtime::Result<Engine> {
    Engine::new(&code())
}

/// What code may use, and how it is bounded.
pub(super) fn code() -> Config {
    let mut config = Config::new();
    // Equal results everywhere: one bit pattern for NaN, no instruction whose result the processor chooses.
    config.cranelift_nan_canonicalization(true).wasm_relaxed_simd(false);
    // A memory of 64 bits could not be bounded by the pool.
    config.wasm_memory64(false);
    config.consume_fuel(true).epoch_interruption(true);
    with_stack(&mut config, STACK_BYTES_MAX);
    config
}

/// Sets the engine's own stack.
pub(super) fn with_stack(config: &mut Config, bytes: usize) {
    // The engine wants the second at least as large, and makes no such stack: nothing here is asynchronous.
    config.max_wasm_stack(bytes).async_stack_size(bytes);
}

/// Room for every execution and all that it may call at one time, so that no load makes an instance fail. What is not in use is
/// address space without memory behind it.
fn pool(limits: &Limits) -> PoolingAllocationConfig {
    let depth_max = u32::try_from(CALL_DEPTH_MAX).unwrap_or(u32::MAX);
    let components = limits.instances_max.saturating_mul(depth_max);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(components)
        .total_core_instances(components.saturating_mul(CORE_INSTANCES_PER_COMPONENT))
        .total_memories(components.saturating_mul(MEMORIES_PER_COMPONENT))
        .total_tables(components.saturating_mul(TABLES_PER_COMPONENT))
        .max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT)
        .max_memories_per_component(MEMORIES_PER_COMPONENT)
        .max_tables_per_component(TABLES_PER_COMPONENT)
        .max_component_instance_size(INSTANCE_BYTES_MAX)
        .max_core_instance_size(INSTANCE_BYTES_MAX)
        .max_memory_size(limits.memory_bytes_max)
        .table_elements(TABLE_ELEMENTS_MAX)
        .linear_memory_keep_resident(KEPT_BYTES)
        .table_keep_resident(KEPT_BYTES)
        .pagemap_scan(Enabled::Auto);
    pool
}
