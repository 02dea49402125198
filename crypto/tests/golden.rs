//! The formulas of [`consort_crypto::preimage`] give the hashes and hold the signatures of a real Fabric channel.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use consort_crypto::certificate::Certificate;
use consort_crypto::{Error, preimage};
use consort_protos::block;
use consort_protos::fabric::common::{Block, SignatureHeader};
use consort_protos::fabric::msp::SerializedIdentity;
use consort_protos::transaction::Transaction;
use prost::Message;

fn blocks() -> Vec<Block> {
    let folder =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../protos/tests/golden/fabric-channel/blocks");
    let read = |number| std::fs::read(folder.join(format!("{number:04}.pb"))).unwrap();
    (0..74).map(|number| block::open(Bytes::from(read(number))).unwrap()).collect()
}

fn transactions() -> Vec<Transaction> {
    let blocks = blocks();
    let envelopes = blocks[1..].iter().flat_map(block::envelopes);
    envelopes.map(|envelope| Transaction::open(envelope.clone()).unwrap()).collect()
}

/// Certificates by serialized identity.
#[derive(Default)]
struct Identities(BTreeMap<Bytes, Certificate>);

impl Identities {
    fn verify(&mut self, identity: &Bytes, message: &[u8], signature: &[u8]) -> Result<(), Error> {
        let certificate = self.0.entry(identity.clone()).or_insert_with(|| {
            let identity = SerializedIdentity::decode(identity.clone()).unwrap();
            Certificate::from_pem(&identity.id_bytes).unwrap()
        });
        certificate.public_key().verify(message, signature)
    }
}

#[test]
fn every_block_names_the_hash_of_its_predecessor_and_of_its_data() {
    let mut previous = Vec::new();
    for block in blocks() {
        let header = block.header.as_ref().unwrap();
        assert_eq!(header.previous_hash, previous, "block {}", header.number);
        assert_eq!(header.data_hash, preimage::block_data_hash(block.data.as_ref().unwrap()).as_slice());
        previous = preimage::block_hash(header).to_vec();
    }
}

#[test]
fn every_block_after_genesis_is_signed_by_an_orderer() {
    let mut identities = Identities::default();
    let mut count = 0;
    for block in &blocks()[1..] {
        let header = block.header.as_ref().unwrap();
        let signatures = block::orderer_signatures(block).unwrap().unwrap();
        for signature in &signatures.signatures {
            let signer = SignatureHeader::decode(signature.signature_header.clone()).unwrap();
            let message = preimage::block_signature(&signatures.value, &signature.signature_header, header);
            identities.verify(&signer.creator, &message, &signature.signature).unwrap();
            count += 1;
        }
    }
    assert_eq!(count, 73);
}

#[test]
fn every_creator_signature_and_transaction_id_holds() {
    let mut identities = Identities::default();
    for transaction in transactions() {
        identities.verify(&transaction.creator, &transaction.payload, &transaction.signature).unwrap();
        if transaction.endorser().is_some() {
            assert_eq!(transaction.tx_id, preimage::tx_id(&transaction.nonce, &transaction.creator));
        }
    }
}

#[test]
fn every_endorsement_and_proposal_hash_holds() {
    let mut identities = Identities::default();
    let mut count = 0;
    for transaction in transactions() {
        let Some(endorser) = transaction.endorser() else { continue };
        let hash = preimage::proposal_hash(
            &transaction.channel_header_bytes,
            &endorser.action_header,
            &endorser.chaincode_proposal_payload,
        );
        assert_eq!(endorser.proposal_hash, hash.as_slice());
        for endorsement in &endorser.endorsements {
            let message = preimage::endorsement(&endorser.proposal_response_payload, &endorsement.endorser);
            identities.verify(&endorsement.endorser, &message, &endorsement.signature).unwrap();
            count += 1;
        }
    }
    assert!(count > 96, "only {count} endorsements");
}

#[test]
fn every_configuration_signature_holds() {
    use consort_protos::envelope::OpenEnvelope;
    use consort_protos::fabric::common::ConfigUpdateEnvelope;
    let mut identities = Identities::default();
    let mut count = 0;
    for transaction in transactions() {
        let Some(config) = transaction.config() else { continue };
        let update = OpenEnvelope::from_message(config.envelope.last_update.clone().unwrap()).unwrap();
        let update: ConfigUpdateEnvelope = update.data_as("config update envelope").unwrap();
        for signature in &update.signatures {
            let signer = SignatureHeader::decode(signature.signature_header.clone()).unwrap();
            let message = preimage::config_signature(&signature.signature_header, &update.config_update);
            identities.verify(&signer.creator, &message, &signature.signature).unwrap();
            count += 1;
        }
    }
    assert!(count >= 2, "only {count} signatures");
}

#[test]
fn a_changed_message_is_not_signed() {
    let transaction = &transactions()[0];
    let mut payload = transaction.payload.to_vec();
    payload[10] ^= 1;
    let refused = Identities::default().verify(&transaction.creator, &payload, &transaction.signature);
    assert!(matches!(refused, Err(Error::SignatureMismatch)));
}

#[test]
fn certificates_of_the_channel_read_as_their_makers_wrote_them() {
    let creator = SerializedIdentity::decode(transactions()[0].creator.clone()).unwrap();
    let certificate = Certificate::from_pem(&creator.id_bytes).unwrap();
    assert!(!certificate.is_ca());
    assert!(!certificate.has_unknown_critical_extension());
    assert_eq!(certificate.organizational_units().len(), 1);
    assert!(certificate.subject_common_name().is_some());
    assert_eq!(certificate.pem().as_bytes().trim_ascii(), creator.id_bytes.trim_ascii());
}
