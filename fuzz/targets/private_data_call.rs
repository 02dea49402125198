//! Runs [`consort_fuzz::private_data_call`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| consort_fuzz::private_data_call(bytes));
