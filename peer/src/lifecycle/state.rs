//! Where definitions and approvals lie in the state, and in which bytes
//! (Fabric `core/chaincode/lifecycle/serializer.go`, `peer/lifecycle/db.proto`).
//!
//! A record has a metadata key that names its type and fields, and one key per field.

use bytes::Bytes;
use consort_protos::fabric::lifecycle::{StateData, StateMetadata, state_data};
use prost::Message;

/// Records of definitions and approvals.
pub const NAMESPACES: &str = "namespaces";
/// Records of the packages that organisations chose.
pub const CHAINCODE_SOURCES: &str = "chaincode-sources";
/// Type of a committed definition.
pub const DEFINITION_TYPE: &str = "ChaincodeDefinition";
/// Type of an approval.
pub const PARAMETERS_TYPE: &str = "ChaincodeParameters";
/// Type of a chosen package.
pub const LOCAL_PACKAGE_TYPE: &str = "ChaincodeLocalPackage";
/// Field with the sequence of a definition.
pub const SEQUENCE: &str = "Sequence";
/// Field with version, initialisation and endorsement plugin.
pub const ENDORSEMENT_INFO: &str = "EndorsementInfo";
/// Field with validation plugin and policy.
pub const VALIDATION_INFO: &str = "ValidationInfo";
/// Field with the collections.
pub const COLLECTIONS: &str = "Collections";
/// Field with the id of a package.
pub const PACKAGE_ID: &str = "PackageID";

/// Key of a record's metadata.
#[must_use]
pub fn metadata_key(kind: &str, name: &str) -> String {
    format!("{kind}/metadata/{name}")
}

/// Key of one field of a record.
#[must_use]
pub fn field_key(kind: &str, name: &str, field: &str) -> String {
    format!("{kind}/fields/{name}/{field}")
}

/// Name of the records of one sequence of a chaincode, in an organisation's collection.
#[must_use]
pub fn sequence_name(chaincode: &str, sequence: i64) -> String {
    format!("{chaincode}#{sequence}")
}

/// A record as it is to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// [`NAMESPACES`] or [`CHAINCODE_SOURCES`].
    pub kind: &'static str,
    /// The type in the metadata.
    pub datatype: &'static str,
    /// Fields in the order in which the metadata lists them.
    pub fields: Vec<(&'static str, Bytes)>,
}

impl Record {
    /// The bytes of the metadata.
    #[must_use]
    pub fn metadata(&self) -> Bytes {
        StateMetadata {
            datatype: self.datatype.to_owned(),
            fields: self.fields.iter().map(|(name, _)| (*name).to_owned()).collect(),
        }
        .encode_to_vec()
        .into()
    }
}

/// The bytes of a whole number.
#[must_use]
pub fn integer(value: i64) -> Bytes {
    data(state_data::Type::Int64(value))
}

/// The bytes of bytes.
#[must_use]
pub fn bytes(value: Vec<u8>) -> Bytes {
    data(state_data::Type::Bytes(value.into()))
}

/// The bytes of a text.
#[must_use]
pub fn text(value: &str) -> Bytes {
    data(state_data::Type::String(value.to_owned()))
}

fn data(value: state_data::Type) -> Bytes {
    StateData { r#type: Some(value) }.encode_to_vec().into()
}

/// Reads a whole number; absent is zero.
///
/// # Errors
/// The bytes are something else.
pub fn read_integer(stored: Option<Bytes>) -> Result<i64, String> {
    match read(stored)? {
        None => Ok(0),
        Some(state_data::Type::Int64(value)) => Ok(value),
        Some(other) => Err(format!("expected an integer, found {}", kind(&other))),
    }
}

/// Reads bytes; absent is empty.
///
/// # Errors
/// The bytes are something else.
pub fn read_bytes(stored: Option<Bytes>) -> Result<Bytes, String> {
    match read(stored)? {
        None => Ok(Bytes::new()),
        Some(state_data::Type::Bytes(value)) => Ok(value),
        Some(other) => Err(format!("expected bytes, found {}", kind(&other))),
    }
}

/// Reads a text; absent is empty.
///
/// # Errors
/// The bytes are something else.
pub fn read_text(stored: Option<Bytes>) -> Result<String, String> {
    match read(stored)? {
        None => Ok(String::new()),
        Some(state_data::Type::String(value)) => Ok(value),
        Some(other) => Err(format!("expected a text, found {}", kind(&other))),
    }
}

fn read(stored: Option<Bytes>) -> Result<Option<state_data::Type>, String> {
    let Some(stored) = stored else { return Ok(None) };
    StateData::decode(stored).map(|data| data.r#type).map_err(|error| error.to_string())
}

fn kind(value: &state_data::Type) -> &'static str {
    match value {
        state_data::Type::Int64(_) => "an integer",
        state_data::Type::Bytes(_) => "bytes",
        state_data::Type::String(_) => "a text",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_bytes_of_the_books() {
        assert_eq!(integer(1)[..], [0x08, 0x01]);
        // No collections: the member of the choice is there although it is empty.
        assert_eq!(bytes(Vec::new())[..], [0x12, 0x00]);
        assert_eq!(text("")[..], [0x1a, 0x00]);
    }

    #[test]
    fn what_was_written_reads_back_and_nothing_else_does() {
        assert_eq!(read_integer(Some(integer(7))), Ok(7));
        assert_eq!(read_text(Some(text("a"))), Ok("a".to_owned()));
        assert_eq!(read_integer(None), Ok(0));
        assert!(read_integer(Some(text("7"))).is_err());
        assert!(read_bytes(Some(Bytes::from_static(&[0xff]))).is_err());
    }
}
