//! How the functions of a [`contract`](macro@crate::contract) get their parameters: any serde type, read from the bytes that a client
//! sends.
//!
//! Texts travel as they are, numbers and truth values in their written form, everything else as JSON: what Fabric's contract interfaces
//! do, so that their clients see no difference.

use serde::de::{DeserializeOwned, Deserializer, Visitor, value};
use serde::{Serialize, forward_to_deserialize_any};

use crate::Error;

/// Reads a parameter.
///
/// # Errors
/// A text that says what was expected; the caller adds which parameter it was.
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    let text = std::str::from_utf8(bytes).map_err(|_| Error::new("it is not UTF-8 text"))?;
    T::deserialize(Argument(text)).map_err(|error| Error::new(error.to_string()))
}

/// Writes a result: a text without quotes, `()` and a missing value as nothing, everything else as JSON.
///
/// # Errors
/// The value cannot be written as JSON.
pub fn write<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Error> {
    let json = serde_json::to_vec(value)?;
    match json.first() {
        Some(b'"') => Ok(serde_json::from_slice::<String>(&json)?.into_bytes()),
        Some(b'n') if json == b"null" => Ok(Vec::new()),
        _ => Ok(json),
    }
}

/// The written form of one argument.
struct Argument<'a>(&'a str);

type Fault = value::Error;

fn fault(error: impl std::fmt::Display) -> Fault {
    serde::de::Error::custom(error)
}

impl Argument<'_> {
    fn parsed<T: std::str::FromStr>(&self, expected: &str) -> Result<T, Fault> {
        self.0.trim().parse().map_err(|_| fault(format!("expected {expected}, got {:?}", shown(self.0))))
    }
}

/// A text short enough for a message.
fn shown(text: &str) -> String {
    const CHARACTERS_MAX: usize = 64;
    if text.chars().count() <= CHARACTERS_MAX {
        return text.to_owned();
    }
    text.chars().take(CHARACTERS_MAX).chain(std::iter::once('…')).collect()
}

macro_rules! numbers {
    ($($method:ident $visit:ident $kind:ty: $expected:literal;)+) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            visitor.$visit(self.parsed::<$kind>($expected)?)
        }
    )+};
}

macro_rules! as_json {
    ($($method:ident($($extra:ident: $kind:ty),*);)+) => {$(
        fn $method<V: Visitor<'de>>(self, $($extra: $kind,)* visitor: V) -> Result<V::Value, Fault> {
            let mut json = serde_json::Deserializer::from_str(self.0);
            let value = (&mut json)
                .$method($($extra,)* visitor)
                .map_err(|error| fault(format!("expected JSON: {error}")))?;
            json.end().map_err(|error| fault(format!("expected JSON: {error}")))?;
            Ok(value)
        }
    )+};
}

impl<'de> Deserializer<'de> for Argument<'de> {
    type Error = Fault;

    numbers! {
        deserialize_i8 visit_i8 i8: "a whole number of 8 bits";
        deserialize_i16 visit_i16 i16: "a whole number of 16 bits";
        deserialize_i32 visit_i32 i32: "a whole number of 32 bits";
        deserialize_i64 visit_i64 i64: "a whole number of 64 bits";
        deserialize_i128 visit_i128 i128: "a whole number of 128 bits";
        deserialize_u8 visit_u8 u8: "a whole number of 8 bits, not negative";
        deserialize_u16 visit_u16 u16: "a whole number of 16 bits, not negative";
        deserialize_u32 visit_u32 u32: "a whole number of 32 bits, not negative";
        deserialize_u64 visit_u64 u64: "a whole number of 64 bits, not negative";
        deserialize_u128 visit_u128 u128: "a whole number of 128 bits, not negative";
        deserialize_f32 visit_f32 f32: "a number";
        deserialize_f64 visit_f64 f64: "a number";
        deserialize_bool visit_bool bool: "true or false";
        deserialize_char visit_char char: "one character";
    }

    as_json! {
        deserialize_any();
        deserialize_seq();
        deserialize_tuple(length: usize);
        deserialize_tuple_struct(name: &'static str, length: usize);
        deserialize_map();
        deserialize_struct(name: &'static str, fields: &'static [&'static str]);
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_borrowed_str(self.0)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_borrowed_str(self.0)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_borrowed_bytes(self.0.as_bytes())
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_borrowed_bytes(self.0.as_bytes())
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.0.is_empty() || self.0 == "null" { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        // A variant without content is its name; one with content is JSON.
        if !self.0.trim_start().starts_with(['{', '"']) {
            let variant: value::StrDeserializer<'_, Fault> =
                serde::de::IntoDeserializer::into_deserializer(self.0);
            return visitor.visit_enum(variant);
        }
        let mut json = serde_json::Deserializer::from_str(self.0);
        (&mut json)
            .deserialize_enum(name, variants, visitor)
            .map_err(|error| fault(format!("expected JSON: {error}")))
    }

    forward_to_deserialize_any! { identifier ignored_any }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Point {
        x: i64,
        y: i64,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Name(String);

    #[derive(Debug, PartialEq, Deserialize)]
    enum Colour {
        Red,
        Mixed(u8),
    }

    #[test]
    fn texts_and_numbers_travel_as_they_are_written() {
        assert_eq!(read::<String>(b"\"quoted\"").unwrap(), "\"quoted\"");
        assert_eq!(read::<Name>(b"Tom").unwrap(), Name("Tom".to_owned()));
        assert_eq!(read::<i64>(b"-5").unwrap(), -5);
        assert!(read::<bool>(b"true").unwrap());
        assert_eq!(read::<Option<u32>>(b"").unwrap(), None);
        assert_eq!(read::<Option<u32>>(b"7").unwrap(), Some(7));
        assert_eq!(read::<Colour>(b"Red").unwrap(), Colour::Red);
    }

    #[test]
    fn everything_else_is_json() {
        assert_eq!(read::<Point>(br#"{"x":1,"y":2}"#).unwrap(), Point { x: 1, y: 2 });
        assert_eq!(read::<Vec<i64>>(b"[1,2]").unwrap(), [1, 2]);
        assert_eq!(read::<(i64, String)>(br#"[1,"a"]"#).unwrap(), (1, "a".to_owned()));
        assert_eq!(read::<Colour>(br#"{"Mixed":3}"#).unwrap(), Colour::Mixed(3));
        assert_eq!(read::<serde_json::Value>(br#"{"a":null}"#).unwrap()["a"], serde_json::Value::Null);
    }

    #[test]
    fn what_cannot_be_read_says_what_was_expected() {
        let error = read::<i64>(b"five").unwrap_err();
        assert_eq!(error.message(), "expected a whole number of 64 bits, got \"five\"");
        let error = read::<Point>(br#"{"x":1}"#).unwrap_err();
        assert!(error.message().starts_with("expected JSON: missing field `y`"), "{error}");
        assert!(read::<Point>(br#"{"x":1,"y":2} trailing"#).is_err());
        assert_eq!(read::<String>(&[0xff]).unwrap_err().message(), "it is not UTF-8 text");
    }

    #[test]
    fn results_are_written_the_same_way() {
        assert_eq!(write("a \"b\"").unwrap(), b"a \"b\"");
        assert_eq!(write(&7).unwrap(), b"7");
        assert_eq!(write(&()).unwrap(), b"");
        assert_eq!(write(&[true]).unwrap(), b"[true]");
    }
}
