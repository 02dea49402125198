//! Agreement with the independent model in Python (`crypto/tests/pre/model.py`).

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::capsule::seal_with;
use super::envelope::seal_to_with;
use super::fragment::re_encrypt_with;
use super::knowledge::prove_knowledge_with;
use super::random::Random;
use super::share::split_with;
use super::{Capsule, Error, Fragment, Point, Proof, PublicKey, SecretKey, Share, Suite};
use super::{open, open_own, open_sealed};
use crate::hash;

/// The model's vectors (`model.py generate`).
const VECTORS: &str = include_str!("../../tests/pre/vectors.json");

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pre/model.py");

/// The model's randomness: SHA-256 of a seed and a counter.
struct Stream {
    seed: Vec<u8>,
    counter: u64,
}

impl Random for Stream {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        for chunk in bytes.chunks_mut(32) {
            let block = hash::sha256_parts(&[&self.seed, &self.counter.to_be_bytes()]);
            self.counter += 1;
            chunk.copy_from_slice(&block[..chunk.len()]);
        }
        Ok(())
    }
}

/// A vector, or its inputs.
struct Case<'a>(&'a Value);

impl Case<'_> {
    fn bytes(&self, name: &str) -> Vec<u8> {
        hex::decode(self.0[name].as_str().unwrap()).unwrap()
    }

    fn list(&self, name: &str) -> Vec<Vec<u8>> {
        let list = self.0[name].as_array().unwrap();
        list.iter().map(|item| hex::decode(item.as_str().unwrap()).unwrap()).collect()
    }

    fn number(&self, name: &str) -> u16 {
        self.0[name].as_u64().unwrap().try_into().unwrap()
    }

    fn suite(&self) -> Suite {
        Suite::from_name(self.0["suite"].as_str().unwrap()).unwrap()
    }

    /// The inputs, and everything that follows from them.
    fn computed(&self) -> Value {
        let (suite, seed) = (self.suite(), self.bytes("seed"));
        let [aux, plaintext, grant, request, context] =
            ["aux", "plaintext", "grant", "request", "context"].map(|name| self.bytes(name));
        let shape = (self.number("threshold"), self.number("proxies"));
        let random = &mut Stream { seed, counter: 0 };
        let [owner, reader, proxy] = [(); 3].map(|()| SecretKey::generate_with(random, suite).unwrap());
        let sealed = seal_with(random, &owner.public_key(), &aux, &plaintext).unwrap();
        let split = split_with(random, &owner, &reader.public_key(), shape, &grant).unwrap();
        let mut fragment = |share: &Share| {
            let made = re_encrypt_with(random, share, &sealed.capsule, &aux, (&grant, &request));
            hex::encode(made.unwrap().to_bytes())
        };
        let fragments: Vec<String> = split.shares.iter().map(&mut fragment).collect();
        let proof = prove_knowledge_with(random, &owner, &context).unwrap();
        let message = seal_to_with(random, &proxy.public_key(), &context, &plaintext).unwrap();
        let derived = SecretKey::derive(suite, &hash::sha256(&random.seed), &context).unwrap();
        let shares = split.shares.iter().map(|share| hex::encode(share.to_bytes().as_ref()));
        let commitments = split.commitments.iter().map(|point| hex::encode(point.to_bytes()));
        let mut value = self.0.clone();
        let results = json!({
            "owner": hex::encode(owner.to_bytes().as_ref()),
            "reader": hex::encode(reader.to_bytes().as_ref()),
            "proxy": hex::encode(proxy.to_bytes().as_ref()),
            "owner_public": hex::encode(owner.public_key().to_bytes()),
            "reader_public": hex::encode(reader.public_key().to_bytes()),
            "capsule": hex::encode(sealed.capsule.to_bytes()),
            "ciphertext": hex::encode(&sealed.ciphertext),
            "ephemeral": hex::encode(split.ephemeral.to_bytes()),
            "shares": shares.collect::<Vec<_>>(),
            "commitments": commitments.collect::<Vec<_>>(),
            "fragments": fragments,
            "proof": hex::encode(proof.to_bytes()),
            "message": hex::encode(message),
            "derived": hex::encode(derived.to_bytes().as_ref()),
        });
        value.as_object_mut().unwrap().extend(results.as_object().unwrap().clone());
        value
    }
}

fn vectors() -> Vec<Value> {
    serde_json::from_str(VECTORS).unwrap()
}

#[test]
fn the_models_vectors_are_computed_alike() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 6);
    for vector in &vectors {
        assert_eq!(Case(vector).computed(), *vector);
    }
}

#[test]
fn the_models_vectors_open() {
    for vector in vectors() {
        let case = Case(&vector);
        let suite = case.suite();
        let [aux, plaintext, grant, request, context, ciphertext] =
            ["aux", "plaintext", "grant", "request", "context", "ciphertext"].map(|name| case.bytes(name));
        let [owner, reader, proxy] =
            ["owner", "reader", "proxy"].map(|name| SecretKey::from_bytes(suite, &case.bytes(name)).unwrap());
        let public = PublicKey::from_bytes(suite, &case.bytes("owner_public")).unwrap();
        let capsule = Capsule::from_bytes(suite, &case.bytes("capsule")).unwrap();
        let ephemeral = Point::from_bytes(suite, &case.bytes("ephemeral")).unwrap();
        let points = case.list("commitments");
        let commitments: Vec<_> =
            points.iter().map(|point| Point::from_bytes(suite, point).unwrap()).collect();
        let fragments = case.list("fragments");
        let fragments: Vec<_> =
            fragments.iter().map(|fragment| Fragment::from_bytes(suite, fragment).unwrap()).collect();
        let opened = open(
            &reader,
            &public,
            &ephemeral,
            case.number("threshold"),
            &aux,
            &grant,
            &request,
            &commitments,
            &capsule,
            &ciphertext,
            &fragments,
        );
        assert_eq!(*opened.unwrap(), plaintext);
        assert_eq!(*open_own(&owner, &aux, &capsule, &ciphertext).unwrap(), plaintext);
        let proof = Proof::from_bytes(suite, &case.bytes("proof")).unwrap();
        assert_eq!(proof.verify(&public, &context), Ok(()));
        assert_eq!(*open_sealed(&proxy, &context, &case.bytes("message")).unwrap(), plaintext);
    }
}

#[test]
fn the_model_confirms_new_cases() {
    let random = SecretKey::generate(Suite::P256).unwrap().to_bytes();
    let case = |suite: Suite, threshold: u16, proxies: u16| {
        let inputs = json!({
            "suite": suite.name(),
            "seed": hex::encode(hash::sha256_parts(&[random.as_ref(), suite.name().as_bytes()])),
            "threshold": threshold,
            "proxies": proxies,
            "aux": hex::encode(b"wards|_sealed|patient-18|1"),
            "plaintext": hex::encode(b"a longer record, of more than two blocks of the cipher"),
            "grant": hex::encode(b"wards|grant-9"),
            "request": hex::encode(b"wards|request-9"),
            "context": hex::encode(b""),
        });
        Case(&inputs).computed()
    };
    let cases = json!([case(Suite::P256, 2, 3), case(Suite::Sm2, 3, 4)]).to_string();
    let mut model = Command::new("python3")
        .args([MODEL, "check"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python3 runs the independent model: run .ci/setup test, or install it");
    model.stdin.take().unwrap().write_all(cases.as_bytes()).unwrap();
    let output = model.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("2 cases agree"), "{said}\nfor {cases}");
}
