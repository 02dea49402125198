//! Every function for a moment, with the input that is there and with input made from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use consort_crypto::{
    hash::HashAlgorithm,
    issue::{CertificateAuthority, DistinguishedName, Validity},
    key::{KeyAlgorithm, PrivateKey},
    request::CertificateRequest,
};
use consort_fuzz::{TARGETS, Target};
use consort_protos::{
    block, envelope,
    fabric::{
        common::{Block, ChannelHeader, Envelope, HeaderType, SignatureHeader},
        orderer::{SeekInfo, SeekPosition, SeekSpecified, seek_position},
        protos::SignedProposal,
    },
    proposal::{ProposalParts, new_proposal},
    transaction::Transaction,
};
use prost::Message;
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use time::macros::datetime;

/// How long each function runs when nothing else is asked for.
const MOMENT: Duration = Duration::from_millis(500);

/// Longer input only repeats what shorter input shows.
const BYTES_MAX: usize = 16_384;

/// Functions that read a format by itself: they begin with all of this test's input.
const WITHOUT_OWN_SEEDS: [&str; 11] = [
    "authority_request",
    "certificate",
    "channel_block",
    "configuration",
    "identity",
    "policy",
    "read_write_set",
    "seek",
    "signing_request",
    "token",
    "transaction",
];

/// Well-formed input of every kind.
fn seeds() -> Vec<Vec<u8>> {
    const POLICY: &str = "OutOf(2, 'A.member', AND('B.peer', OR('C.admin', 'D.client')), 'E.orderer')";
    let validity =
        Validity { not_before: datetime!(2020-01-01 00:00 UTC), not_after: datetime!(2040-01-01 00:00 UTC) };
    let name = DistinguishedName::common_name("ca");
    let mut seeds = golden();
    seeds.extend(vec![POLICY.as_bytes().to_vec(), b"Y2VydA==.c2ln".to_vec()]);
    seeds.push(consort_msp::policy::parse(POLICY).expect("a policy").encode_to_vec());
    for algorithm in KeyAlgorithm::ALL {
        let key = PrivateKey::generate(algorithm).expect("a key");
        let request = CertificateRequest::create(&key, "x", &[]).expect("a request");
        let root = CertificateAuthority::new_root(&name, key, validity).expect("a root");
        let list = root.issue_crl(&[], 1, validity.not_before, validity.not_after).expect("a list");
        seeds.extend([root.certificate().der().to_vec(), request.der().to_vec(), list.der().to_vec()]);
        seeds.extend([request.pem().into_bytes(), root.certificate().pem().into_bytes()]);
    }
    seeds
}

/// Blocks of a real channel with what is in them, and requests to the authority.
fn golden() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protos/tests/golden/fabric-channel/blocks");
    let mut seeds = vec![
        br#"{"id":"alice","type":"client","attrs":[{"name":"role","value":"auditor","ecert":true}],"max_enrollments":-1}"#.to_vec(),
        br#"{"certificate_request":"-----BEGIN","profile":"tls","attr_reqs":[{"name":"role","optional":true}],"caname":"ca"}"#.to_vec(),
        br#"{"serial":"ab","aki":"cd","reason":"keycompromise","revokedBefore":"2026-01-02T00:00:00Z","gencrl":true}"#.to_vec(),
        b"org1.department1".to_vec(),
        b"+30d".to_vec(),
    ];
    for number in [0, 1, 2, 6, 9, 14] {
        let bytes = std::fs::read(folder.join(format!("{number:04}.pb"))).expect("a golden block");
        let block = Block::decode(bytes.as_slice()).expect("a block");
        for envelope in block::envelopes(&block) {
            seeds.push(envelope.to_vec());
            let Ok(opened) = Transaction::open(envelope.clone()) else { continue };
            seeds.push(opened.creator.to_vec());
            if let Some(invocation) = opened.invocation() {
                seeds.push(invocation.rwset.encode().to_vec());
            }
        }
        seeds.push(bytes);
    }
    let genesis = Block::decode(consort_fuzz::GENESIS).expect("a block");
    let config = block::config_envelope(&genesis).expect("a configuration").config.expect("a configuration");
    seeds.push(config.encode_to_vec());
    seeds.extend(requests());
    seeds
}

/// A proposal and a request for blocks.
fn requests() -> [Vec<u8>; 2] {
    let creator = Bytes::from_static(b"creator");
    let proposal = new_proposal(ProposalParts {
        channel: "mychannel".to_owned(),
        creator: creator.clone(),
        nonce: Bytes::from_static(b"nonce"),
        tx_id: HashAlgorithm::Sha256.tx_id(b"nonce", b"creator"),
        timestamp: prost_types::Timestamp::default(),
        chaincode: "basic".to_owned(),
        args: vec![Bytes::from_static(b"Put"), Bytes::from_static(b"key")],
        transient: BTreeMap::from([("secret".to_owned(), Bytes::from_static(b"s"))]),
        is_init: false,
    });
    let proposal =
        SignedProposal { proposal_bytes: proposal.encode_to_vec().into(), ..SignedProposal::default() };
    let at = |number| {
        let position = seek_position::Type::Specified(SeekSpecified { number });
        Some(SeekPosition { r#type: Some(position) })
    };
    let seek = SeekInfo { start: at(2), stop: at(5), ..SeekInfo::default() };
    let header = ChannelHeader {
        r#type: HeaderType::DeliverSeekInfo.into(),
        timestamp: Some(prost_types::Timestamp::default()),
        channel_id: "mychannel".to_owned(),
        ..ChannelHeader::default()
    };
    let signature = SignatureHeader { creator, nonce: Bytes::from_static(b"nonce") };
    let payload = envelope::payload(&header, &signature, seek.encode_to_vec().into());
    let seek = Envelope { payload, ..Envelope::default() };
    [proposal.encode_to_vec(), seek.encode_to_vec()]
}

/// What libFuzzer left of a function's input.
fn kept(name: &str) -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["corpus", "artifacts"].map(|folder| root.join(folder).join(name));
    let files = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
    files.filter_map(|file| std::fs::read(file.path()).ok()).collect()
}

/// Random bytes, or one of the seeds with some of its bytes changed, left out, repeated or cut off; mostly one of the function's own.
fn input(own: &[Vec<u8>], seeds: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    if random.random_ratio(1, 8) {
        let mut bytes = vec![0; random.random_range(0..300)];
        random.fill_bytes(&mut bytes);
        return bytes;
    }
    let seeds = if own.is_empty() || random.random_ratio(1, 8) { seeds } else { own };
    let mut bytes = seeds[random.random_range(0..seeds.len())].clone();
    for _ in 0..random.random_range(1..5) {
        if bytes.is_empty() {
            break;
        }
        let at = random.random_range(0..bytes.len());
        match random.random_range(0..5) {
            0 => bytes[at] = random.random(),
            1 => bytes[at] ^= 1 << random.random_range(0..8),
            2 => drop(bytes.remove(at)),
            3 => bytes.truncate(at),
            _ => {
                let end = bytes.len().min(at + random.random_range(1..40));
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
        }
    }
    bytes.truncate(BYTES_MAX);
    bytes
}

/// Says by which input a function failed, when it does.
struct Witness<'a> {
    name: &'a str,
    seed: u64,
    input: Vec<u8>,
}

impl Drop for Witness<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let text: String = self.input.iter().map(|byte| format!("{byte:02x}")).collect();
            eprintln!("{} fails (CONSORT_FUZZ_SEED={}) with {text}", self.name, self.seed);
        }
    }
}

fn run(name: &str, target: Target, seeds: &[Vec<u8>], seed: u64, time: Duration) -> u64 {
    let mut witness = Witness { name, seed, input: Vec::new() };
    let own = consort_fuzz::seeds(name);
    for known in own.iter().chain(seeds).chain(&kept(name)) {
        witness.input.clone_from(known);
        target(&witness.input);
    }
    let (mut random, start, mut count) = (StdRng::seed_from_u64(seed), Instant::now(), 0);
    while start.elapsed() < time {
        witness.input = input(&own, seeds, &mut random);
        target(&witness.input);
        count += 1;
    }
    count
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn no_function_panics_within_its_moment() {
    let time = number("CONSORT_FUZZ_SECONDS").map_or(MOMENT, Duration::from_secs);
    let seed = number("CONSORT_FUZZ_SEED").unwrap_or_else(rand::random);
    let seeds = seeds();
    for (name, target) in TARGETS {
        let count = run(name, target, &seeds, seed, time);
        println!("{name}: {count} inputs, seed {seed}");
    }
    consort_fuzz::put_away();
}

/// libFuzzer begins with what is in `corpus/<target>/`: `CONSORT_FUZZ_CORPUS=1` puts the well-formed input there.
#[test]
fn every_function_of_a_service_has_well_formed_input_to_begin_with() {
    let general: BTreeSet<&str> = WITHOUT_OWN_SEEDS.into_iter().collect();
    for (name, _) in TARGETS {
        let own = consort_fuzz::seeds(name);
        assert_eq!(own.is_empty(), general.contains(name), "{name}");
        assert!(own.iter().all(|seed| !seed.is_empty()), "{name}");
        if number("CONSORT_FUZZ_CORPUS").is_some() {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
            std::fs::create_dir_all(&folder).expect("a folder");
            let begin = if own.is_empty() { seeds() } else { own };
            for (index, seed) in begin.iter().enumerate() {
                std::fs::write(folder.join(format!("seed-{index}")), seed).expect("written");
            }
        }
    }
}

#[test]
fn every_function_has_its_program_and_every_program_its_function() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("targets");
    let entries = std::fs::read_dir(folder).expect("the programs").flatten();
    let programs: BTreeSet<String> = entries
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".rs").map(str::to_owned))
        .collect();
    let functions: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(programs, functions);
}
