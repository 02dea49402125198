//! Runs [`consort_fuzz::channel_change`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| consort_fuzz::channel_change(bytes));
