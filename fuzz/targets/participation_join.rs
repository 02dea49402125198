//! Runs [`consort_fuzz::participation_join`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| consort_fuzz::participation_join(bytes));
