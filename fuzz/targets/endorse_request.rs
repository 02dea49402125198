//! Runs [`consort_fuzz::endorse_request`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| consort_fuzz::endorse_request(bytes));
