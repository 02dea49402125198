//! What exactly is hashed and signed: every preimage of the protocol.
//!
//! Source: Fabric `protoutil/{txutils,blockutils,commonutils}.go`, `core/endorser`, `common/configtx`.
//! Arguments are bytes as received; only a block's header, whose hash is defined over a DER form of its own, is encoded here.

use consort_protos::fabric::common::{BlockData, BlockHeader};
use der::asn1::OctetStringRef;
use der::{Encode, Sequence};

use crate::hash::{HashAlgorithm, sha256};

/// What precedes everything else in the preimage of a salt.
const SALT_DOMAIN: &[u8] = b"consort.privatedata.salt/1\0";

/// Name of the transient data's entry that holds the secret of salts.
pub const SALT_SECRET: &str = "consort.salt";

/// Least length of that secret, in bytes.
pub const SALT_SECRET_BYTES_MIN: usize = 32;

/// One private write of one transaction.
#[derive(Clone, Copy, Debug)]
pub struct PrivateWrite<'w> {
    /// The channel.
    pub channel: &'w str,
    /// The transaction's id.
    pub tx_id: &'w str,
    /// The chaincode's namespace.
    pub namespace: &'w str,
    /// The collection.
    pub collection: &'w str,
    /// The key.
    pub key: &'w str,
}

/// Preimages under the hash of a channel. The functions of the same names below are those of a channel with SHA-256.
impl HashAlgorithm {
    /// Transaction id: lower-case hex of hash(nonce, creator).
    #[must_use]
    pub fn tx_id(self, nonce: &[u8], creator: &[u8]) -> String {
        hex::encode(self.hash_parts(&[nonce, creator]))
    }

    /// Hash that binds a proposal response to its proposal: hash(channel header, signature header, chaincode proposal payload
    /// without transient data).
    #[must_use]
    pub fn proposal_hash(self, channel_header: &[u8], signature_header: &[u8], payload: &[u8]) -> [u8; 32] {
        self.hash_parts(&[channel_header, signature_header, payload])
    }

    /// Hash of a block: that of its header's hashed form.
    #[must_use]
    pub fn block_hash(self, header: &BlockHeader) -> [u8; 32] {
        self.hash(&block_header(header))
    }

    /// Hash of a block's data: that of the concatenated envelopes.
    #[must_use]
    pub fn block_data_hash(self, data: &BlockData) -> [u8; 32] {
        self.envelopes_hash(&data.data)
    }

    /// Hash of the data of a block with these envelopes.
    #[must_use]
    pub fn envelopes_hash(self, envelopes: &[bytes::Bytes]) -> [u8; 32] {
        let parts: Vec<&[u8]> = envelopes.iter().map(AsRef::as_ref).collect();
        self.hash_parts(&parts)
    }

    /// The salt of a private value in a collection with salted hashes: HMAC with the client's secret as its key, over a fixed text and
    /// channel, transaction id, namespace, collection and key, each after its length in 8 bytes, most significant first. The value's hash
    /// is then hash(salt, value).
    #[must_use]
    pub fn private_salt(self, secret: &[u8], write: &PrivateWrite<'_>) -> [u8; 32] {
        let PrivateWrite { channel, tx_id, namespace, collection, key } = *write;
        let texts = [channel, tx_id, namespace, collection, key];
        let lengths = texts.map(|text| (text.len() as u64).to_be_bytes());
        let mut parts: Vec<&[u8]> = vec![SALT_DOMAIN];
        for (length, text) in lengths.iter().zip(texts) {
            parts.extend([length.as_slice(), text.as_bytes()]);
        }
        self.hmac(secret, &parts)
    }

    /// Public stand-in of a private key: its hash, without salt.
    #[must_use]
    pub fn key_hash(self, key: &str) -> [u8; 32] {
        self.hash(key.as_bytes())
    }
}

/// [`HashAlgorithm::tx_id`] with SHA-256.
#[must_use]
pub fn tx_id(nonce: &[u8], creator: &[u8]) -> String {
    HashAlgorithm::Sha256.tx_id(nonce, creator)
}

/// [`HashAlgorithm::proposal_hash`] with SHA-256.
#[must_use]
pub fn proposal_hash(channel_header: &[u8], signature_header: &[u8], payload: &[u8]) -> [u8; 32] {
    HashAlgorithm::Sha256.proposal_hash(channel_header, signature_header, payload)
}

/// What an endorser signs: the proposal response payload, then its own serialized identity.
#[must_use]
pub fn endorsement(proposal_response_payload: &[u8], endorser: &[u8]) -> Vec<u8> {
    [proposal_response_payload, endorser].concat()
}

#[derive(Sequence)]
struct HashedHeader<'a> {
    number: u64,
    previous: &'a OctetStringRef,
    data: &'a OctetStringRef,
}

/// The hashed form of a block header: DER of SEQUENCE { INTEGER number, OCTET STRING previous, OCTET STRING data }.
#[must_use]
pub fn block_header(header: &BlockHeader) -> Vec<u8> {
    let octets = |bytes| OctetStringRef::new(bytes).expect("invariant: a message is shorter than 4 GiB");
    let hashed = HashedHeader {
        number: header.number,
        previous: octets(&header.previous_hash),
        data: octets(&header.data_hash),
    };
    hashed.to_der().expect("invariant: a message is shorter than 4 GiB")
}

/// [`HashAlgorithm::block_hash`] with SHA-256.
#[must_use]
pub fn block_hash(header: &BlockHeader) -> [u8; 32] {
    HashAlgorithm::Sha256.block_hash(header)
}

/// [`HashAlgorithm::block_data_hash`] with SHA-256.
#[must_use]
pub fn block_data_hash(data: &BlockData) -> [u8; 32] {
    HashAlgorithm::Sha256.block_data_hash(data)
}

/// [`HashAlgorithm::envelopes_hash`] with SHA-256.
#[must_use]
pub fn envelopes_hash(envelopes: &[bytes::Bytes]) -> [u8; 32] {
    HashAlgorithm::Sha256.envelopes_hash(envelopes)
}

/// What an orderer signs: the value of the metadata entry, the signature header (or identifier header), the block header's
/// hashed form.
#[must_use]
pub fn block_signature(metadata_value: &[u8], signature_header: &[u8], header: &BlockHeader) -> Vec<u8> {
    [metadata_value, signature_header, &block_header(header)].concat()
}

/// What a signer of a configuration update signs.
#[must_use]
pub fn config_signature(signature_header: &[u8], config_update: &[u8]) -> Vec<u8> {
    [signature_header, config_update].concat()
}

/// Public stand-in of a private key: its SHA-256, without salt.
#[must_use]
pub fn key_hash(key: &str) -> [u8; 32] {
    sha256(key.as_bytes())
}

/// Public stand-in of a private value: its SHA-256, without salt.
#[must_use]
pub fn value_hash(value: &[u8]) -> [u8; 32] {
    sha256(value)
}

/// Public stand-in of the private writes to a collection.
#[must_use]
pub fn private_rwset_hash(rwset: &[u8]) -> [u8; 32] {
    sha256(rwset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_salt_depends_on_every_part_of_the_write() {
        let write = PrivateWrite { channel: "c", tx_id: "t", namespace: "n", collection: "o", key: "k" };
        let salt = |write: PrivateWrite<'_>| HashAlgorithm::Sha256.private_salt(b"secret", &write);
        let others = [
            salt(PrivateWrite { channel: "d", ..write }),
            salt(PrivateWrite { tx_id: "u", ..write }),
            salt(PrivateWrite { namespace: "m", ..write }),
            salt(PrivateWrite { collection: "p", ..write }),
            salt(PrivateWrite { key: "l", ..write }),
            salt(PrivateWrite { namespace: "no", collection: "", ..write }),
            HashAlgorithm::Sha256.private_salt(b"another", &write),
            HashAlgorithm::Sm3.private_salt(b"secret", &write),
        ];
        assert!(others.iter().all(|other| *other != salt(write)));
        // HMAC-SHA-256, computed with Python's hmac over the definition.
        let expected = "7d097020f64281f4fadb9431e5daf010859486dff9f6620008939a3621150234";
        assert_eq!(hex::encode(salt(write)), expected);
    }
}
