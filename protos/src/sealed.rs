//! What the parts of sealed data are bound to: contexts that owner, reader, proxies and validators compute alike.
//!
//! A context is a text that names its purpose, and the fields after it, each with its length in front (four bytes, most
//! significant first), so that no two lists of fields have the same bytes. Channel names end every replay across channels.
//! The messages are those of `schemas/consort/sealed.proto`.

use crate::consort::sealed::{Party, RecordName};

/// Name and namespace of the system chaincode.
pub const SEALED: &str = "_sealed";
/// Largest ciphertext that a record carries itself, in bytes.
pub const INLINE_BYTES_MAX: usize = 64 * 1024;
/// Most proxies of one grant. More would only cost: each is asked and proved by itself.
pub const PROXIES_MAX: usize = 64;

/// What a proxy's signature of its description covers, before one zero byte and the bytes.
pub const DESCRIPTION_TAG: &str = "consort.sealed.Description/1";
/// What a proxy's signature of a receipt covers, before one zero byte and the bytes.
pub const RECEIPT_TAG: &str = "consort.sealed.Receipt/1";
/// What a reader's signature of a question covers, before one zero byte and the bytes.
pub const QUESTION_TAG: &str = "consort.sealed.Question/1";
/// What a proxy's signature of a fragment covers, before one zero byte and the bytes.
pub const FRAGMENT_TAG: &str = "consort.sealed.Fragment/1";

/// What a signature with one of the tags covers.
#[must_use]
pub fn signed_message(tag: &str, bytes: &[u8]) -> Vec<u8> {
    [tag.as_bytes(), &[0], bytes].concat()
}

/// Context of the proof of knowledge that creates a domain: who creates it, and where.
#[must_use]
pub fn domain_context(channel: &str, domain: &str, owner: &Party) -> Vec<u8> {
    context("consort.sealed.domain/1", &[channel, domain, &owner.msp_id, &owner.id])
}

/// The associated data of a record's capsule and ciphertext: channel, namespace, key and version, so that neither serves
/// another record.
#[must_use]
pub fn record_context(channel: &str, record: &RecordName) -> Vec<u8> {
    let version = record.version.to_string();
    context("consort.sealed.record/1", &[channel, SEALED, &record.domain, &record.key, &version])
}

/// What a share is sealed to its proxy with: which grant's, which one.
#[must_use]
pub fn share_context(channel: &str, grant: &str, index: u32) -> Vec<u8> {
    context("consort.sealed.share/1", &[channel, grant, &index.to_string()])
}

/// What a fragment's proof is bound to besides the grant's terms: the request and its record.
#[must_use]
pub fn request_context(channel: &str, grant: &str, request_tx_id: &str, record: &RecordName) -> Vec<u8> {
    let version = record.version.to_string();
    let fields = [channel, grant, request_tx_id, &record.domain, &record.key, &version];
    context("consort.sealed.request/1", &fields)
}

fn context(purpose: &str, fields: &[&str]) -> Vec<u8> {
    let mut bytes = purpose.as_bytes().to_vec();
    for field in fields {
        // Fields come out of messages that are limited to far less than 4 GiB.
        bytes.extend(u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend(field.as_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(domain: &str, key: &str, version: u64) -> RecordName {
        RecordName { domain: domain.to_owned(), key: key.to_owned(), version }
    }

    #[test]
    fn a_context_has_the_bytes_that_others_compute() {
        assert_eq!(
            hex::encode(record_context("ch", &record("d", "k", 1))),
            concat!(
                "636f6e736f72742e7365616c65642e7265636f72642f31",
                "000000026368",
                "000000075f7365616c6564",
                "0000000164",
                "000000016b",
                "0000000131"
            )
        );
    }

    #[test]
    fn no_two_records_share_a_context() {
        let contexts = [
            record_context("ch", &record("d", "k", 1)),
            record_context("ch", &record("dk", "", 1)),
            record_context("ch", &record("d", "k1", 1)),
            record_context("ch", &record("d", "k", 11)),
            record_context("c", &record("hd", "k", 1)),
        ];
        for (index, one) in contexts.iter().enumerate() {
            assert!(contexts.iter().skip(index + 1).all(|other| one != other));
        }
    }
}
