//! Runs [`consort_fuzz::chaincode_events_request`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| consort_fuzz::chaincode_events_request(bytes));
