#![expect(clippy::needless_pass_by_value, reason = "a contract function owns its parameters")]

use super::*;
use crate::{Context, Functions, KeyPolicy};

fn put(context: &Context<'_>, key: String, value: String) -> Result<bool, Error> {
    context.put(&key, value.as_bytes())?;
    context.emit("Put", key.as_bytes())?;
    context.exists(&key)
}

fn count(context: &Context<'_>, start: String, end: String) -> Result<u32, Error> {
    let mut number = 0;
    for pair in context.range(&start, &end)? {
        pair?;
        number += 1;
    }
    Ok(number)
}

fn refuse(context: &Context<'_>) -> Result<(), Error> {
    context.put("left", b"behind")?;
    Err(Error::new("no"))
}

fn delegate(context: &Context<'_>, key: String) -> Result<Vec<u8>, Error> {
    context.call("other", &["Put", &key, "x"])
}

fn secret(context: &Context<'_>) -> Result<(), Error> {
    let value = context.transient("value").ok_or("the transient data has no value")?;
    context.private("both").put("secret", &value)
}

fn contract() -> Functions<'static> {
    Functions::new()
        .function("Put", put)
        .function("Count", count)
        .function("Refuse", refuse)
        .function("Delegate", delegate)
        .function("Secret", secret)
}

#[test]
fn a_transaction_does_not_see_its_own_writes() {
    let mut ledger = MemoryLedger::new();
    assert_eq!(ledger.submit(&contract(), "Put", &["a", "1"]).unwrap(), b"false");
    assert_eq!(ledger.submit(&contract(), "Put", &["a", "1"]).unwrap(), b"true");
}

#[test]
fn an_evaluated_function_leaves_nothing_behind() {
    let ledger = MemoryLedger::new();
    ledger.evaluate(&contract(), "Put", &["a", "1"]).unwrap();
    assert_eq!(ledger.value("a"), None);
}

#[test]
fn a_refused_transaction_leaves_nothing_behind() {
    let mut ledger = MemoryLedger::new();
    assert_eq!(ledger.submit(&contract(), "Refuse", &[]).unwrap_err().message(), "no");
    assert_eq!(ledger.value("left"), None);
}

#[test]
fn a_range_spans_batches_and_leaves_composite_keys_out() {
    let mut ledger = MemoryLedger::new();
    for number in 0..250 {
        ledger.submit(&contract(), "Put", &[&format!("key{number:03}"), "1"]).unwrap();
    }
    ledger.submit(&contract(), "Put", &["\u{0}owner\u{0}tom\u{0}", "1"]).unwrap();
    assert_eq!(ledger.evaluate(&contract(), "Count", &["", ""]).unwrap(), b"250");
    assert_eq!(ledger.evaluate(&contract(), "Count", &["key100", "key200"]).unwrap(), b"100");
}

#[test]
fn a_called_chaincode_writes_its_own_keys_in_the_same_transaction_and_its_event_is_dropped() {
    let mut ledger = MemoryLedger::new();
    ledger.install("other", Rc::new(contract()));
    ledger.submit(&contract(), "Delegate", &["k"]).unwrap();
    assert_eq!(ledger.value("k"), None);
    assert_eq!(ledger.values.keys().next().unwrap().0, "other");
    assert!(ledger.events().is_empty());
}

#[test]
fn endless_calls_are_refused() {
    let mut ledger = MemoryLedger::new();
    let again = |context: &Context<'_>| context.call("other", &["Again"]);
    ledger.install("other", Rc::new(Functions::new().function("Again", again)));
    let error = ledger.submit(&Functions::new().function("Again", again), "Again", &[]).unwrap_err();
    assert_eq!(error.message(), "chaincodes call each other more than 8 deep");
}

#[test]
fn private_values_come_from_the_transient_data() {
    let mut ledger = MemoryLedger::new();
    assert!(ledger.submit(&contract(), "Secret", &[]).is_err());
    ledger.set_transient("value", b"42");
    ledger.submit(&contract(), "Secret", &[]).unwrap();
    assert_eq!(ledger.private_value("both", "secret"), Some(b"42".as_slice()));
}

fn increment(context: &Context<'_>, key: String) -> Result<u32, Error> {
    let next = context.get_json::<u32>(&key)?.unwrap_or(0) + 1;
    context.put_json(&key, &next)?;
    Ok(next)
}

fn total(context: &Context<'_>) -> Result<usize, Error> {
    let keys = context.range("", "")?.collect::<Result<Vec<_>, _>>()?;
    context.put("total", keys.len().to_string().as_bytes())?;
    Ok(keys.len())
}

fn past(context: &Context<'_>, key: String) -> Result<String, Error> {
    let changes = context.history(&key)?.collect::<Result<Vec<_>, _>>()?;
    let shown = |change: &crate::Modification| {
        if change.is_delete {
            "deleted".to_owned()
        } else {
            String::from_utf8_lossy(&change.value).into_owned()
        }
    };
    Ok(changes.iter().map(shown).collect::<Vec<_>>().join(" < "))
}

fn page_then_write(context: &Context<'_>) -> Result<(), Error> {
    context.page("", "", 10, "")?;
    context.put("a", b"1")
}

fn protect(context: &Context<'_>, key: String) -> Result<(), Error> {
    context.set_key_policy(&key, &KeyPolicy::any_of(["Org2MSP"]))
}

fn delete(context: &Context<'_>, key: String) -> Result<(), Error> {
    context.delete(&key)
}

fn more() -> Functions<'static> {
    contract()
        .function("Increment", increment)
        .function("Total", |context: &Context<'_>| total(context).map(|number| number as u64))
        .function("Past", past)
        .function("PageThenWrite", page_then_write)
        .function("Protect", protect)
        .function("Delete", delete)
}

#[test]
fn of_two_transactions_that_read_the_same_key_the_second_becomes_invalid() {
    let mut ledger = MemoryLedger::new();
    let (first, second) = (
        ledger.simulate(&more(), "Increment", &["n"]).unwrap(),
        ledger.simulate(&more(), "Increment", &["n"]).unwrap(),
    );
    ledger.commit(first).unwrap();
    assert_eq!(ledger.commit(second).unwrap_err(), Conflict::Read { key: "n".to_owned() });
    assert_eq!(ledger.value("n"), Some(b"1".as_slice()));
}

#[test]
fn a_range_that_has_grown_makes_its_reader_invalid() {
    let mut ledger = MemoryLedger::new();
    ledger.submit(&more(), "Put", &["a", "1"]).unwrap();
    let reader = ledger.simulate(&more(), "Total", &[]).unwrap();
    ledger.submit(&more(), "Put", &["b", "1"]).unwrap();
    assert!(matches!(ledger.commit(reader), Err(Conflict::Phantom { .. })));
    let reader = ledger.simulate(&more(), "Total", &[]).unwrap();
    ledger.commit(reader).unwrap();
    assert_eq!(ledger.value("total"), Some(b"2".as_slice()));
}

#[test]
fn the_history_of_a_key_begins_with_its_last_change() {
    let mut ledger = MemoryLedger::new();
    ledger.submit(&more(), "Put", &["a", "1"]).unwrap();
    ledger.submit(&more(), "Put", &["a", "2"]).unwrap();
    ledger.submit(&more(), "Delete", &["a"]).unwrap();
    assert_eq!(ledger.evaluate(&more(), "Past", &["a"]).unwrap(), b"deleted < 2 < 1");
}

#[test]
fn a_transaction_that_asked_for_a_page_may_not_write() {
    let error = MemoryLedger::new().submit(&more(), "PageThenWrite", &[]).unwrap_err();
    assert_eq!(
        error.message(),
        "unsuppored transaction. Transaction has already performed a paginated query. Writes are not allowed"
    );
}

#[test]
fn a_keys_policy_is_kept() {
    let mut ledger = MemoryLedger::new();
    ledger.submit(&more(), "Protect", &["a"]).unwrap();
    assert_eq!(ledger.key_policy("a").unwrap(), KeyPolicy::any_of(["Org2MSP"]).encode().unwrap());
}

#[test]
fn keys_and_values_have_the_peers_limits() {
    let mut ledger = MemoryLedger::new();
    let error = ledger.submit(&more(), "Put", &[&"k".repeat(20_000), "1"]).unwrap_err();
    assert_eq!(error.message(), "the key has 20000 bytes, and may have 16384");
    assert!(ledger.submit(&more(), "Put", &["", "1"]).is_err());
}
