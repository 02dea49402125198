//! Components made for every published version of the interface run.

#![allow(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod parts;

use consort_chaincode_runtime::InstallError;
use parts::{Runtime, package, small_limits};
use wit_component::{ComponentEncoder, StringEncoding, dummy_module, embed_component_metadata};
use wit_parser::{ManglingAndAbi, Resolve};

/// A component that imports everything that a version offers.
fn everything_of(wit: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let interface = resolve.push_str("chaincode.wit", wit).unwrap();
    let world = resolve.select_world(&[interface], Some("chaincode")).unwrap();
    let mut module = dummy_module(&resolve, world, ManglingAndAbi::Standard32);
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
}

#[test]
fn every_function_of_every_published_version_is_offered() {
    let runtime = Runtime::new(small_limits());
    for (version, wit) in [
        ("1.0.0", include_str!("../../chaincode-sdk/wit-published/1.0.0.wit")),
        ("1.1.0", include_str!("../../chaincode-sdk/wit-published/1.1.0.wit")),
    ] {
        let code = everything_of(wit);
        runtime.runtime.install(package(&format!("all_of_{version}"), &code)).unwrap();
    }
}

#[test]
fn the_present_interface_is_a_published_one() {
    let present = include_str!("../../chaincode-sdk/wit/chaincode.wit");
    let published = include_str!("../../chaincode-sdk/wit-published/1.1.0.wit");
    assert_eq!(present, published, "a published version never changes: give a new one a number of its own");
}

#[test]
fn a_version_that_does_not_exist_yet_is_refused() {
    let wit = include_str!("../../chaincode-sdk/wit-published/1.0.0.wit").replace("@1.0.0", "@2.0.0");
    let error =
        Runtime::new(small_limits()).runtime.install(package("future", &everything_of(&wit))).unwrap_err();
    assert!(matches!(error, InstallError::Interface(_)), "{error}");
}
