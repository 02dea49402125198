//! Private values whose hashes carry a salt: what an outsider can find out, and what members hold.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod blocks;

use std::collections::BTreeMap;

use consort_crypto::hash::{HashAlgorithm, sha256};
use consort_crypto::preimage::PrivateWrite;
use consort_ledger::{CollectionTerms, Ledger, Simulation, TxSimulator, state::MemoryState};
use consort_protos::ids::{Height, TxNumber};
use consort_protos::rwset::{HashedCollection, PrivateCollection, Write};

use blocks::CHAINCODE;

const COLLECTION: &str = "secrets";
/// One of a million.
const SECRET: &str = "735211";

fn salt(secret: &[u8]) -> [u8; 32] {
    let write = PrivateWrite {
        channel: "channel",
        tx_id: "tx",
        namespace: CHAINCODE,
        collection: COLLECTION,
        key: "price",
    };
    HashAlgorithm::Sha256.private_salt(secret, &write)
}

fn simulate(ledger: &Ledger, secret: Option<&[u8]>) -> Simulation {
    let mut simulator = TxSimulator::new(ledger.snapshot(), "tx");
    match secret {
        Some(secret) => {
            simulator
                .put_private_salted(CHAINCODE, COLLECTION, "price", SECRET.into(), salt(secret))
                .unwrap();
        }
        None => simulator.put_private(CHAINCODE, COLLECTION, "price", SECRET.into()).unwrap(),
    }
    simulator.finish()
}

fn ledger() -> (tempfile::TempDir, Ledger) {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::create(folder.path(), &blocks::genesis()).unwrap();
    (folder, ledger)
}

/// What an outsider sees.
fn public(simulation: &Simulation) -> HashedCollection {
    simulation.rwset.namespaces[0].collections[0].clone()
}

/// Tries all values of six digits against the hash of the value and against that of the whole set, in which key and form are known.
fn guess(seen: &HashedCollection) -> Vec<String> {
    let write =
        |value: &'static [u8]| Write { key: "price".to_owned(), is_delete: false, value: value.into() };
    let form = PrivateCollection::new(COLLECTION, vec![write(b"######")], Vec::new()).bytes().to_vec();
    let place = form.windows(6).position(|window| window == b"######").unwrap();
    let mut set = form;
    let mut found = Vec::new();
    for number in 0..1_000_000_u32 {
        let text = format!("{number:06}");
        set[place..place + 6].copy_from_slice(text.as_bytes());
        if seen.hashed_writes[0].value_hash[..] == sha256(text.as_bytes()) {
            found.push(format!("value {text}"));
        }
        if seen.pvt_rwset_hash[..] == sha256(&set) {
            found.push(format!("set {text}"));
        }
    }
    found
}

#[test]
fn one_of_a_million_values_is_found_behind_a_plain_hash_and_not_behind_a_salted_one() {
    let (_folder, ledger) = ledger();
    let plain = public(&simulate(&ledger, None));
    let salted = public(&simulate(&ledger, Some(&[7; 32])));
    assert_eq!(guess(&plain), [format!("value {SECRET}"), format!("set {SECRET}")]);
    assert_eq!(guess(&salted), [] as [String; 0]);
    assert_eq!(plain.hashed_writes[0].key_hash, salted.hashed_writes[0].key_hash, "keys are found by all");
}

#[test]
fn endorsers_with_the_same_secret_agree_and_others_do_not() {
    let (_folder, ledger) = ledger();
    let (one, same) = (simulate(&ledger, Some(&[7; 32])), simulate(&ledger, Some(&[7; 32])));
    assert_eq!(one, same);
    let other = simulate(&ledger, Some(&[8; 32]));
    assert_ne!(one.rwset, other.rwset);
    let expected = HashAlgorithm::Sha256.hash_parts(&[&salt(&[7; 32]), SECRET.as_bytes()]);
    assert_eq!(public(&one).hashed_writes[0].value_hash[..], expected);
}

fn commit(ledger: &Ledger, simulation: &Simulation, given: bool) {
    let envelope = blocks::envelope(&format!("{}", ledger.height()), &simulation.rwset);
    let block = blocks::next_block(ledger, vec![envelope]);
    let private = given.then(|| (TxNumber::new(0), simulation.private.clone()));
    let terms = CollectionTerms { member: true, blocks_to_live: 0 };
    let terms = BTreeMap::from([((CHAINCODE.to_owned(), COLLECTION.to_owned()), terms)]);
    let block = blocks::accepted(block).with_private(private.into_iter().collect()).with_terms(terms);
    ledger.commit(block).unwrap();
}

#[test]
fn members_read_salted_values_also_those_that_come_late() {
    let (_folder, ledger) = ledger();
    let first = simulate(&ledger, Some(&[7; 32]));
    commit(&ledger, &first, true);
    let read =
        |ledger: &Ledger| TxSimulator::new(ledger.snapshot(), "read").private(CHAINCODE, COLLECTION, "price");
    assert_eq!(read(&ledger).unwrap().unwrap(), SECRET);
    let second = simulate(&ledger, Some(&[8; 32]));
    commit(&ledger, &second, false);
    assert!(read(&ledger).unwrap_err().to_string().contains("is not available"), "the old salt does not fit");
    let set = second.private.collection(CHAINCODE, COLLECTION).unwrap();
    let travelled = PrivateCollection::decode(COLLECTION, set.bytes().clone()).unwrap();
    assert!(ledger.supply_private(Height::new(2, 0), CHAINCODE, &travelled).unwrap());
    assert_eq!(read(&ledger).unwrap().unwrap(), SECRET);
    assert_eq!(ledger.examine(&MemoryState::new(), |_| {}).unwrap().faults, []);
}
