//! Contracts as authors write them with the attribute.

#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]
#![expect(missing_docs, reason = "the contracts of a test")]

use consort_chaincode_sdk::testing::MemoryLedger;
use consort_chaincode_sdk::{Call, Context, Error, Kind, Schema, contract};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Schema)]
#[serde(rename_all = "camelCase")]
pub struct Bond {
    face_value: u64,
    owner: Owner,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    note: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Schema)]
pub struct Owner {
    name: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Opaque(u8, u8);

#[derive(Default)]
pub struct Bonds;

#[contract]
impl Bonds {
    #[submit]
    fn issue(&self, context: &Context<'_>, id: &str, bond: &Bond) -> Result<(), Error> {
        context.assets("bond").create(&[id], bond)
    }

    #[evaluate]
    fn read(&self, context: &Context<'_>, id: &str) -> Result<Bond, Error> {
        context.assets("bond").get(&[id])
    }

    #[evaluate(name = "sneak")]
    fn sneaky_write(&self, context: &Context<'_>, key: &str) -> Result<(), Error> {
        context.put(key, b"x")
    }

    #[evaluate]
    fn page(&self, context: &Context<'_>, size: u32, bookmark: &str) -> Result<(Vec<String>, String), Error> {
        let page = context.assets::<Bond>("bond").page(&[], size, bookmark)?;
        Ok((page.assets.into_iter().map(|(mut attributes, _)| attributes.remove(0)).collect(), page.bookmark))
    }

    #[evaluate]
    fn echo(_: &Context<'_>, bytes: &[u8], times: Option<u8>) -> Vec<u8> {
        bytes.repeat(usize::from(times.unwrap_or(1)))
    }

    #[evaluate]
    fn names(&self, context: &Context<'_>) -> Result<Vec<Opaque>, Error> {
        Err(Error::with_status(403, format!("{} may not", context.client()?.common_name)))
    }

    #[before]
    fn check(&self, context: &Context<'_>, call: &Call<'_>) -> Result<(), Error> {
        if call.kind == Kind::Submit {
            context.client()?.require_msp_id("Org1MSP")?;
        }
        Ok(())
    }

    #[after]
    fn announce(&self, context: &Context<'_>, call: &Call<'_>, _payload: &[u8]) -> Result<(), Error> {
        if call.kind == Kind::Submit { context.emit(call.function, &call.arguments[0]) } else { Ok(()) }
    }

    fn _not_for_clients(&self) {}
}

pub struct Counter {
    step: u64,
}

#[contract(name = "numbers.Counter")]
impl Counter {
    #[submit]
    fn count(&self, context: &Context<'_>) -> Result<u64, Error> {
        let next = context.get_json::<u64>("count")?.unwrap_or(0) + self.step;
        context.put_json("count", &next)?;
        Ok(next)
    }
}

consort_chaincode_sdk::chaincode!(Bonds, Counter { step: 2 });

const BOND: &str = r#"{"faceValue":100,"owner":{"name":"Tom"}}"#;

fn issued() -> MemoryLedger {
    let mut ledger = MemoryLedger::new();
    ledger.submit(&chaincode(), "Issue", &["b1", BOND]).unwrap();
    ledger
}

#[test]
fn parameters_and_results_are_serde_types() {
    let ledger = issued();
    assert_eq!(ledger.evaluate(&chaincode(), "Read", &["b1"]).unwrap(), BOND.as_bytes());
    assert_eq!(ledger.evaluate(&chaincode(), "Echo", &["ab", "2"]).unwrap(), b"abab");
    assert_eq!(ledger.evaluate(&chaincode(), "Echo", &["ab", ""]).unwrap(), b"ab");
}

#[test]
fn hooks_run_around_every_function() {
    let mut ledger = issued();
    let event = ledger.events().last().unwrap();
    assert_eq!((event.name.as_str(), event.payload.as_slice()), ("Issue", b"b1".as_slice()));
    ledger.set_client(MemoryLedger::client("Org2MSP", "Eve"));
    let error = ledger.submit(&chaincode(), "Issue", &["b2", BOND]).unwrap_err();
    assert_eq!(
        (error.status(), error.message()),
        (403, "a client of Org2MSP may not do what is for Org1MSP")
    );
    ledger.evaluate(&chaincode(), "Read", &["b1"]).unwrap();
}

#[test]
fn a_contract_is_named_before_its_function_and_the_first_one_is_the_default() {
    let mut ledger = MemoryLedger::new();
    assert_eq!(ledger.submit(&chaincode(), "numbers.Counter:Count", &[]).unwrap(), b"2");
    assert_eq!(ledger.submit(&chaincode(), "numbers.Counter:Count", &[]).unwrap(), b"4");
    ledger.submit(&chaincode(), "Bonds:Issue", &["b1", BOND]).unwrap();
    let error = ledger.submit(&chaincode(), "Count", &[]).unwrap_err();
    assert_eq!(
        error.message(),
        "You've asked to invoke a function that does not exist: Count. There are: Issue, Read, sneak, Page, Echo, Names"
    );
    let error = ledger.submit(&chaincode(), "Shares:Issue", &[]).unwrap_err();
    assert_eq!(
        error.message(),
        "Contract not found with name in \"Shares:Issue\"; this chaincode has Bonds, numbers.Counter"
    );
}

#[test]
fn wrong_arguments_name_the_function_and_what_it_expects() {
    let ledger = issued();
    let error = ledger.evaluate(&chaincode(), "Read", &[]).unwrap_err();
    assert_eq!(error.message(), "Read(id: String) expects 1 argument, but 0 were given");
    let error = ledger.evaluate(&chaincode(), "Page", &["few", ""]).unwrap_err();
    assert_eq!(
        error.message(),
        "Page(size: u32, bookmark: String): argument 1 (size): expected a whole number of 32 bits, not negative, got \"few\""
    );
    let error = ledger.evaluate(&chaincode(), "Issue", &["b2", "{}"]).unwrap_err();
    assert!(
        error
            .message()
            .starts_with("Issue(id: String, bond: Bond): argument 2 (bond): expected JSON: missing field"),
        "{error}"
    );
}

#[test]
fn a_function_that_is_there_to_be_evaluated_cannot_write() {
    let error = MemoryLedger::new().submit(&chaincode(), "sneak", &["a"]).unwrap_err();
    assert_eq!(error.message(), "sneak is there to be evaluated and must not write; mark it #[submit]");
}

#[test]
fn refusals_keep_their_status() {
    let error = MemoryLedger::new().evaluate(&chaincode(), "Names", &[]).unwrap_err();
    assert_eq!((error.status(), error.message()), (403, "User1 may not"));
    let error = issued().submit(&chaincode(), "Issue", &["b1", BOND]).unwrap_err();
    assert_eq!((error.status(), error.message()), (409, "the bond b1 already exists"));
}

#[test]
fn assets_come_in_pages() {
    let mut ledger = MemoryLedger::new();
    for id in ["a", "b", "c"] {
        ledger.submit(&chaincode(), "Issue", &[id, BOND]).unwrap();
    }
    let page = ledger.evaluate(&chaincode(), "Page", &["2", ""]).unwrap();
    let (ids, bookmark): (Vec<String>, String) = serde_json::from_slice(&page).unwrap();
    assert_eq!(ids, ["a", "b"]);
    let page = ledger.evaluate(&chaincode(), "Page", &["2", &bookmark]).unwrap();
    assert_eq!(page, br#"[["c"],""]"#);
}

#[test]
fn the_metadata_describes_functions_and_types() {
    let metadata =
        MemoryLedger::new().evaluate(&chaincode(), "org.hyperledger.fabric:GetMetadata", &[]).unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&metadata).unwrap();
    assert_eq!(metadata["info"]["title"], "consort-chaincode-sdk");
    let bonds = &metadata["contracts"]["Bonds"];
    assert_eq!(bonds["default"], true);
    let issue = &bonds["transactions"][0];
    assert_eq!(issue["name"], "Issue");
    assert_eq!(issue["tag"], serde_json::json!(["submit", "SUBMIT"]));
    assert_eq!(issue["parameters"][1]["schema"]["$ref"], "#/components/schemas/Bond");
    assert_eq!(bonds["transactions"][1]["returns"]["$ref"], "#/components/schemas/Bond");
    let bond = &metadata["components"]["schemas"]["Bond"];
    assert_eq!(bond["properties"]["faceValue"]["type"], "integer");
    assert_eq!(bond["required"], serde_json::json!(["faceValue", "owner"]));
    assert_eq!(metadata["components"]["schemas"]["Owner"]["properties"]["name"]["type"], "string");
    assert_eq!(metadata["components"]["schemas"]["Opaque"]["type"], "object");
    assert!(metadata["contracts"]["numbers.Counter"].is_object());
    assert!(metadata["contracts"]["org.hyperledger.fabric"].is_object());
}
