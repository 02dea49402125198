//! What can go wrong with sealed data.

use std::fmt;

use consort_crypto::pre;

use super::KeyringError;

/// What can go wrong with sealed data.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call of the ledger.
    #[error(transparent)]
    Call(#[from] crate::Error),
    /// Keys, capsules or ciphertexts do not fit.
    #[error(transparent)]
    Cryptography(#[from] pre::Error),
    /// The keys cannot be read.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// An answer of the ledger or a proxy cannot be read.
    #[error("the answer to {call} is malformed: {reason}")]
    Malformed {
        /// The call in words.
        call: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The gateway's identity is none that can own or read sealed data.
    #[error("the identity cannot take part in sealed data: {reason}")]
    Identity {
        /// What is wrong with it.
        reason: String,
    },
    /// A record is too long to lie on the ledger.
    #[error(
        "a record of {bytes} bytes is too long for the ledger (64 KiB with its tag).\n\
         Remedy: keep its ciphertext elsewhere (`seal_elsewhere`; on the command line `--elsewhere` with `--ciphertext-to`)"
    )]
    TooLong {
        /// Length of the record.
        bytes: usize,
    },
    /// The ciphertext has to be fetched first.
    #[error("the record's ciphertext is kept elsewhere: fetch it from {location:?} and pass it")]
    Elsewhere {
        /// Where the owner keeps it.
        location: String,
    },
    /// The ciphertext that was passed is not the one on the ledger.
    #[error(
        "the ciphertext is not the record's: its hash is not the one on the ledger; fetch it again from {location:?}"
    )]
    OtherCiphertext {
        /// Where the owner keeps it.
        location: String,
    },
    /// The owner's key, or the reader's, is not the one that domain or grant name.
    #[error(
        "this key is not the {whose}'s: the ledger names another one\nRemedy: {}",
        other_key_remedy(whose)
    )]
    OtherKey {
        /// `domain` or `reader`.
        whose: &'static str,
    },
    /// There are fewer proxies than the threshold, so that nothing was granted.
    #[error(
        "{threshold} proxies must answer, and only {able} can serve{}\nNothing was granted: grant again when more of them can",
        Missing::list(missing)
    )]
    TooFewProxies {
        /// Fragments that would be needed.
        threshold: u16,
        /// Proxies that described themselves.
        able: usize,
        /// The others.
        missing: Vec<Missing>,
    },
    /// Proxies that an offer names cannot serve, so that nothing was granted.
    #[error(
        "not all of the proxies that were named can serve{}\nNothing was granted: wait for them, or name others",
        Missing::list(missing)
    )]
    AbsentProxies {
        /// Those that cannot.
        missing: Vec<Missing>,
    },
    /// Fewer proxies answered than needed. Nothing is lost: the request stands, and may be opened later.
    #[error(
        "{} of the {threshold} answers needed came{}\nNothing is lost: request {request} stands on the ledger; open it again when more proxies answer",
        answers,
        Missing::list(missing)
    )]
    TooFewAnswers {
        /// The request.
        request: String,
        /// Fragments needed.
        threshold: u16,
        /// Right fragments that came.
        answers: usize,
        /// The proxies without a right fragment, and why.
        missing: Vec<Missing>,
    },
}

fn other_key_remedy(whose: &str) -> &'static str {
    if whose == "reader" {
        "use the secret's file as it was when the grant was made (a backup of it); a reader who lost it gives the owner a new reader key, \
         for a new grant"
    } else {
        "use the secret's file that the domain was created with (a backup of it); without it nobody opens or grants the domain's records: \
         seal them again, from where they came, in a new domain"
    }
}

/// A proxy that did not do its part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Its address.
    pub proxy: String,
    /// Its organisation.
    pub msp_id: String,
    /// Why.
    pub reason: String,
}

impl Missing {
    fn list(missing: &[Self]) -> String {
        missing.iter().map(|missing| format!("\n  {missing}")).collect()
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({}): {}", self.proxy, self.msp_id, self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_answers_say_which_are_missing_and_that_nothing_is_lost() {
        let missing = vec![Missing {
            proxy: "peer0.insurer.example.com:7051".to_owned(),
            msp_id: "InsurerMSP".to_owned(),
            reason: "does not answer".to_owned(),
        }];
        let error = Error::TooFewAnswers { request: "ab12".to_owned(), threshold: 2, answers: 1, missing };
        let text = error.to_string();
        assert!(text.starts_with("1 of the 2 answers needed came\n  peer0.insurer"), "{text}");
        assert!(text.contains("(InsurerMSP): does not answer\nNothing is lost: request ab12"), "{text}");
    }
}
