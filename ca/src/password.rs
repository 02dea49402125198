//! Secrets: how they are made, kept and compared.

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use rand::RngExt;
use serde::Deserialize;
use zeroize::Zeroizing;

/// Length of a generated secret, as Fabric CA's: 12 characters of 62 hold 71 bits.
const GENERATED_LENGTH: usize = 12;

/// What a generated secret is made of.
const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Longest secret that is looked at, in bytes; longer ones can only be meant to waste time.
pub const SECRET_BYTES_MAX: usize = 512;

/// A secret in memory: wiped when dropped, never printed.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps a secret that came from outside.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// A new random secret of 12 letters and digits.
    pub fn generate() -> Self {
        let mut random = rand::rng();
        let text = (0..GENERATED_LENGTH)
            .map(|_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())]))
            .collect::<String>();
        Self::new(text)
    }

    /// The secret itself; for the answer to the registrar and for hashing, never for a log.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether there is no secret.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Secret(***)")
    }
}

/// How costly it is to try a secret (Argon2id, RFC 9106).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HashCost {
    /// Memory of one trial in KiB. Default 4096: one trial then takes about 2 ms of one core, so that two cores
    /// serve several hundred enrolments per second. The secrets are machine-made by default (71 bits), and wrong
    /// guesses are counted and limited, so the hash only has to make a stolen registry slow to search. Raise it
    /// where people choose their own secrets.
    pub memory_kib: u32,
    /// Passes over the memory. Default 1.
    pub passes: u32,
}

impl Default for HashCost {
    fn default() -> Self {
        Self { memory_kib: 4096, passes: 1 }
    }
}

/// Hashes and compares secrets.
///
/// A stored hash carries its own cost (PHC string), so a changed configuration leaves older secrets valid.
pub struct PasswordHashing {
    argon2: Argon2<'static>,
    /// Compared with when the identity is unknown, so that the answer takes as long as a wrong secret.
    decoy: String,
}

/// Why secrets cannot be hashed.
#[derive(Debug, thiserror::Error)]
#[error("the secret cannot be hashed ({reason}); check password_hashing in the configuration")]
pub struct HashError {
    reason: String,
}

impl From<argon2::Error> for HashError {
    fn from(error: argon2::Error) -> Self {
        Self { reason: error.to_string() }
    }
}

impl From<argon2::password_hash::Error> for HashError {
    fn from(error: argon2::password_hash::Error) -> Self {
        Self { reason: error.to_string() }
    }
}

impl PasswordHashing {
    /// Prepares hashing at this cost.
    ///
    /// # Errors
    /// When Argon2 does not allow the cost (memory below 8 KiB, no pass).
    pub fn new(cost: HashCost) -> Result<Self, HashError> {
        let parameters = Params::new(cost.memory_kib, cost.passes, 1, None)?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters);
        let decoy = hash_with(&argon2, Secret::generate().reveal())?;
        Ok(Self { argon2, decoy })
    }

    /// The PHC string to keep in place of the secret.
    ///
    /// # Errors
    /// When the secret is longer than Argon2 takes.
    pub fn hash(&self, secret: &Secret) -> Result<String, HashError> {
        hash_with(&self.argon2, secret.reveal())
    }

    /// Whether the secret is the one that was hashed; `None` stands for an unknown identity and costs as much.
    pub fn verify(&self, secret: &Secret, stored: Option<&str>) -> bool {
        if secret.reveal().len() > SECRET_BYTES_MAX {
            return false;
        }
        let known = stored.is_some();
        let Ok(parsed) = PasswordHash::new(stored.unwrap_or(&self.decoy)) else {
            return false;
        };
        let equal = self.argon2.verify_password(secret.reveal().as_bytes(), &parsed).is_ok();
        equal && known
    }
}

fn hash_with(argon2: &Argon2<'_>, secret: &str) -> Result<String, HashError> {
    let mut salt = [0_u8; 16];
    rand::rng().fill(&mut salt);
    let salt = SaltString::encode_b64(&salt)?;
    Ok(argon2.hash_password(secret.as_bytes(), &salt)?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cheap() -> PasswordHashing {
        PasswordHashing::new(HashCost { memory_kib: 64, passes: 1 }).expect("hashing")
    }

    #[test]
    fn only_the_hashed_secret_is_accepted() {
        let hashing = cheap();
        let stored = hashing.hash(&Secret::new("adminpw".to_owned())).expect("hash");

        assert!(hashing.verify(&Secret::new("adminpw".to_owned()), Some(&stored)));
        assert!(!hashing.verify(&Secret::new("adminpW".to_owned()), Some(&stored)));
        assert!(!hashing.verify(&Secret::new(String::new()), Some(&stored)));
        assert!(!hashing.verify(&Secret::new("adminpw".to_owned()), None));
        assert!(!hashing.verify(&Secret::new("adminpw".to_owned()), Some("no hash")));
    }

    #[test]
    fn a_hash_made_at_another_cost_stays_valid() {
        let stored = cheap().hash(&Secret::new("pw".to_owned())).expect("hash");

        let hashing = PasswordHashing::new(HashCost { memory_kib: 128, passes: 2 }).expect("hashing");

        assert!(hashing.verify(&Secret::new("pw".to_owned()), Some(&stored)));
    }

    #[test]
    fn generated_secrets_differ_and_are_never_printed() {
        let (one, other) = (Secret::generate(), Secret::generate());

        assert_ne!(one.reveal(), other.reveal());
        assert_eq!(one.reveal().len(), GENERATED_LENGTH);
        assert_eq!(format!("{one:?}"), "Secret(***)");
    }
}
