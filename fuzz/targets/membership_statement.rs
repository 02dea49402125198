//! Runs [`consort_fuzz::membership_statement`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| consort_fuzz::membership_statement(bytes));
