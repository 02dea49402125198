//! Which hash an MSP uses, and which keys its authorities and members may have.
//!
//! Fabric knows one family of hashes in practice (`SHA2` with `SHA256`) and takes every ECDSA key, Ed25519 keys from MSP version
//! 3.0 on, and authorities with RSA keys besides. Consort adds the family `SM3`, whose keys are SM2's, and a list of allowed
//! algorithms, which may mix both worlds.

use std::collections::BTreeSet;

use consort_crypto::{
    certificate::Certificate,
    hash::HashAlgorithm,
    key::{KeyAlgorithm, PublicKey},
};
use consort_protos::fabric::msp::{FabricCryptoConfig, FabricMspConfig};

use crate::{IdentityError, MspError, MspVersion};

/// An MSP's hash and keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Algorithms {
    pub(crate) hash: HashAlgorithm,
    /// What members' keys may be.
    keys: BTreeSet<KeyAlgorithm>,
    /// Authorities may have other keys that Fabric takes, RSA among them.
    fabric_authorities: bool,
}

impl Algorithms {
    pub(crate) fn read(config: &FabricMspConfig, version: MspVersion) -> Result<Self, MspError> {
        let none = FabricCryptoConfig::default();
        let crypto = config.crypto_config.as_ref().unwrap_or(&none);
        let hash = hash(config, crypto)?;
        let mut keys = BTreeSet::new();
        for name in &crypto.key_algorithms {
            let unusable =
                |reason| MspError::KeyAlgorithm { msp: config.name.clone(), name: name.clone(), reason };
            let key: KeyAlgorithm =
                name.parse().map_err(|_| unusable("the algorithms are p256, p384, ed25519 and sm2"))?;
            if key == KeyAlgorithm::Ed25519 && version < MspVersion::V3_0 {
                return Err(unusable("it needs the channel capability V3_0"));
            }
            keys.insert(key);
        }
        let fabric_authorities = keys.is_empty() && hash == HashAlgorithm::Sha256;
        if keys.is_empty() {
            keys.extend(match hash {
                HashAlgorithm::Sm3 => [KeyAlgorithm::Sm2].as_slice(),
                HashAlgorithm::Sha256 if version < MspVersion::V3_0 => {
                    &[KeyAlgorithm::P256, KeyAlgorithm::P384]
                }
                HashAlgorithm::Sha256 => &[KeyAlgorithm::P256, KeyAlgorithm::P384, KeyAlgorithm::Ed25519],
            });
        }
        Ok(Self { hash, keys, fabric_authorities })
    }

    /// What keys of members may be.
    pub(crate) fn keys(&self) -> &BTreeSet<KeyAlgorithm> {
        &self.keys
    }

    /// A member's key must be of an allowed kind.
    pub(crate) fn check_member(&self, key: &PublicKey) -> Result<(), IdentityError> {
        match key.key_algorithm() {
            Some(algorithm) if self.keys.contains(&algorithm) => Ok(()),
            _ => Err(IdentityError::Invalid(format!(
                "could not validate identity's public key algorithm: {} is not supported",
                key.algorithm()
            ))),
        }
    }

    /// An authority's key must be of an allowed kind, so that chains mix algorithms only where the configuration says so.
    pub(crate) fn check_authority(&self, authority: &Certificate) -> Result<(), MspError> {
        let key = authority.public_key();
        let allowed = match key.key_algorithm() {
            Some(KeyAlgorithm::Sm2) => self.keys.contains(&KeyAlgorithm::Sm2),
            Some(algorithm) => self.fabric_authorities || self.keys.contains(&algorithm),
            None => self.fabric_authorities,
        };
        if allowed {
            return Ok(());
        }
        let keys: Vec<&str> = self.keys.iter().map(|key| key.name()).collect();
        Err(MspError::Authority(format!(
            "CA Certificate has a key of {}, but the MSP allows {} only (key_algorithms in its crypto_config), (SN: {})",
            key.algorithm(),
            keys.join(", "),
            authority.serial_hex()
        )))
    }
}

fn hash(config: &FabricMspConfig, crypto: &FabricCryptoConfig) -> Result<HashAlgorithm, MspError> {
    let unsupported = |setting, name: &str, supported| {
        Err(MspError::UnsupportedHash { msp: config.name.clone(), setting, name: name.to_owned(), supported })
    };
    let (algorithm, function) = match crypto.signature_hash_family.as_str() {
        "" | "SHA2" => (HashAlgorithm::Sha256, "SHA256"),
        "SM3" => (HashAlgorithm::Sm3, "SM3"),
        other => return unsupported("signature_hash_family", other, "SHA2 or SM3"),
    };
    match crypto.identity_identifier_hash_function.as_str() {
        "" => Ok(algorithm),
        name if name == function => Ok(algorithm),
        other => unsupported("identity_identifier_hash_function", other, function),
    }
}
