#![no_main]

#[path = "../../msp/tests/fuzzing/entry.rs"]
#[allow(dead_code, reason = "each target calls one of the entries")]
mod entry;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| entry::certificate(bytes));
