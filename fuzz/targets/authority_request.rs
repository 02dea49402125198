//! Runs [`consort_fuzz::authority_request`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| consort_fuzz::authority_request(bytes));
