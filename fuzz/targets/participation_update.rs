//! Runs [`consort_fuzz::participation_update`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| consort_fuzz::participation_update(bytes));
