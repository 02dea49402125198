//! Runs [`consort_fuzz::token`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| consort_fuzz::token(bytes));
