//! Runs [`consort_fuzz::proposal_payload`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| consort_fuzz::proposal_payload(bytes));
