//! Authenticated encryption under keys that are used once.

use aes_gcm::aead::consts::U12;
use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{AesGcm, KeyInit};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use sm4::Sm4;
use zeroize::Zeroizing;

use super::{Error, Suite, hash};

type Sm4Gcm = AesGcm<Sm4, U12>;

/// Bytes of the tag of both ciphers, which ends a ciphertext.
pub(super) const TAG_BYTES: usize = 16;

/// Every key encrypts one message, so the nonce may be the same for all.
const NONCE: [u8; 12] = [0; 12];

/// A key for one message.
pub(super) struct MessageKey {
    suite: Suite,
    /// Both lengths fit: 32 bytes for AES-256, 16 for SM4.
    bytes: Zeroizing<[u8; 32]>,
}

impl MessageKey {
    /// Derives the key from a shared secret and everything public that belongs to it.
    pub(super) fn derive(suite: Suite, purpose: &str, secret: &[u8], parts: &[&[u8]]) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        let length = match suite {
            Suite::P256 => 32,
            Suite::Sm2 => 16,
        };
        hash::derive(suite, purpose, secret, parts, &mut bytes[..length]);
        Self { suite, bytes }
    }

    fn aes(&self) -> LessSafeKey {
        let key = UnboundKey::new(&AES_256_GCM, self.bytes.as_ref());
        LessSafeKey::new(key.expect("invariant: AES-256 takes 32 bytes"))
    }

    fn sm4(&self) -> Sm4Gcm {
        Sm4Gcm::new_from_slice(&self.bytes[..16]).expect("invariant: SM4 takes 16 bytes")
    }

    /// Encrypts; the tag follows. Fails for messages of more than 64 GiB only.
    pub(super) fn seal(self, associated: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, Error> {
        match self.suite {
            Suite::P256 => {
                let mut bytes = Vec::with_capacity(plaintext.len() + TAG_BYTES);
                bytes.extend_from_slice(plaintext);
                let nonce = Nonce::assume_unique_for_key(NONCE);
                let sealed = self.aes().seal_in_place_append_tag(nonce, Aad::from(associated), &mut bytes);
                sealed.map_err(|_| Error::Closed)?;
                Ok(bytes)
            }
            Suite::Sm2 => {
                let payload = Payload { msg: plaintext, aad: associated };
                self.sm4().encrypt(&NONCE.into(), payload).map_err(|_| Error::Closed)
            }
        }
    }

    /// Decrypts, or says that the bytes are not what was encrypted under this key.
    pub(super) fn open(self, associated: &[u8], ciphertext: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        match self.suite {
            Suite::P256 => {
                let mut bytes = Zeroizing::new(ciphertext.to_vec());
                let nonce = Nonce::assume_unique_for_key(NONCE);
                let opened = self.aes().open_in_place(nonce, Aad::from(associated), &mut bytes);
                let length = opened.map_err(|_| Error::Closed)?.len();
                bytes.truncate(length);
                Ok(bytes)
            }
            Suite::Sm2 => {
                let payload = Payload { msg: ciphertext, aad: associated };
                let opened = self.sm4().decrypt(&NONCE.into(), payload);
                opened.map(Zeroizing::new).map_err(|_| Error::Closed)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sm4_gcm_gives_the_output_of_rfc_8998() {
        // Appendix A.1.
        let key = hex::decode("0123456789abcdeffedcba9876543210").unwrap();
        let nonce: [u8; 12] = hex::decode("00001234567800000000abcd").unwrap().try_into().unwrap();
        let associated = hex::decode("feedfacedeadbeeffeedfacedeadbeefabaddad2").unwrap();
        let plaintext = hex::decode(
            "aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbccccccccccccccccdddddddddddddddd\
             eeeeeeeeeeeeeeeeffffffffffffffffeeeeeeeeeeeeeeeeaaaaaaaaaaaaaaaa",
        )
        .unwrap();
        let payload = Payload { msg: &plaintext, aad: &associated };
        let ciphertext = Sm4Gcm::new_from_slice(&key).unwrap().encrypt(&nonce.into(), payload).unwrap();
        let expected = "17f399f08c67d5ee19d0dc9969c4bb7d5fd46fd3756489069157b282bb200735\
                        d82710ca5c22f0ccfa7cbf93d496ac15a56834cbcf98c397b4024a2691233b8d\
                        83de3541e4c2b58177e065a9bf7b62ec";
        assert_eq!(hex::encode(ciphertext), expected);
    }
}
