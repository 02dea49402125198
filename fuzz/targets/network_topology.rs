//! Runs [`consort_fuzz::network_topology`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| consort_fuzz::network_topology(bytes));
