//! Runs [`consort_fuzz::channel_profile`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| consort_fuzz::channel_profile(bytes));
