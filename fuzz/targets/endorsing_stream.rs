//! Runs [`consort_fuzz::endorsing_stream`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| consort_fuzz::endorsing_stream(bytes));
