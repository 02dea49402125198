//! Runs [`consort_fuzz::identity`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| consort_fuzz::identity(bytes));
