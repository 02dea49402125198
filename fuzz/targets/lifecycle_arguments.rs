//! Runs [`consort_fuzz::lifecycle_arguments`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| consort_fuzz::lifecycle_arguments(bytes));
