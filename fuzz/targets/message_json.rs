//! Runs [`consort_fuzz::message_json`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| consort_fuzz::message_json(bytes));
