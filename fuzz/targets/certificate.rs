//! Runs [`consort_fuzz::certificate`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| consort_fuzz::certificate(bytes));
