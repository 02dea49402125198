//! Runs [`consort_fuzz::seek`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| consort_fuzz::seek(bytes));
