//! Runs [`consort_fuzz::chaincode_package`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| consort_fuzz::chaincode_package(bytes));
