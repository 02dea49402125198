//! Random histories of a channel, for whoever wants to judge them: everything that a block can change for its successors, and
//! most of what can be wrong, mixed by dice.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use consort_channel_config::{AGGREGATED_ENDORSEMENTS, REGISTERED_IDENTITIES};
use consort_crypto::bls::{self, Owner, SecretKey, Signature};
use consort_ledger::{StateSnapshot, TxSimulator};
use consort_msp::SigningIdentity;
use consort_protos::consort::endorsement::AggregateEndorsement;
use consort_protos::consort::identities::{BlsKey, Entry, RegisterArgs, RenewArgs, RetireArgs, Status};
use consort_protos::entry::EntryNumber;
use consort_protos::fabric::common::{self, Block, Envelope, Policy, policy};
use consort_protos::fabric::protos::CollectionConfigPackage;
use consort_protos::signers;
use prost::Message;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::reference_tests::{Reference, Signer};
use super::serial_tests::commit_serially;
use crate::identities::IDENTITIES;
use crate::identities::state::entry_key;
use crate::identities::testing::change;
use crate::testing::configuration::{demand, revoke};
use crate::testing::{
    CHANNEL, JoinedPeer, Network, Organisation, TransactionBuilder, channel_policy, collections,
    spelled_policy, write, writes,
};

/// Transactions of a block at most.
const TRANSACTIONS_MAX: usize = 8;
/// Peers of each organisation.
const PEERS: usize = 3;
/// Keys that the transactions meet at.
const KEYS: [&str; 5] = ["a", "b", "c", "d", "e"];
/// A policy that nobody satisfies alone, however often he signs.
const TWO_OF_ORG1: &str = "OutOf(2, 'Org1MSP.peer', 'Org1MSP.peer')";
/// No signature at all: the point at infinity, compressed.
const INFINITY: [u8; 48] = {
    let mut bytes = [0; 48];
    bytes[0] = 0xc0;
    bytes
};

/// A growing channel, judged one transaction after the other, and the dice that make it grow.
pub(super) struct History {
    pub(super) network: Network,
    pub(super) peer: JoinedPeer,
    /// The second judge.
    pub(super) reference: Reference,
    /// What it says about each block.
    pub(super) codes: Vec<Vec<u8>>,
    pub(super) blocks: Vec<Block>,
    before: StateSnapshot,
    dice: StdRng,
    /// In which of two forms the next endorsement policy is written.
    twice: bool,
    one_thread: rayon::ThreadPool,
    organisations: [Arc<Members>; 2],
}

/// Those of an organisation who sign.
struct Members {
    msp_id: String,
    admin: Arc<SigningIdentity>,
    peers: Vec<Arc<SigningIdentity>>,
    client: Arc<SigningIdentity>,
    /// Revokes the last peer.
    revocation: Bytes,
}

impl Members {
    fn of(organisation: &Organisation) -> Arc<Self> {
        let mut peers = vec![Arc::clone(&organisation.peer)];
        peers.resize_with(PEERS, || organisation.identity("peer"));
        Arc::new(Self {
            msp_id: organisation.msp_id.to_string(),
            admin: organisation.identity("admin"),
            client: Arc::clone(&organisation.client),
            revocation: organisation.revocation(&peers[PEERS - 1]),
            peers,
        })
    }

    fn signers(&self, peer: &JoinedPeer) -> Vec<Signer> {
        let bundle = peer.channel.bundle();
        let signer = |identity: &Arc<SigningIdentity>, role| Signer::new(identity, role, bundle.msps());
        let mut signers: Vec<Signer> = self.peers.iter().map(|peer| signer(peer, "peer")).collect();
        signers[PEERS - 1].revocation = Some(self.revocation.clone());
        signers.extend([signer(&self.client, "client"), signer(&self.admin, "admin")]);
        signers
    }
}

impl History {
    /// A channel whose application has some capabilities from the start; others come in the course of time.
    pub(super) fn new(seed: u64, capabilities: &[&str]) -> Self {
        let network = Network::with(&[], capabilities);
        let peer = JoinedPeer::new(&network.genesis);
        let organisations = [Members::of(&network.org1), Members::of(&network.org2)];
        let bundle = peer.channel.bundle();
        let orderer = Signer::new(&network.orderer.orderer, "orderer", bundle.msps());
        let members = organisations.iter().flat_map(|organisation| organisation.signers(&peer));
        let reference = Reference::new(&network.genesis, members.chain([orderer]).collect());
        let before = peer.channel.ledger().snapshot();
        let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
        let mut history = Self {
            reference,
            codes: Vec::new(),
            network,
            peer,
            blocks: Vec::new(),
            before,
            dice: StdRng::seed_from_u64(seed),
            twice: false,
            one_thread,
            organisations,
        };
        let policy = channel_policy("/Channel/Application/Endorsement");
        let definition = history.network.definition("basic", &policy, &collections()).build();
        let other = spelled_policy("OR('Org2MSP.peer')");
        let other = history.network.definition("other", &other, &collections()).build();
        let double = spelled_policy(TWO_OF_ORG1);
        let double = history.network.definition("double", &double, &collections()).build();
        history.append(vec![definition, other, double]);
        if history.has(REGISTERED_IDENTITIES) {
            history.register_some();
        }
        history
    }

    /// Registers two peers of each organisation; each registration needs a block, because all count the entries.
    fn register_some(&mut self) {
        let [org1, org2] = self.organisations.clone();
        for (organisation, index) in [(&org1, 0), (&org2, 0), (&org1, 1), (&org2, 1)] {
            let peer = &organisation.peers[index];
            let register = RegisterArgs { certificate: pem(peer), bls: Some(self.new_key(peer)) };
            let arguments = [Bytes::from("Register"), register.encode_to_vec().into()];
            let snapshot = self.peer.channel.ledger().snapshot();
            let builder = change(&self.peer.channel, snapshot, &organisation.admin, &arguments);
            let builder = builder.expect("nobody is registered yet").endorsed_by(&[peer]);
            self.append(vec![builder.build()]);
        }
    }

    fn append(&mut self, envelopes: Vec<Bytes>) {
        let last = self.blocks.last().unwrap_or(&self.network.genesis);
        let block = self.network.block_after(last, envelopes);
        self.before = self.peer.channel.ledger().snapshot();
        self.one_thread.install(|| commit_serially(&self.peer.channel, block.clone()));
        self.codes.push(self.reference.commit(&block));
        self.blocks.push(block);
    }

    pub(super) fn grow(&mut self) {
        if self.one_in(6) {
            let envelope = self.configuration();
            return self.append(vec![envelope]);
        }
        let by_number = self.has(REGISTERED_IDENTITIES);
        let mut envelopes: Vec<Bytes> = Vec::new();
        for _ in 0..self.dice.random_range(1..=TRANSACTIONS_MAX) {
            let envelope = match self.dice.random_range(0..16) {
                0 | 1 => self.definition(),
                2 => self.repeated(&envelopes),
                3 => self.forged(),
                4 => {
                    let (key, value) =
                        (self.pick(&KEYS), Bytes::from(format!("{}", self.dice.random::<u32>())));
                    envelopes
                        .push(self.endorsed_by_all(|tx| tx.put("basic", key, value).expect("may write")));
                    self.endorsed_by_all(|tx| {
                        let range = tx.range("basic", KEYS[0], "");
                        tx.next_batch(range).expect("readable");
                    })
                }
                5..=7 if by_number => self.change_of_entries(),
                8 | 9 if by_number => self.retired_and_used(&mut envelopes),
                // There is no table to change.
                5 if self.one_in(8) => self.change_of_entries(),
                _ => self.invocation().build(),
            };
            envelopes.push(envelope);
        }
        self.append(envelopes);
    }

    fn pick<T: Clone>(&mut self, choice: &[T]) -> T {
        choice[self.dice.random_range(0..choice.len())].clone()
    }

    fn one_in(&mut self, times: u32) -> bool {
        self.dice.random_range(0..times) == 0
    }

    fn has(&self, capability: &str) -> bool {
        self.reference.capabilities.contains(capability)
    }

    /// Another endorsement policy, another capability, or a revoked peer.
    fn configuration(&mut self) -> Bytes {
        let bundle = self.peer.channel.bundle();
        let capability =
            [REGISTERED_IDENTITIES, AGGREGATED_ENDORSEMENTS].into_iter().find(|name| !self.has(name));
        let organisation = self.pick(&self.organisations.clone());
        let revoked = self.reference.is_revoked(organisation.peers[PEERS - 1].serialized());
        let text = self.pick(&[
            "AND('Org1MSP.peer', 'Org2MSP.peer')",
            "OR('Org1MSP.peer', 'Org2MSP.peer')",
            "OR('Org2MSP.peer')",
        ]);
        match (self.dice.random_range(0..4), capability) {
            (0, Some(name)) => self.network.configuration(&bundle, |root| demand(root, name)),
            (1, _) if !revoked => self.network.configuration(&bundle, |root| {
                revoke(root, &organisation.msp_id, &organisation.revocation);
            }),
            _ => {
                self.twice = !self.twice;
                self.network.configuration(&bundle, |root| set_endorsement(root, text, self.twice))
            }
        }
    }

    fn definition(&mut self) -> Bytes {
        let policy = match self.dice.random_range(0..4) {
            0 => channel_policy("/Channel/Application/Endorsement"),
            1 => spelled_policy("OR('Org1MSP.peer')"),
            2 => spelled_policy(TWO_OF_ORG1),
            _ => spelled_policy("OR('Org2MSP.peer')"),
        };
        let collections = if self.dice.random() { collections() } else { CollectionConfigPackage::default() };
        let name = self.pick(&["basic", "other", "late"]);
        self.network.definition(name, &policy, &collections).build()
    }

    /// A transaction of this block, of the last one, or of any before.
    fn repeated(&mut self, envelopes: &[Bytes]) -> Bytes {
        let index = self.dice.random_range(0..self.blocks.len());
        let some = if self.one_in(2) { self.blocks.last() } else { self.blocks.get(index) };
        let known = some.map(consort_protos::block::envelopes).unwrap_or_default();
        let known: Vec<Bytes> = envelopes.iter().chain(known).cloned().collect();
        let known = self.pick(&known);
        // A configuration cannot share a block with others.
        match consort_protos::transaction::Transaction::open(known.clone()) {
            Ok(transaction) if transaction.endorser().is_some() => known,
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

    /// The present state, or that of a block ago.
    fn snapshot(&mut self) -> StateSnapshot {
        let old = self.one_in(5);
        if old { self.before.clone() } else { self.peer.channel.ledger().snapshot() }
    }

    /// Registers, renews or retires an entry. What cannot be done now becomes an invocation.
    fn change_of_entries(&mut self) -> Bytes {
        let snapshot = self.snapshot();
        let organisation = self.pick(&self.organisations.clone());
        let others = [&organisation.client, &organisation.admin];
        let members: Vec<_> = organisation.peers.iter().chain(others).cloned().collect();
        let (signer, entries) = (self.pick(&members), self.entries());
        let mut number = self.dice.random_range(0..=entries.len() as u64);
        if let Some(entry) = entries.iter().find(|entry| entry.certificate == pem(&signer)) {
            number = entry.number;
        }
        let (certificate, bls) = (pem(&signer), self.bls_key(&signer));
        let (name, argument) = match self.dice.random_range(0..8) {
            0 => ("Retire", RetireArgs { number }.encode_to_vec()),
            1..=3 => ("Renew", RenewArgs { number, certificate, bls }.encode_to_vec()),
            _ => ("Register", RegisterArgs { certificate, bls }.encode_to_vec()),
        };
        let arguments = [Bytes::from(name), argument.into()];
        match change(&self.peer.channel, snapshot, &organisation.admin, &arguments) {
            Some(builder) => {
                let endorser = self.pick(&organisation.peers);
                let builder = builder.endorsed_by(&[&endorser]);
                self.tampered(builder).build()
            }
            None => self.invocation().build(),
        }
    }

    /// Retires an entry, and lets those who are named by it go on in the same block.
    fn retired_and_used(&mut self, envelopes: &mut Vec<Bytes>) -> Bytes {
        let mut entries = self.entries();
        entries.retain(|entry| entry.status == Status::Active as i32);
        if entries.is_empty() {
            return self.change_of_entries();
        }
        let entry = self.pick(&entries);
        let [org1, org2] = self.organisations.clone();
        let (own, other) = if entry.msp_id == org1.msp_id { (org1, org2) } else { (org2, org1) };
        let arguments = [Bytes::from("Retire"), RetireArgs { number: entry.number }.encode_to_vec().into()];
        let snapshot = self.peer.channel.ledger().snapshot();
        let Some(retire) = change(&self.peer.channel, snapshot, &own.admin, &arguments) else {
            return self.invocation().build();
        };
        envelopes.push(retire.endorsed_by(&[&self.pick(&own.peers)]).build());
        let mut members = own.peers.iter().chain([&own.client, &own.admin]);
        let holder = members.find(|member| pem(member) == entry.certificate).cloned();
        let mut builder = self.network.transaction("basic").endorsed_by(&[&own.peers[0], &other.peers[0]]);
        match holder {
            Some(peer) if own.peers.iter().any(|known| Arc::ptr_eq(known, &peer)) => {
                builder.endorsers[0] = peer;
            }
            Some(creator) => builder.creator = creator,
            None => {}
        }
        builder.set = writes("basic", vec![write(self.pick(&KEYS), b"used")]);
        self.named_and_together(builder, &[entry]).build()
    }

    /// A change of the table as it should be, or as somebody would like it to be who may not.
    fn tampered(&mut self, mut builder: TransactionBuilder) -> TransactionBuilder {
        match self.dice.random_range(0..20) {
            0 => builder.creator = Arc::clone(&self.network.org1.client),
            1 => builder.creator = Arc::clone(&self.organisations[0].admin),
            2 => builder.endorsers = vec![Arc::clone(&self.network.org1.peer)],
            3 => builder.arguments[1] = RetireArgs { number: 0 }.encode_to_vec().into(),
            4 => {
                let write = builder.set.namespaces[0].writes.last_mut().expect("every change writes");
                write.value = [&write.value[..], &write.value[..1]].concat().into();
            }
            5 => drop(builder.set.namespaces[0].reads.pop()),
            6 => {
                builder.chaincode = "basic".to_owned();
                builder.endorsers =
                    vec![Arc::clone(&self.network.org1.peer), Arc::clone(&self.network.org2.peer)];
            }
            _ => {}
        }
        let entries = self.entries();
        self.named_and_together(builder, &entries)
    }

    /// Most often a new key.
    fn bls_key(&mut self, signer: &SigningIdentity) -> Option<BlsKey> {
        let without = self.one_in(4);
        (!without).then(|| self.new_key(signer))
    }

    fn new_key(&mut self, signer: &SigningIdentity) -> BlsKey {
        let secret = Arc::new(SecretKey::generate().expect("a key"));
        let owner = Owner::new(signer.msp_id().as_str(), signer.certificate().public_key(), CHANNEL);
        let key = BlsKey {
            public_key: secret.public_key().as_bytes().to_vec().into(),
            proof: secret.prove(&owner).to_bytes().to_vec().into(),
        };
        self.reference.secrets.insert(key.public_key.clone(), secret);
        key
    }

    /// The table as the last block left it.
    fn entries(&self) -> Vec<Entry> {
        let snapshot = self.peer.channel.ledger().snapshot();
        let entry = |number| snapshot.get(IDENTITIES, &entry_key(number)).expect("readable");
        let stored = (0..).map_while(entry);
        stored.map(|stored| Entry::decode(stored.value).expect("an entry")).collect()
    }

    /// An entry of a signer that is in use, or any other if it comes to the worst.
    fn entry_of(&mut self, entries: &[Entry], signer: &SigningIdentity) -> Option<Entry> {
        if self.one_in(24) {
            return (!entries.is_empty()).then(|| self.pick(entries));
        }
        let own = entries.iter().filter(|entry| entry.certificate == pem(signer));
        let own: Vec<Entry> = own.filter(|entry| entry.status == Status::Active as i32).cloned().collect();
        (!own.is_empty()).then(|| self.pick(&own))
    }

    /// Names signers by numbers and lets endorsers sign together, where dice and the given entries allow it.
    fn named_and_together(
        &mut self,
        mut builder: TransactionBuilder,
        entries: &[Entry],
    ) -> TransactionBuilder {
        self.together(&mut builder, entries);
        self.endorsers_by_number(&mut builder, entries);
        let creator = Arc::clone(&builder.creator);
        let creator = self.entry_of(entries, &creator).filter(|_| self.dice.random());
        let unknown = self.one_in(40).then_some(entries.len() as u64);
        let number = unknown.or(creator.map(|entry| entry.number)).and_then(EntryNumber::new);
        if let Some(number) = number {
            builder.change_signature_header =
                Some(Box::new(move |header| header.creator = number.serialize()));
        }
        builder
    }

    /// Names endorsers by numbers, which may or may not be theirs.
    fn endorsers_by_number(&mut self, builder: &mut TransactionBuilder, entries: &[Entry]) {
        let numbers: Vec<Option<u64>> = builder
            .endorsers
            .iter()
            .map(|endorser| self.entry_of(entries, endorser).filter(|_| self.dice.random()))
            .map(|entry| entry.map(|entry| entry.number))
            .collect();
        builder.change_endorsements = Some(Box::new(move |endorsements| {
            for (endorsement, number) in endorsements.iter_mut().zip(&numbers) {
                if let Some(number) = number.and_then(EntryNumber::new) {
                    endorsement.endorser = number.serialize();
                }
            }
        }));
    }

    /// Lets those of the endorsers who have keys sign together, some of them alone as well. Now and then one does not sign, one
    /// is named who did not, or all sign for another channel.
    fn together(&mut self, builder: &mut TransactionBuilder, entries: &[Entry]) {
        if entries.is_empty() || self.one_in(3) {
            return;
        }
        let (mut numbers, mut keys) = (Vec::new(), Vec::new());
        for endorser in std::mem::take(&mut builder.endorsers) {
            let entry = self.entry_of(entries, &endorser);
            let key = entry.as_ref().and_then(|entry| entry.bls.as_ref()).map(|key| &key.public_key);
            match (&entry, key.and_then(|key| self.reference.secrets.get(key)).cloned()) {
                (Some(entry), Some(key)) => {
                    if !numbers.contains(&entry.number) {
                        numbers.push(entry.number);
                        keys.push(key);
                    }
                    if self.one_in(3) {
                        builder.endorsers.push(endorser);
                    }
                }
                _ => builder.endorsers.push(endorser),
            }
        }
        if numbers.is_empty() {
            return;
        }
        let mut channel = CHANNEL;
        match self.dice.random_range(0..24) {
            0 => drop(keys.pop()),
            1 => numbers.push(self.dice.random_range(0..=entries.len() as u64)),
            2 => channel = "otherchannel",
            _ => {}
        }
        let mut named = signers::encode(numbers).expect("few").to_vec();
        if self.one_in(40) {
            // The set has one form only.
            named.push(0);
        }
        let named = Bytes::from(named);
        builder.change_action_payload = Some(Box::new(move |payload| {
            let action = payload.action.as_mut().expect("an action");
            let message = bls::endorsement(channel, &action.proposal_response_payload);
            let parts: Vec<Signature> = keys.iter().map(|key| key.sign(&message)).collect();
            let sum = bls::aggregate(&parts).map_or(INFINITY, |sum| sum.to_bytes());
            let signature = Bytes::copy_from_slice(&sum);
            action.aggregate = Some(AggregateEndorsement { signers: named.clone(), signature });
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
        let mut simulator = TxSimulator::new(self.snapshot(), "random");
        let chaincode = self.pick(&["basic", "basic", "basic", "other", "late", "double"]);
        for _ in 0..self.dice.random_range(1..=3) {
            // Chaincodes call each other now and then.
            let namespace = if self.one_in(6) { "other" } else { chaincode };
            self.step(&mut simulator, namespace);
        }
        let [org1, org2] = self.organisations.clone();
        let second = self.pick(&org1.peers);
        let (org1, org2) = (self.pick(&org1.peers), self.pick(&org2.peers));
        // The second may be the first once more.
        let endorsers: &[&Arc<SigningIdentity>] = match self.dice.random_range(0..8) {
            _ if chaincode == "double" => &[&org1, &second],
            0 => &[&org1],
            1 => &[&org2],
            2 | 3 => &[&org1, &second, &org2],
            _ => &[&org1, &org2],
        };
        let mut builder = self.network.transaction(chaincode).endorsed_by(endorsers);
        if self.one_in(3) {
            builder.creator = Arc::clone(&self.pick(&self.organisations.clone()).client);
        }
        if self.one_in(40) {
            builder.creator = self.pick(&[org1, org2]);
        }
        let entries = self.entries();
        self.named_and_together(builder.set(simulator.finish().rwset), &entries)
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
        let text = self.pick(&["", "OR('Org1MSP.peer')", "OR('Org2MSP.peer')", TWO_OF_ORG1]);
        let entry = (!text.is_empty()).then(|| {
            let policy = consort_msp::policy::parse(text).expect("a policy").encode_to_vec();
            ("VALIDATION_PARAMETER".to_owned(), policy.into())
        });
        entry.into_iter().collect()
    }
}

fn pem(signer: &SigningIdentity) -> Bytes {
    signer.certificate().pem().into_bytes().into()
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
