//! The ceiling of the stack, written into the code: equal calls reach it at equal depth on every machine.
//!
//! How large a function's frame is depends on the processor and on the compiler. So each function counts what it takes in a measure of
//! its own code: [`FRAME_BYTES`], [`VALUE_BYTES`] for each parameter, variable and operand at one time, and [`OPERATOR_BYTES`] for each
//! instruction. Before a component is compiled, each function gets a few instructions at its begin, which take its cost from what is
//! left of the stack, and at its ends, which give it back. Who takes more than there is calls a function that only traps, and whose name
//! tells this trap from others.
//!
//! The measure is larger than what the engine needs: a value is at most once in a frame and once where it is passed to another function
//! (8 bytes each; vectors are twice as large, and so is the cost of a function that has any), and a value that the optimiser keeps
//! besides those takes at least three instructions (two that make and one that uses it), for which at least six bytes were counted. The engine has twice
//! the measure ([`engine`](super::engine)); code that would still need more ends with the engine's own limit, which is this peer's failure and
//! never the chaincode's.
//!
//! A core module counts its own functions; a component of several has as many counters, and its ceilings together are within
//! [`STACK_BYTES_TOTAL`]. Functions that call nothing are not counted while their cost is below [`LEAF_BYTES_MAX`]: only one of them can be
//! on a stack. What would leave a function by another way than its ends, such as an exception, is not compiled into the engine. The idea of counting in the code is that of wasm-instrument and finite-wasm, which do so for other ledgers.

use std::collections::VecDeque;

use wasm_encoder::{BlockType, Encode, Instruction, NameMap, NameSection, Section};
use wasmparser::{
    BinaryReader, BinaryReaderError, Encoding, FuncToValidate, FuncValidatorAllocations, FunctionBody,
    Operator, Parser, Payload, RefType, ValType, ValidPayload, Validator, ValidatorResources, WasmFeatures,
    WasmModuleResources,
};

use super::limits::STACK_BYTES_TOTAL;

/// Part of the names of compiled code: code that another version of this module has written is not taken for this one's.
pub(super) const VERSION: u32 = 2;
/// Name of the function that is called when the stack is used up.
pub(super) const CEILING_FUNCTION: &str = "the stack ceiling of the chaincode definition";

/// Cost of any function: return address, frame pointer, and what the compiler keeps for itself, such as the fuel.
const FRAME_BYTES: u64 = 64;
/// Cost of each parameter, variable and operand.
const VALUE_BYTES: u64 = 16;
/// Cost of each instruction.
const OPERATOR_BYTES: u64 = 2;
/// Largest cost of a function without calls that is not counted: only one can be on a stack, and the engine has room for it besides the
/// measure. Functions that compute much, such as those of hashes, are of this kind, and stay as their compiler made them.
const LEAF_BYTES_MAX: u64 = 64 << 10;
/// First byte of the instructions on vectors.
const VECTOR_PREFIX: u8 = 0xfd;

/// Sections of a binary (WebAssembly, 5.5.2; component model, `Binary.md`).
mod section {
    pub(super) const CUSTOM: u8 = 0;
    pub(super) const CORE_MODULE: u8 = 1;
    pub(super) const COMPONENT: u8 = 4;
    pub(super) const TYPE: u8 = 1;
    pub(super) const FUNCTION: u8 = 3;
    pub(super) const GLOBAL: u8 = 6;
    pub(super) const CODE: u8 = 10;
    /// Those that come after the global variables.
    pub(super) const AFTER_GLOBALS: [u8; 6] = [7, 8, 9, 12, 10, 11];
}

/// Bytes of a binary's header.
const HEADER_BYTES: usize = 8;

/// Why a component gets no ceiling.
#[derive(Debug, thiserror::Error)]
pub(super) enum CeilingError {
    /// It is no valid component.
    #[error("{0}")]
    Invalid(#[from] BinaryReaderError),
    /// It uses what the engine does not have, either.
    #[error("{0}")]
    Unsupported(&'static str),
    /// Its modules have no room together.
    #[error(
        "its {modules} core modules may use {stack_bytes} bytes of stack each, and {STACK_BYTES_TOTAL} together; remedy: choose a smaller \
         stack_bytes in the definition"
    )]
    TooMany {
        /// Modules with functions that are counted.
        modules: u64,
        /// The ceiling of each.
        stack_bytes: u32,
    },
}

/// Writes the ceiling into every module of a component.
///
/// # Errors
/// [`CeilingError`].
pub(super) fn with_ceiling(component: &[u8], stack_bytes: u32) -> Result<Vec<u8>, CeilingError> {
    if !Parser::is_component(component) {
        return Err(CeilingError::Unsupported("it is not a WebAssembly component"));
    }
    let mut modules = rewritten(component)?;
    let counted = modules.iter().filter(|module| module.is_counted()).count() as u64;
    if counted * u64::from(stack_bytes) > STACK_BYTES_TOTAL {
        return Err(CeilingError::TooMany { modules: counted, stack_bytes });
    }
    splice(component, &mut modules, stack_bytes)
}

/// A module with the counting functions.
#[derive(Default)]
struct Rewritten {
    /// Types, functions and global variables of the module itself: the next index of each is ours.
    types: u32,
    functions: u32,
    globals: u32,
    /// Types that were added: that of the ceiling's function, and of blocks with several results.
    added_types: Vec<Vec<ValType>>,
    bodies: Vec<Vec<u8>>,
    counted: bool,
}

impl Rewritten {
    fn is_counted(&self) -> bool {
        self.counted
    }

    /// The type of a block that leaves a function's results.
    fn block_type(&mut self, results: &[ValType]) -> Result<BlockType, CeilingError> {
        Ok(match results {
            [] => BlockType::Empty,
            [one] => BlockType::Result(encoded(*one)?),
            several => {
                let place = self.added_types.iter().position(|added| added == several);
                let place = place.unwrap_or_else(|| {
                    self.added_types.push(several.to_vec());
                    self.added_types.len() - 1
                });
                BlockType::FunctionType(self.types + u32::try_from(place).unwrap_or(u32::MAX))
            }
        })
    }

    /// Takes a function's cost from what is left, and ends where there is less.
    fn enter(&self, cost: i32, code: &mut Vec<u8>) {
        for instruction in [
            Instruction::GlobalGet(self.globals),
            Instruction::I32Const(cost),
            Instruction::I32Sub,
            Instruction::GlobalSet(self.globals),
            Instruction::GlobalGet(self.globals),
            Instruction::I32Const(0),
            Instruction::I32LtS,
            Instruction::If(BlockType::Empty),
            Instruction::Call(self.functions),
            Instruction::Unreachable,
            Instruction::End,
        ] {
            instruction.encode(code);
        }
    }

    /// Gives a function's cost back.
    fn leave(&self, cost: i32, code: &mut Vec<u8>) {
        for instruction in [
            Instruction::GlobalGet(self.globals),
            Instruction::I32Const(cost),
            Instruction::I32Add,
            Instruction::GlobalSet(self.globals),
        ] {
            instruction.encode(code);
        }
    }
}

fn encoded(kind: ValType) -> Result<wasm_encoder::ValType, CeilingError> {
    Ok(match kind {
        ValType::I32 => wasm_encoder::ValType::I32,
        ValType::I64 => wasm_encoder::ValType::I64,
        ValType::F32 => wasm_encoder::ValType::F32,
        ValType::F64 => wasm_encoder::ValType::F64,
        ValType::V128 => wasm_encoder::ValType::V128,
        ValType::Ref(RefType::FUNCREF) => wasm_encoder::ValType::FUNCREF,
        ValType::Ref(RefType::EXTERNREF) => wasm_encoder::ValType::EXTERNREF,
        // The engine does not have the proposals that these belong to.
        ValType::Ref(_) => {
            return Err(CeilingError::Unsupported("a function has results of a kind that is not supported"));
        }
    })
}

/// Validates a component and rewrites the functions of its modules, in the order in which they are in it.
fn rewritten(component: &[u8]) -> Result<VecDeque<Rewritten>, CeilingError> {
    // The engine decides what may be used; this pass only must understand all of it.
    let mut validator = Validator::new_with_features(WasmFeatures::all());
    let mut allocations = FuncValidatorAllocations::default();
    let mut modules = VecDeque::new();
    for payload in Parser::new(0).parse_all(component) {
        let payload = payload?;
        let starts_module = matches!(payload, Payload::Version { encoding: Encoding::Module, .. });
        let starts_code = matches!(payload, Payload::CodeSectionStart { .. });
        match validator.payload(&payload)? {
            ValidPayload::Func(function, body) => {
                if let Some(module) = modules.back_mut() {
                    allocations = rewrite(module, function, &body, allocations)?;
                }
            }
            _ if starts_module => modules.push_back(Rewritten::default()),
            _ if starts_code => {
                if let (Some(module), Some(types)) = (modules.back_mut(), validator.types(0)) {
                    *module = Rewritten {
                        types: types.core_type_count_in_module(),
                        functions: types.function_count(),
                        globals: types.global_count(),
                        added_types: vec![Vec::new()],
                        ..Rewritten::default()
                    };
                }
            }
            _ => {}
        }
    }
    Ok(modules)
}

/// What was seen of a function's body.
#[derive(Default)]
struct Seen {
    /// The instructions, with ends that lead to where the cost is given back.
    code: Vec<u8>,
    /// Places in `code` before calls that end the function.
    tail_calls: Vec<usize>,
    operators: u64,
    operands_max: u64,
    has_calls: bool,
    has_vectors: bool,
}

/// Validates a function and adds its counting form to the module.
fn rewrite(
    module: &mut Rewritten,
    function: FuncToValidate<ValidatorResources>,
    body: &FunctionBody<'_>,
    allocations: FuncValidatorAllocations,
) -> Result<FuncValidatorAllocations, CeilingError> {
    let ty = function.ty;
    let mut validator = function.into_validator(allocations);
    let (locals, seen) = {
        let mut reader = body.get_binary_reader();
        validator.read_locals(&mut reader)?;
        let locals_bytes = reader.original_position() - body.range().start;
        (&body.as_bytes()[..locals_bytes], see(&mut validator, body)?)
    };
    let signature = validator.resources().sub_type_at(ty).map(|kind| kind.unwrap_func().clone());
    let Some(signature) = signature else {
        return Err(CeilingError::Unsupported("a function has no type"));
    };
    let is_vector = |kind: &ValType| *kind == ValType::V128;
    let has_vectors = seen.has_vectors
        || signature.params().iter().chain(signature.results()).any(is_vector)
        || (0..validator.len_locals())
            .any(|local| validator.get_local_type(local).as_ref().is_some_and(is_vector));
    let values = u64::from(validator.len_locals()) + seen.operands_max;
    let cost = FRAME_BYTES + VALUE_BYTES * values + OPERATOR_BYTES * seen.operators;
    let cost = if has_vectors { 2 * cost } else { cost };
    if !seen.has_calls && cost <= LEAF_BYTES_MAX {
        module.bodies.push(body.as_bytes().to_vec());
        return Ok(validator.into_allocations());
    }
    module.counted = true;
    let cost = i32::try_from(cost).unwrap_or(i32::MAX);
    let mut new = locals.to_vec();
    module.enter(cost, &mut new);
    Instruction::Block(module.block_type(signature.results())?).encode(&mut new);
    let mut copied = 0;
    for place in seen.tail_calls {
        new.extend_from_slice(&seen.code[copied..place]);
        module.leave(cost, &mut new);
        copied = place;
    }
    // The last of these instructions is the end of the function, and now that of the block.
    new.extend_from_slice(&seen.code[copied..]);
    module.leave(cost, &mut new);
    Instruction::End.encode(&mut new);
    module.bodies.push(new);
    Ok(validator.into_allocations())
}

/// Validates the instructions of a function, counts them, and turns its returns into branches to its end.
fn see(
    validator: &mut wasmparser::FuncValidator<ValidatorResources>,
    body: &FunctionBody<'_>,
) -> Result<Seen, BinaryReaderError> {
    let mut seen = Seen::default();
    let mut operators = body.get_operators_reader()?;
    let (bytes, start) = (body.as_bytes(), body.range().start);
    while !operators.eof() {
        let (operator, offset) = operators.read_with_offset()?;
        let original = &bytes[offset - start..operators.original_position() - start];
        match &operator {
            // The outermost label is the block that stands for the function.
            Operator::Return => {
                Instruction::Br(validator.control_stack_height().saturating_sub(1)).encode(&mut seen.code);
            }
            Operator::ReturnCall { .. }
            | Operator::ReturnCallIndirect { .. }
            | Operator::ReturnCallRef { .. } => {
                seen.tail_calls.push(seen.code.len());
                seen.has_calls = true;
                seen.code.extend_from_slice(original);
            }
            Operator::Call { .. } | Operator::CallIndirect { .. } | Operator::CallRef { .. } => {
                seen.has_calls = true;
                seen.code.extend_from_slice(original);
            }
            _ => seen.code.extend_from_slice(original),
        }
        validator.op(offset, &operator)?;
        seen.operators += 1;
        seen.has_vectors |= original.first() == Some(&VECTOR_PREFIX);
        seen.operands_max = seen.operands_max.max(u64::from(validator.operand_stack_height()));
    }
    operators.finish()?;
    Ok(seen)
}

/// Copies a component, or a module, with the rewritten modules in the places of its own.
fn splice(
    binary: &[u8],
    modules: &mut VecDeque<Rewritten>,
    stack_bytes: u32,
) -> Result<Vec<u8>, CeilingError> {
    let mut reader = BinaryReader::new(binary, 0);
    let mut out = reader.read_bytes(HEADER_BYTES)?.to_vec();
    while !reader.eof() {
        let (id, size) = (reader.read_u8()?, reader.read_var_u32()?);
        let content = reader.read_bytes(size as usize)?;
        match id {
            section::CORE_MODULE => {
                let module = modules.pop_front().unwrap_or_default();
                let new = if module.is_counted() {
                    splice_module(content, &module, stack_bytes)?
                } else {
                    content.to_vec()
                };
                put(&mut out, id, &new);
            }
            section::COMPONENT => {
                let nested = splice(content, modules, stack_bytes)?;
                put(&mut out, id, &nested);
            }
            _ => put(&mut out, id, content),
        }
    }
    Ok(out)
}

fn splice_module(binary: &[u8], module: &Rewritten, stack_bytes: u32) -> Result<Vec<u8>, CeilingError> {
    let mut global = vec![0x7f, 0x01];
    Instruction::I32Const(i32::try_from(stack_bytes).unwrap_or(i32::MAX)).encode(&mut global);
    Instruction::End.encode(&mut global);
    let mut reader = BinaryReader::new(binary, 0);
    let mut out = reader.read_bytes(HEADER_BYTES)?.to_vec();
    let mut has_global = false;
    while !reader.eof() {
        let (id, size) = (reader.read_u8()?, reader.read_var_u32()?);
        let content = reader.read_bytes(size as usize)?;
        if !has_global && section::AFTER_GLOBALS.contains(&id) {
            has_global = true;
            put(&mut out, section::GLOBAL, &longer(&[0], std::slice::from_ref(&global))?);
        }
        match id {
            section::TYPE => put(&mut out, id, &longer(content, &added_types(&module.added_types)?)?),
            section::FUNCTION => {
                let mut ceiling = Vec::new();
                module.types.encode(&mut ceiling);
                put(&mut out, id, &longer(content, &[ceiling])?);
            }
            section::GLOBAL => {
                has_global = true;
                put(&mut out, id, &longer(content, std::slice::from_ref(&global))?);
            }
            section::CODE => put(&mut out, id, &code(&module.bodies)),
            // Places in the code have moved, so what tells of them is wrong now.
            section::CUSTOM if is_debug_information(content) => {}
            _ => put(&mut out, id, content),
        }
    }
    let mut functions = NameMap::new();
    functions.append(module.functions, CEILING_FUNCTION);
    let mut names = NameSection::new();
    names.functions(&functions);
    names.append_to(&mut out);
    Ok(out)
}

/// Appends a section.
fn put(out: &mut Vec<u8>, id: u8, content: &[u8]) {
    out.push(id);
    content.encode(out);
}

/// A list with more entries at its end.
fn longer(list: &[u8], entries: &[Vec<u8>]) -> Result<Vec<u8>, BinaryReaderError> {
    let mut reader = BinaryReader::new(list, 0);
    let count = reader.read_var_u32()?;
    let mut out = Vec::with_capacity(list.len() + entries.len() * 8);
    count.saturating_add(u32::try_from(entries.len()).unwrap_or(u32::MAX)).encode(&mut out);
    out.extend_from_slice(reader.read_bytes(reader.bytes_remaining())?);
    out.extend(entries.iter().flatten());
    Ok(out)
}

/// Types of functions without parameters.
fn added_types(results: &[Vec<ValType>]) -> Result<Vec<Vec<u8>>, CeilingError> {
    results
        .iter()
        .map(|results| {
            let mut out = vec![0x60, 0x00];
            u32::try_from(results.len()).unwrap_or(u32::MAX).encode(&mut out);
            for kind in results {
                encoded(*kind)?.encode(&mut out);
            }
            Ok(out)
        })
        .collect()
}

/// The code section: the rewritten functions, and the one that only traps.
fn code(bodies: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    u32::try_from(bodies.len() + 1).unwrap_or(u32::MAX).encode(&mut out);
    for body in bodies {
        body.as_slice().encode(&mut out);
    }
    let mut ceiling = vec![0x00];
    Instruction::Unreachable.encode(&mut ceiling);
    Instruction::End.encode(&mut ceiling);
    ceiling.as_slice().encode(&mut out);
    out
}

fn is_debug_information(custom: &[u8]) -> bool {
    BinaryReader::new(custom, 0).read_string().is_ok_and(|name| name.starts_with(".debug_"))
}

#[cfg(test)]
mod tests;
