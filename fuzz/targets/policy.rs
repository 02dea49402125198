//! Runs [`consort_fuzz::policy`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| consort_fuzz::policy(bytes));
