//! Runs [`consort_fuzz::read_write_set`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| consort_fuzz::read_write_set(bytes));
