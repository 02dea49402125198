//! Judging blocks ahead and on all cores gives what judging one transaction after the other gives, whatever the blocks
//! change for their successors: configuration, chaincode definitions, policies of keys, the table of identities. Without such
//! a table a reference judge says the same that shares no rule with the real one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use consort_channel_config::REGISTERED_IDENTITIES;
use consort_ledger::state::{Entry, KeyRange, Space, StateReader};
use consort_ledger::{Ledger, StateSnapshot, TxSimulator, ValidatedBlock};
use consort_msp::SigningIdentity;
use consort_protos::block::{commit_hash, envelopes, flags};
use consort_protos::consort::identities::{RegisterArgs, RenewArgs, RetireArgs};
use consort_protos::entry::EntryNumber;
use consort_protos::fabric::common::{self, Block, Envelope, Policy, policy};
use consort_protos::fabric::protos::CollectionConfigPackage;
use consort_protos::ids::BlockNumber;
use prost::Message;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::block::{self, Position};
use super::reference_tests::{Key, Reference, Value};
use super::structure::{self, Opened};
use super::{feed, validator};
use crate::channel::{ChannelHandle, CommittedBlock};
use crate::identities::table::Table;
use crate::identities::testing::{change, number_of};
use crate::testing::{
    JoinedPeer, Network, Organisation, TransactionBuilder, channel_policy, collections, spelled_policy,
};

/// Blocks of one history.
const BLOCKS: usize = 24;
/// Transactions of a block at most.
const TRANSACTIONS_MAX: usize = 8;
/// Entries that the transactions name.
const ENTRIES: u64 = 5;
/// Keys that the transactions meet at.
const KEYS: [&str; 5] = ["a", "b", "c", "d", "e"];

/// A growing channel, judged one transaction after the other, and the dice that make it grow.
pub(super) struct History {
    pub(super) network: Network,
    pub(super) peer: JoinedPeer,
    /// The second judge, where signers are named by their certificates only.
    reference: Option<Reference>,
    /// What it says about each block.
    codes: Vec<Vec<u8>>,
    pub(super) blocks: Vec<Block>,
    before: StateSnapshot,
    dice: StdRng,
    one_thread: rayon::ThreadPool,
    org1: Arc<Signers>,
    org2: Arc<Signers>,
}

/// Those of an organisation who change entries, and are named by them.
struct Signers {
    admin: Arc<SigningIdentity>,
    peer: Arc<SigningIdentity>,
    client: Arc<SigningIdentity>,
}

impl Signers {
    fn of(organisation: &Organisation) -> Arc<Self> {
        let (peer, client) = (Arc::clone(&organisation.peer), Arc::clone(&organisation.client));
        Arc::new(Self { admin: organisation.identity("admin"), peer, client })
    }
}

impl History {
    pub(super) fn new(seed: u64, by_number: bool) -> Self {
        let capabilities: &[&str] = if by_number { &[REGISTERED_IDENTITIES] } else { &[] };
        let network = Network::with(&[], capabilities);
        let signers = [
            (&network.org1.peer, "peer"),
            (&network.org2.peer, "peer"),
            (&network.org1.client, "client"),
            (&network.orderer.orderer, "orderer"),
        ];
        let peer = JoinedPeer::new(&network.genesis);
        let before = peer.channel.ledger().snapshot();
        let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
        let mut history = Self {
            reference: (!by_number).then(|| Reference::new(&network.genesis, &signers)),
            codes: Vec::new(),
            org1: Signers::of(&network.org1),
            org2: Signers::of(&network.org2),
            network,
            peer,
            blocks: Vec::new(),
            before,
            dice: StdRng::seed_from_u64(seed),
            one_thread,
        };
        let policy = channel_policy("/Channel/Application/Endorsement");
        let definition = history.network.definition("basic", &policy, &collections()).build();
        let other = spelled_policy("OR('Org2MSP.peer')");
        let other = history.network.definition("other", &other, &collections()).build();
        history.append(vec![definition, other]);
        history
    }

    fn append(&mut self, envelopes: Vec<Bytes>) {
        let last = self.blocks.last().unwrap_or(&self.network.genesis);
        let block = self.network.block_after(last, envelopes);
        self.before = self.peer.channel.ledger().snapshot();
        self.one_thread.install(|| commit_serially(&self.peer.channel, block.clone()));
        if let Some(reference) = &mut self.reference {
            self.codes.push(reference.commit(&block));
        }
        self.blocks.push(block);
    }

    pub(super) fn grow(&mut self) {
        if self.dice.random_range(0..6) == 0 {
            let text = self.pick(&[
                "AND('Org1MSP.peer', 'Org2MSP.peer')",
                "OR('Org1MSP.peer', 'Org2MSP.peer')",
                "OR('Org2MSP.peer')",
            ]);
            let bundle = self.peer.channel.bundle();
            let sequence = bundle.sequence();
            let envelope = self
                .network
                .configuration(&bundle, |root| set_endorsement(root, text, sequence.is_multiple_of(2)));
            return self.append(vec![envelope]);
        }
        let mut envelopes: Vec<Bytes> = Vec::new();
        for _ in 0..self.dice.random_range(1..=TRANSACTIONS_MAX) {
            let envelope = match self.dice.random_range(0..14) {
                0 | 5 => self.definition(),
                1 => self.repeated(&envelopes),
                2 => self.forged(),
                6 => {
                    let (key, value) =
                        (self.pick(&KEYS), Bytes::from(format!("{}", self.dice.random::<u32>())));
                    envelopes
                        .push(self.endorsed_by_all(|tx| tx.put("basic", key, value).expect("may write")));
                    self.endorsed_by_all(|tx| {
                        let range = tx.range("basic", KEYS[0], "");
                        tx.next_batch(range).expect("readable");
                    })
                }
                3 | 4 if self.reference.is_none() => self.change_of_entries(),
                _ => self.invocation().build(),
            };
            envelopes.push(envelope);
        }
        self.append(envelopes);
    }

    fn pick<T: Copy>(&mut self, choice: &[T]) -> T {
        choice[self.dice.random_range(0..choice.len())]
    }

    fn definition(&mut self) -> Bytes {
        let policy = match self.dice.random_range(0..3) {
            0 => channel_policy("/Channel/Application/Endorsement"),
            1 => spelled_policy("OR('Org1MSP.peer')"),
            _ => spelled_policy("OR('Org2MSP.peer')"),
        };
        let collections = if self.dice.random() { collections() } else { CollectionConfigPackage::default() };
        let name = self.pick(&["basic", "other", "late"]);
        self.network.definition(name, &policy, &collections).build()
    }

    fn repeated(&mut self, envelopes: &[Bytes]) -> Bytes {
        let last = self.blocks.last().map(consort_protos::block::envelopes).unwrap_or_default();
        let known: Vec<Bytes> = envelopes.iter().chain(last).cloned().collect();
        let index = self.dice.random_range(0..known.len());
        // A configuration cannot share a block with others.
        let opened = consort_protos::transaction::Transaction::open(known[index].clone());
        match opened {
            Ok(transaction) if transaction.endorser().is_some() => known[index].clone(),
            _ => self.invocation().build(),
        }
    }

    fn forged(&mut self) -> Bytes {
        let mut builder = self.invocation();
        builder.change_envelope = Some(Box::new(|envelope: &mut Envelope| {
            let mut signature = envelope.signature.to_vec();
            let last = signature.len() - 1;
            signature[last] ^= 1;
            envelope.signature = signature.into();
        }));
        builder.build()
    }

    /// Registers, renews or retires an entry, over the present state or over that of a block ago. What cannot be done now
    /// becomes an invocation.
    fn change_of_entries(&mut self) -> Bytes {
        let old = self.dice.random_range(0..5) == 0;
        let snapshot = if old { self.before.clone() } else { self.peer.channel.ledger().snapshot() };
        let organisation = if self.dice.random() { Arc::clone(&self.org1) } else { Arc::clone(&self.org2) };
        let number = self.dice.random_range(0..ENTRIES);
        let signer = if self.dice.random() { &organisation.peer } else { &organisation.client };
        let certificate = Bytes::from(signer.certificate().pem().into_bytes());
        let (name, argument) = match self.dice.random_range(0..6) {
            0 | 1 => ("Retire", RetireArgs { number }.encode_to_vec()),
            2 => ("Renew", RenewArgs { number, certificate, bls: None }.encode_to_vec()),
            _ => ("Register", RegisterArgs { certificate, bls: None }.encode_to_vec()),
        };
        let arguments = [Bytes::from(name), argument.into()];
        let changed = change(&self.peer.channel, snapshot, &organisation.admin, &arguments);
        match changed {
            Some(builder) => builder.endorsed_by(&[&organisation.peer]).build(),
            None => self.invocation().build(),
        }
    }

    /// Names endorsers by numbers, which may or may not be theirs.
    fn some_by_number(&mut self, builder: &mut TransactionBuilder) {
        let numbers: Vec<Option<u64>> = builder
            .endorsers
            .iter()
            .map(|endorser| {
                let by_number = self.dice.random_range(0..2) == 0;
                by_number.then(|| number_of(&self.peer.channel, endorser)).flatten()
            })
            .collect();
        let wrong = (self.dice.random_range(0..20) == 0).then(|| self.dice.random_range(0..ENTRIES));
        builder.change_endorsements = Some(Box::new(move |endorsements| {
            for (endorsement, number) in endorsements.iter_mut().zip(&numbers) {
                if let Some(number) = wrong.or(*number).and_then(EntryNumber::new) {
                    endorsement.endorser = number.serialize();
                }
            }
        }));
    }

    /// A transaction over the present state whose endorsements satisfy every policy that occurs here.
    fn endorsed_by_all(&self, step: impl FnOnce(&mut TxSimulator)) -> Bytes {
        let mut simulator = TxSimulator::new(self.peer.channel.ledger().snapshot(), "directed");
        step(&mut simulator);
        let endorsers = [&self.network.org1.peer, &self.network.org2.peer];
        let builder = self.network.transaction("basic").endorsed_by(&endorsers);
        builder.set(simulator.finish().rwset).build()
    }

    /// Runs a few random steps over the present state, or over that of a block ago.
    fn invocation(&mut self) -> TransactionBuilder {
        let old = self.dice.random_range(0..5) == 0;
        let snapshot = if old { self.before.clone() } else { self.peer.channel.ledger().snapshot() };
        let mut simulator = TxSimulator::new(snapshot, "random");
        let chaincode = self.pick(&["basic", "basic", "basic", "other", "late"]);
        for _ in 0..self.dice.random_range(1..=3) {
            // Chaincodes call each other now and then.
            let namespace = if self.dice.random_range(0..6) == 0 { "other" } else { chaincode };
            self.step(&mut simulator, namespace);
        }
        let (org1, org2) = (Arc::clone(&self.network.org1.peer), Arc::clone(&self.network.org2.peer));
        let endorsers: &[&Arc<SigningIdentity>] = match self.dice.random_range(0..4) {
            0 => &[&org1],
            1 => &[&org2],
            _ => &[&org1, &org2],
        };
        let mut builder =
            self.network.transaction(chaincode).endorsed_by(endorsers).set(simulator.finish().rwset);
        if self.reference.is_some() {
            return builder;
        }
        self.some_by_number(&mut builder);
        let creator = number_of(&self.peer.channel, &builder.creator).and_then(EntryNumber::new);
        if let (Some(number), true) = (creator, self.dice.random()) {
            builder.change_signature_header =
                Some(Box::new(move |header| header.creator = number.serialize()));
        }
        builder
    }

    fn step(&mut self, simulator: &mut TxSimulator, namespace: &str) {
        let key = self.pick(&KEYS);
        let collection = self.pick(&["own", "own", "_implicit_org_Org2MSP", "none"]);
        let value = Bytes::from(format!("{}", self.dice.random_range(0..1000)));
        match self.dice.random_range(0..14) {
            0 => drop(simulator.get(namespace, key).expect("readable")),
            1 => simulator.delete(namespace, key).expect("may write"),
            2 | 3 => {
                let entries = self.key_policy();
                simulator.put_metadata(namespace, key, entries).expect("may write");
            }
            4 => {
                let entries = self.key_policy();
                simulator.put_private_metadata(namespace, collection, key, entries).expect("may write");
            }
            5 | 6 => {
                let range = simulator.range(namespace, KEYS[0], "");
                simulator.next_batch(range).expect("readable");
            }
            7 => simulator.put_private(namespace, collection, key, value).expect("may write"),
            8 => simulator.delete_private(namespace, collection, key).expect("may write"),
            9 => drop(simulator.private_hash(namespace, collection, key).expect("readable")),
            _ => simulator.put(namespace, key, value).expect("may write"),
        }
    }

    /// The metadata that give a key a policy of its own, or take it away.
    fn key_policy(&mut self) -> BTreeMap<String, Bytes> {
        let text = self.pick(&["", "OR('Org1MSP.peer')", "OR('Org2MSP.peer')"]);
        let entry = (!text.is_empty()).then(|| {
            let policy = consort_msp::policy::parse(text).expect("a policy").encode_to_vec();
            ("VALIDATION_PARAMETER".to_owned(), policy.into())
        });
        entry.into_iter().collect()
    }
}

/// Sets the default endorsement policy. The capability list stays; `twice` writes an equal policy in another form, so that
/// there is always a difference.
fn set_endorsement(root: &mut common::ConfigGroup, text: &str, twice: bool) {
    let application = root.groups.get_mut("Application").expect("an application group");
    let mut envelope = consort_msp::policy::parse(text).expect("a policy");
    if twice {
        let again = envelope.identities[0].clone();
        envelope.identities.push(again);
    }
    let entry = application.policies.get_mut("Endorsement").expect("the policy");
    entry.policy =
        Some(Policy { r#type: policy::PolicyType::Signature as i32, value: envelope.encode_to_vec().into() });
}

/// Nothing ahead, nothing beside: the whole of a block after the whole of the block before it.
fn commit_serially(channel: &ChannelHandle, block: Block) {
    let (bundle, ledger) = (channel.bundle(), channel.ledger());
    let position = Position { next: ledger.height(), last_hash: ledger.last_hash().unwrap_or_default() };
    block::verify(&bundle, &position, &block).expect("the next block");
    let snapshot = ledger.snapshot();
    let table = Table::new(&bundle, &snapshot);
    let alone = |entry| structure::open(&bundle, &table, std::slice::from_ref(entry));
    let mut transactions: Vec<Opened> = envelopes(&block).iter().flat_map(alone).collect();
    let seen = table.into_versions();
    let outcome = validator::validate(&bundle, ledger, &mut transactions, &seen).expect("decidable");
    let opened: Vec<_> = transactions.iter().map(|transaction| transaction.transaction().cloned()).collect();
    let validated = ValidatedBlock::new(block, opened.clone(), outcome.codes).expect("judged");
    let committed = ledger.commit(validated).expect("committed");
    let committed = CommittedBlock::new(Arc::new(committed.block), opened, committed.codes);
    channel.publish(Arc::new(committed), outcome.bundle.map(Arc::new));
}

fn state(ledger: &Ledger) -> Vec<Entry> {
    let snapshot = ledger.snapshot();
    let spaces = [Space::Public, Space::Hashed, Space::Private];
    spaces
        .into_iter()
        .flat_map(|space| {
            let scan = snapshot.scan(&KeyRange::all(space)).expect("readable");
            scan.collect::<Result<Vec<_>, _>>().expect("readable")
        })
        .collect()
}

/// The public and hashed state, as the reference keeps it.
fn shared_state(ledger: &Ledger) -> BTreeMap<Key, Value> {
    let entries = state(ledger).into_iter().filter(|(key, _)| key.space() != Space::Private);
    let entries = entries.map(|(key, value)| {
        let name = (key.namespace(), key.collection(), Bytes::copy_from_slice(key.key()));
        let metadata = value.metadata_entries().expect("readable").into_iter().collect();
        (name, (value.value, metadata, value.version))
    });
    entries.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn judging_ahead_and_in_parallel_equals_judging_serially() {
    let histories =
        std::env::var("CONSORT_TEST_HISTORIES").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    for by_number in [false, true] {
        let mut seen = BTreeSet::new();
        for seed in 0..histories {
            seen.extend(judge_in_all_ways(seed, by_number).await);
        }
        let seen: Vec<u8> = seen.into_iter().collect();
        assert_eq!(seen, [0, 4, 9, 10, 11, 12, 25], "every way to fail occurred");
    }
}

/// Compares what the pipeline, the validator on one thread and the reference make of a history; returns the codes that occurred.
async fn judge_in_all_ways(seed: u64, by_number: bool) -> BTreeSet<u8> {
    let mut history = History::new(seed, by_number);
    for _ in 0..BLOCKS {
        history.grow();
    }
    let pipelined = JoinedPeer::new(&history.network.genesis);
    feed(&pipelined.channel, history.blocks.clone()).await;
    let (serial, ours) = (history.peer.channel.ledger(), pipelined.channel.ledger());
    let mut seen = BTreeSet::new();
    for number in (1..serial.height()).map(BlockNumber::new) {
        let expected = serial.block(number).expect("readable").expect("stored");
        let found = ours.block(number).expect("readable").expect("stored");
        if let Some(plain) = history.codes.get(number.get() as usize - 1) {
            assert_eq!(
                flags(&found),
                Some(&plain[..]),
                "codes of block {number} by the reference, seed {seed}"
            );
        }
        assert_eq!(flags(&found), flags(&expected), "codes of block {number}, seed {seed}");
        assert_eq!(commit_hash(&found), commit_hash(&expected), "hash of block {number}, seed {seed}");
        seen.extend(flags(&found).expect("codes").iter().copied());
    }
    assert_eq!(state(ours), state(serial), "state, seed {seed}");
    if let Some(reference) = &history.reference {
        assert_eq!(shared_state(ours), reference.state, "state by the reference, seed {seed}");
    }
    seen
}
