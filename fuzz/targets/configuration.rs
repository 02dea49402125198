//! Runs [`consort_fuzz::configuration`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| consort_fuzz::configuration(bytes));
