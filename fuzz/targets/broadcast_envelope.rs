//! Runs [`consort_fuzz::broadcast_envelope`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| consort_fuzz::broadcast_envelope(bytes));
