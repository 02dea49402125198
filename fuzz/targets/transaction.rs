//! Runs [`consort_fuzz::transaction`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| consort_fuzz::transaction(bytes));
