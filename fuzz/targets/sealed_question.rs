//! Runs [`consort_fuzz::sealed_question`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| consort_fuzz::sealed_question(bytes));
