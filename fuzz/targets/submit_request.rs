//! Runs [`consort_fuzz::submit_request`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| consort_fuzz::submit_request(bytes));
