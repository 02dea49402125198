//! What an execution may use: what the channel's definition grants, and what this machine is set to give at most.

use std::time::Duration;

/// Fuel of a definition that names none. About as many nanoseconds of computing: a few seconds.
pub const FUEL_DEFAULT: u64 = 2_000_000_000;
/// Linear memory of a definition that names none, in bytes: 256 MiB.
pub const MEMORY_BYTES_DEFAULT: u64 = 256 << 20;
/// Elements of a table of a definition that names none: functions that are called by address.
pub const TABLE_ELEMENTS_DEFAULT: u32 = 64 << 10;
/// Stack of a definition that names none, in bytes of the measure that `docs/chaincode.md` describes: 2 MiB. Some ten thousand calls
/// of small functions, about a hundred levels of a parser that reads nested JSON.
pub const STACK_BYTES_DEFAULT: u32 = 2 << 20;
/// Stack of all core modules of one chaincode together, in bytes of that measure: four of the default, two of the largest.
pub const STACK_BYTES_TOTAL: u64 = 8 << 20;
/// How deep chaincodes may call each other if the definition says nothing.
pub const CALL_DEPTH_DEFAULT: u32 = 8;

/// The largest values that a definition may ask for. Every peer has room for them, whatever its configuration.
pub const ALLOWANCE_MAX: Allowance = Allowance {
    fuel: 1_000_000_000_000,
    memory_bytes: 4 << 30,
    table_elements: 64 << 10,
    call_depth: 8,
    stack_bytes: 4 << 20,
};

/// What a chaincode's definition on the channel grants one execution. The same on every endorser, so reaching it is the chaincode's own
/// failure, with the same words everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Instructions and calls of the ledger, in units of wasmtime's fuel, those of called chaincodes included.
    pub fuel: u64,
    /// Linear memory, in bytes.
    pub memory_bytes: u64,
    /// Elements of one table.
    pub table_elements: u32,
    /// Chaincodes in a chain of calls, the first one included.
    pub call_depth: u32,
    /// Stack of each core module of a chaincode, in bytes of a measure that does not depend on the machine.
    pub stack_bytes: u32,
}

impl Default for Allowance {
    fn default() -> Self {
        Self {
            fuel: FUEL_DEFAULT,
            memory_bytes: MEMORY_BYTES_DEFAULT,
            table_elements: TABLE_ELEMENTS_DEFAULT,
            call_depth: CALL_DEPTH_DEFAULT,
            stack_bytes: STACK_BYTES_DEFAULT,
        }
    }
}

impl Allowance {
    /// Fills in what a definition leaves open (zero) and checks the rest.
    ///
    /// # Errors
    /// A value is above [`ALLOWANCE_MAX`]; the text names it.
    pub fn of_definition(asked: Self) -> Result<Self, String> {
        fn chosen<N: Copy + PartialOrd + Default + std::fmt::Display>(
            name: &str,
            value: N,
            default: N,
            max: N,
        ) -> Result<N, String> {
            if value > max {
                return Err(format!("the limit {name} is {value}, and may be {max} at most"));
            }
            Ok(if value == N::default() { default } else { value })
        }
        let (default, max) = (Self::default(), ALLOWANCE_MAX);
        Ok(Self {
            fuel: chosen("fuel", asked.fuel, default.fuel, max.fuel)?,
            memory_bytes: chosen("memory_bytes", asked.memory_bytes, default.memory_bytes, max.memory_bytes)?,
            table_elements: chosen(
                "table_elements",
                asked.table_elements,
                default.table_elements,
                max.table_elements,
            )?,
            call_depth: chosen("call_depth", asked.call_depth, default.call_depth, max.call_depth)?,
            stack_bytes: chosen("stack_bytes", asked.stack_bytes, default.stack_bytes, max.stack_bytes)?,
        })
    }
}

/// What this machine is set to give one execution at most. Where it is below a definition's [`Allowance`], reaching it is this peer's
/// failure and not the chaincode's: another peer may succeed.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Fuel.
    pub fuel_max: u64,
    /// Linear memory, in bytes.
    pub memory_bytes_max: usize,
    /// Wall-clock time, waiting included. Only a backstop: it depends on the machine, so it is never the chaincode's failure.
    pub timeout: Duration,
    /// Executions at one time; more wait, up to four times as many.
    pub instances_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            fuel_max: 10 * FUEL_DEFAULT,
            memory_bytes_max: 1 << 30,
            timeout: Duration::from_secs(30),
            instances_max: 64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_definition_leaves_open_has_a_default_and_too_much_is_named() {
        let open = Allowance { fuel: 0, memory_bytes: 0, table_elements: 0, call_depth: 0, stack_bytes: 0 };
        assert_eq!(Allowance::of_definition(open), Ok(Allowance::default()));
        assert_eq!(Allowance::of_definition(Allowance { fuel: 5, ..open }).unwrap().fuel, 5);
        assert_eq!(
            Allowance::of_definition(Allowance { memory_bytes: 5 << 30, ..open }).unwrap_err(),
            "the limit memory_bytes is 5368709120, and may be 4294967296 at most"
        );
        assert_eq!(
            Allowance::of_definition(Allowance { stack_bytes: 5 << 20, ..open }).unwrap_err(),
            "the limit stack_bytes is 5242880, and may be 4194304 at most"
        );
    }
}
