//! Runs [`consort_fuzz::evaluate_request`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| consort_fuzz::evaluate_request(bytes));
