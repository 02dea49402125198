//! Runs [`consort_fuzz::connection_profile`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| consort_fuzz::connection_profile(bytes));
