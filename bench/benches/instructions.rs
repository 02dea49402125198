//! The work whose instructions `consort-bench` counts, one part per run.
//!
//! `instructions <part>` prepares, then calls the part a fixed number of times from functions below the module `counted_work`, which is where
//! the counter (`valgrind --tool=callgrind --toggle-collect='*counted_work*'`) counts, and prints the number of calls. Instructions do not
//! depend on what else the machine does; they do on the compiler and, a little, on random signatures.

#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "a benchmark stops where a test would, and shares blocks with tests"
)]

#[path = "../../ledger/tests/blocks/mod.rs"]
mod blocks;
#[path = "../../msp/benches/organisations/mod.rs"]
mod organisations;

use bytes::Bytes;
use consort_crypto::key::PrivateKey;
use consort_ledger::state::{MemoryState, StateKey, StateStore as _, VersionedValue};
use consort_protos::fabric::common::{Block, BlockHeader};
use consort_protos::ids::Height;
use organisations::Organisations;
use prost::Message as _;

/// What is counted. No closures in here: the counter would take one, whose name holds this module's, for the end of the work.
mod counted_work {
    use std::hint::black_box;
    use std::sync::Arc;

    use bytes::Bytes;
    use consort_crypto::key::{PublicKey, SignatureCheck};
    use consort_crypto::preimage;
    use consort_ledger::mvcc;
    use consort_ledger::state::MemoryState;
    use consort_msp::policy::Policy;
    use consort_msp::{Identity, MspManager};
    use consort_protos::fabric::common::BlockHeader;
    use consort_protos::fabric::protos::TxValidationCode;
    use consort_protos::ids::BlockNumber;
    use consort_protos::transaction::Transaction;

    #[inline(never)]
    pub(crate) fn check(key: &PublicKey, message: &[u8], signature: &[u8]) {
        black_box(key.verify(black_box(message), signature)).expect("the signature is right");
    }

    #[inline(never)]
    pub(crate) fn check_together(signed: &[(&PublicKey, &[u8], &[u8])]) {
        let mut checks = Vec::with_capacity(signed.len());
        for (key, message, signature) in signed {
            checks.push(key.begin_check(black_box(message), signature));
        }
        SignatureCheck::settle(&mut checks);
        for check in checks {
            check.verdict().expect("the signature is right");
        }
    }

    #[inline(never)]
    pub(crate) fn policy(policy: &Policy, msps: &MspManager, signers: &[Bytes]) {
        let identities: Vec<Arc<Identity>> = super::organisations::read(msps, signers);
        black_box(policy.evaluate_identities(&identities)).expect("five peers satisfy it");
    }

    #[inline(never)]
    pub(crate) fn open(envelope: &Bytes) {
        black_box(Transaction::open(black_box(envelope).clone())).expect("it is well formed");
    }

    #[inline(never)]
    pub(crate) fn header(header: &BlockHeader) {
        black_box(preimage::block_hash(black_box(header)));
    }

    #[inline(never)]
    pub(crate) fn versions(
        transactions: &[Option<Arc<Transaction>>],
        codes: &[TxValidationCode],
        state: &MemoryState,
    ) {
        black_box(mvcc::validate(BlockNumber::new(2), black_box(transactions), codes, state))
            .expect("a readable state");
    }
}

/// Checks by one key before it has its large table.
const WARM: u32 = 600;
/// Transactions of the block whose versions are checked.
const TRANSACTIONS: u32 = 500;

fn main() {
    let part = std::env::args().nth(1).unwrap_or_default();
    let calls: u32 = match part.as_str() {
        "check-of-a-known-signer" => check(200),
        "check-of-a-known-signer-together" => check_together(10),
        "policy-of-five-organisations" => policy(200),
        "opening-a-transaction" => open(200),
        "hash-of-a-block-header" => header(1_000),
        "versions-of-a-block-of-500" => versions(2),
        // Cargo asks each benchmark to run; this one only runs when told what.
        _ => return,
    };
    println!("{calls}");
}

fn check(calls: u32) -> u32 {
    let key = PrivateKey::generate_p256().unwrap();
    // Different signatures, as their numbers decide how many steps a check takes.
    let message = [7; 300];
    let signatures: Vec<Vec<u8>> = (0..calls).map(|_| key.sign(&message).unwrap()).collect();
    (0..WARM).for_each(|_| key.public_key().verify(&message, &signatures[0]).unwrap());
    signatures.iter().for_each(|signature| counted_work::check(key.public_key(), &message, signature));
    calls
}

/// Checks per batch: those of eight transactions with two endorsements.
const TOGETHER: usize = 24;

/// Counted per signature, as the check alone.
fn check_together(batches: u32) -> u32 {
    let key = PrivateKey::generate_p256().unwrap();
    let message = [7; 300];
    let signatures: Vec<Vec<u8>> =
        (0..TOGETHER as u32 * batches).map(|_| key.sign(&message).unwrap()).collect();
    (0..WARM).for_each(|_| key.public_key().verify(&message, &signatures[0]).unwrap());
    let signed: Vec<(_, &[u8], &[u8])> =
        signatures.iter().map(|signature| (key.public_key(), &message[..], &signature[..])).collect();
    signed.chunks(TOGETHER).for_each(counted_work::check_together);
    TOGETHER as u32 * batches
}

fn policy(calls: u32) -> u32 {
    let Organisations { msps, signers, policy } = Organisations::five();
    drop(organisations::read(&msps, &signers));
    (0..calls).for_each(|_| counted_work::policy(&policy, &msps, &signers));
    calls
}

/// The first block of the golden channel whose first transaction is an endorsed one with two endorsements.
fn golden() -> Block {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../protos/tests/golden/fabric-channel/blocks");
    let read = |number| {
        let bytes = std::fs::read(format!("{folder}/{number:04}.pb")).unwrap();
        Block::decode(Bytes::from(bytes)).unwrap()
    };
    let endorsed = |block: &Block| {
        blocks::open(block).into_iter().flatten().next().is_some_and(|transaction| {
            transaction.endorser().is_some_and(|endorser| endorser.endorsements.len() == 2)
        })
    };
    (0..).map(read).find(endorsed).unwrap()
}

fn open(calls: u32) -> u32 {
    let envelope = golden().data.unwrap().data[0].clone();
    (0..calls).for_each(|_| counted_work::open(&envelope));
    calls
}

fn header(calls: u32) -> u32 {
    let header: BlockHeader = golden().header.unwrap();
    (0..calls).for_each(|_| counted_work::header(&header));
    calls
}

/// Each transaction reads and writes two keys of its own, as a transfer between accounts does.
fn versions(calls: u32) -> u32 {
    let state = MemoryState::new();
    let keys = |index: u32| [2 * index, 2 * index + 1].map(|number| format!("account{number:06}"));
    let changes = (0..TRANSACTIONS).flat_map(|index| {
        let value = VersionedValue {
            value: Bytes::from(format!("{index:0100}")),
            metadata: Bytes::new(),
            version: Height::new(1, index),
        };
        keys(index).map(|key| (StateKey::public(blocks::CHAINCODE, &key), Some(value.clone())))
    });
    state.apply(&changes.collect::<Vec<_>>(), Height::new(1, TRANSACTIONS - 1)).unwrap();
    let envelopes = (0..TRANSACTIONS).map(|index| {
        let reads = keys(index).iter().map(|key| blocks::read(key, Some((1, index)))).collect();
        let writes = keys(index).iter().map(|key| blocks::write(key, &format!("{index:0100}"))).collect();
        blocks::envelope(&format!("2/{index}"), &blocks::results(reads, writes))
    });
    let block = blocks::accepted(blocks::block(2, Bytes::new(), envelopes.collect()));
    (0..calls).for_each(|_| counted_work::versions(block.transactions(), block.codes(), &state));
    calls
}
