//! How argument bytes become parameters, and results become bytes.
//!
//! Texts travel as UTF-8, numbers and truth values as their decimal or word form, everything else as JSON: what
//! Fabric's contract interfaces do, so that their clients see no difference.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;

/// A parameter or a result that travels as JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Json<T>(pub T);

/// A type that a parameter can have.
pub trait FromArgument: Sized {
    /// Reads the bytes that the client sent.
    ///
    /// # Errors
    /// A text that says what was expected; the caller adds which parameter it was.
    fn from_argument(bytes: &[u8]) -> Result<Self, Error>;
}

/// A type that a function can return.
pub trait IntoPayload {
    /// The bytes that the client gets.
    ///
    /// # Errors
    /// The value cannot be written as JSON.
    fn into_payload(self) -> Result<Vec<u8>, Error>;
}

fn text(bytes: &[u8]) -> Result<&str, Error> {
    std::str::from_utf8(bytes).map_err(|_| Error::new("expected UTF-8 text"))
}

impl FromArgument for String {
    fn from_argument(bytes: &[u8]) -> Result<Self, Error> {
        text(bytes).map(str::to_owned)
    }
}

impl FromArgument for Vec<u8> {
    fn from_argument(bytes: &[u8]) -> Result<Self, Error> {
        Ok(bytes.to_vec())
    }
}

impl<T: DeserializeOwned> FromArgument for Json<T> {
    fn from_argument(bytes: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(bytes).map(Json).map_err(|error| Error::new(format!("expected JSON: {error}")))
    }
}

macro_rules! parsed {
    ($($type:ty: $expected:literal),+ $(,)?) => {$(
        impl FromArgument for $type {
            fn from_argument(bytes: &[u8]) -> Result<Self, Error> {
                let word = text(bytes)?;
                word.parse().map_err(|_| Error::new(format!(concat!("expected ", $expected, ", got {:?}"), word)))
            }
        }

        impl IntoPayload for $type {
            fn into_payload(self) -> Result<Vec<u8>, Error> {
                Ok(self.to_string().into_bytes())
            }
        }
    )+};
}

parsed! {
    i32: "a whole number of 32 bits",
    i64: "a whole number of 64 bits",
    u32: "a whole number of 32 bits, not negative",
    u64: "a whole number of 64 bits, not negative",
    f64: "a number",
    bool: "true or false",
}

impl IntoPayload for () {
    fn into_payload(self) -> Result<Vec<u8>, Error> {
        Ok(Vec::new())
    }
}

impl IntoPayload for String {
    fn into_payload(self) -> Result<Vec<u8>, Error> {
        Ok(self.into_bytes())
    }
}

impl IntoPayload for Vec<u8> {
    fn into_payload(self) -> Result<Vec<u8>, Error> {
        Ok(self)
    }
}

impl<T: Serialize> IntoPayload for Json<T> {
    fn into_payload(self) -> Result<Vec<u8>, Error> {
        Ok(serde_json::to_vec(&self.0)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_none_says_what_was_expected() {
        let error = i64::from_argument(b"five").unwrap_err();
        assert_eq!(error.message(), "expected a whole number of 64 bits, got \"five\"");
    }

    #[test]
    fn text_must_be_utf_8() {
        assert!(String::from_argument(&[0xff]).is_err());
    }

    #[test]
    fn a_truth_value_is_returned_as_a_word() {
        assert_eq!(true.into_payload().unwrap(), b"true");
    }
}
