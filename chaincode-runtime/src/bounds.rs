//! What a component may be made of, checked before it is compiled.
//!
//! Compiling takes time and memory that grow faster than the code in the worst case. So the parts whose size decides about it are
//! counted first; each bound is far above what compilers of ordinary chaincode produce.

use wasmparser::{Encoding, Parser, Payload};

/// Code of all functions together, in bytes. The example chaincodes have some tens of kilobytes, a Go program two megabytes.
pub const CODE_BYTES_MAX: usize = 8 << 20;
/// Code of one function, in bytes. The time of register allocation grows faster than this size; the largest function of the examples has
/// ten kilobytes.
pub const FUNCTION_BYTES_MAX: usize = 128 << 10;
/// Functions of all modules together.
pub const FUNCTIONS_MAX: u64 = 100_000;
/// Local variables of one function; the engine's own limit is the same, and this one counts before it is reached.
pub const LOCALS_MAX: u64 = 50_000;
/// Modules and components inside of the component, however deep: the chaincode, and the adapters around it.
pub const MODULES_MAX: usize = 32;
/// How deep components may lie in each other.
pub const NESTING_MAX: usize = 8;
/// Bytes of initial data: they become an image of the memory.
pub const DATA_BYTES_MAX: usize = 32 << 20;

/// Why code is not compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BoundsError {
    /// It is no WebAssembly component.
    #[error("{0}")]
    Invalid(String),
    /// It has more of something than it may.
    #[error("it has {found} {what}, and may have {limit}")]
    TooMuch {
        /// What was counted.
        what: &'static str,
        /// How much there is, at least.
        found: u64,
        /// How much there may be.
        limit: u64,
    },
}

#[derive(Default)]
struct Count {
    code_bytes: usize,
    functions: u64,
    modules: usize,
    data_bytes: usize,
}

/// Counts the parts of a component.
///
/// # Errors
/// [`BoundsError`].
pub fn check(component: &[u8]) -> Result<(), BoundsError> {
    let invalid = |error: wasmparser::BinaryReaderError| BoundsError::Invalid(error.to_string());
    let mut count = Count::default();
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(invalid)? {
            Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => {
                return Err(BoundsError::Invalid(
                    "it is a core module and not a component; `consort chaincode build` makes components"
                        .to_owned(),
                ));
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => {
                depth += 1;
                count.modules += 1;
                within("levels of nesting", depth as u64, NESTING_MAX as u64)?;
                within("modules", count.modules as u64, MODULES_MAX as u64)?;
            }
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::CodeSectionStart { count: functions, .. } => {
                count.functions += u64::from(functions);
                within("functions", count.functions, FUNCTIONS_MAX)?;
            }
            Payload::CodeSectionEntry(body) => {
                let bytes = body.range().len();
                count.code_bytes += bytes;
                within("bytes of code in one function", bytes as u64, FUNCTION_BYTES_MAX as u64)?;
                within("bytes of code", count.code_bytes as u64, CODE_BYTES_MAX as u64)?;
                let mut locals = 0_u64;
                for group in body.get_locals_reader().map_err(invalid)? {
                    locals += u64::from(group.map_err(invalid)?.0);
                    within("variables in one function", locals, LOCALS_MAX)?;
                }
            }
            Payload::DataSection(section) => {
                count.data_bytes += section.range().len();
                within("bytes of initial data", count.data_bytes as u64, DATA_BYTES_MAX as u64)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn within(what: &'static str, found: u64, limit: u64) -> Result<(), BoundsError> {
    if found > limit { Err(BoundsError::TooMuch { what, found, limit }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(wat: &str) -> Result<(), BoundsError> {
        check(&wat::parse_str(wat).unwrap())
    }

    #[test]
    fn an_ordinary_component_is_within_the_bounds() {
        assert_eq!(checked("(component (core module (func (local i32) nop)) (component))"), Ok(()));
    }

    #[test]
    fn a_core_module_is_told_what_it_is() {
        let error = checked("(module)").unwrap_err().to_string();
        assert!(error.starts_with("it is a core module and not a component"), "{error}");
    }

    #[test]
    fn what_is_too_large_is_named_and_counted() {
        let body = "nop ".repeat(FUNCTION_BYTES_MAX + 1);
        let error = checked(&format!("(component (core module (func {body})))")).unwrap_err().to_string();
        assert!(error.ends_with("bytes of code in one function, and may have 131072"), "{error}");
        let locals = "(local i32 i64) ".repeat(25_001);
        let error = checked(&format!("(component (core module (func {locals})))")).unwrap_err().to_string();
        assert!(error.ends_with("variables in one function, and may have 50000"), "{error}");
        let modules = "(core module)".repeat(MODULES_MAX + 1);
        let error = checked(&format!("(component {modules})")).unwrap_err().to_string();
        assert_eq!(error, "it has 33 modules, and may have 32");
        let nested = format!("{}{}", "(component ".repeat(10), ")".repeat(10));
        let error = checked(&nested).unwrap_err().to_string();
        assert_eq!(error, "it has 9 levels of nesting, and may have 8");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_end_the_process(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..512)) {
            let _ = check(&bytes);
            let mut framed = b"\0asm\x0d\0\x01\0".to_vec();
            framed.extend(bytes);
            let _ = check(&framed);
        }
    }
}
