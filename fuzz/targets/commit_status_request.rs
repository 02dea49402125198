//! Runs [`consort_fuzz::commit_status_request`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| consort_fuzz::commit_status_request(bytes));
