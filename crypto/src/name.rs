//! Distinguished names, written.

use der::asn1::{Any, ObjectIdentifier};
use der::{Decode, Encode, Tag};
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::name::{Name, RdnSequence, RelativeDistinguishedName};

use crate::Error;
use crate::error::unwritable;

/// Kinds of parts of a name, with their object identifiers (RFC 5280 appendix A.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NamePart {
    /// `C`, two letters.
    Country,
    /// `ST`.
    State,
    /// `L`.
    Locality,
    /// `STREET`.
    Street,
    /// `postalCode`.
    PostalCode,
    /// `O`.
    Organization,
    /// `OU`.
    OrganizationalUnit,
    /// `CN`.
    CommonName,
    /// `serialNumber`.
    SerialNumber,
}

impl NamePart {
    fn identifier(self) -> ObjectIdentifier {
        ObjectIdentifier::new_unwrap(match self {
            Self::CommonName => "2.5.4.3",
            Self::SerialNumber => "2.5.4.5",
            Self::Country => "2.5.4.6",
            Self::Locality => "2.5.4.7",
            Self::State => "2.5.4.8",
            Self::Street => "2.5.4.9",
            Self::Organization => "2.5.4.10",
            Self::OrganizationalUnit => "2.5.4.11",
            Self::PostalCode => "2.5.4.17",
        })
    }

    /// Longest value (RFC 5280 appendix A.1, upper bounds).
    #[must_use]
    pub const fn characters_max(self) -> usize {
        match self {
            Self::Country => 2,
            Self::State | Self::Locality | Self::Street => 128,
            Self::PostalCode => 40,
            Self::Organization | Self::OrganizationalUnit | Self::CommonName | Self::SerialNumber => 64,
        }
    }

    /// Its object identifier as text.
    #[must_use]
    pub(crate) fn identifier_text(self) -> String {
        self.identifier().to_string()
    }

    /// All kinds, in the order in which Fabric's tools write them.
    pub const ALL: [Self; 9] = [
        Self::Country,
        Self::State,
        Self::Locality,
        Self::Street,
        Self::PostalCode,
        Self::Organization,
        Self::OrganizationalUnit,
        Self::CommonName,
        Self::SerialNumber,
    ];
}

/// A name: relative names in order, each of one or several parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DistinguishedName {
    relative: Vec<Vec<(NamePart, String)>>,
}

impl DistinguishedName {
    /// A name without parts.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A name of one part.
    #[must_use]
    pub fn common_name(name: &str) -> Self {
        Self::new().with(NamePart::CommonName, name)
    }

    /// The same name with one more part at its end. Repeated kinds keep their order.
    #[must_use]
    pub fn with(mut self, part: NamePart, value: &str) -> Self {
        self.push(part, value);
        self
    }

    /// Adds a part at the end.
    pub fn push(&mut self, part: NamePart, value: &str) {
        self.relative.push(vec![(part, value.to_owned())]);
    }

    /// Adds several values of one kind as one relative name, as Go's tools do; DER orders them by their bytes.
    pub fn push_together(&mut self, part: NamePart, values: &[&str]) {
        if !values.is_empty() {
            self.relative.push(values.iter().map(|value| (part, (*value).to_owned())).collect());
        }
    }

    /// The parts, in order.
    pub fn parts(&self) -> impl Iterator<Item = (NamePart, &str)> {
        self.relative.iter().flatten().map(|(part, value)| (*part, value.as_str()))
    }

    pub(crate) fn to_name(&self) -> Result<Name, Error> {
        let mut sequence = RdnSequence::default();
        for parts in &self.relative {
            let parts = parts.iter().map(|(part, value)| written(*part, value));
            let parts = parts.collect::<Result<Vec<_>, _>>()?;
            sequence.push(RelativeDistinguishedName::try_from(parts).map_err(unwritable)?);
        }
        Name::from_der(&sequence.to_der().map_err(unwritable)?).map_err(unwritable)
    }
}

fn written(part: NamePart, value: &str) -> Result<AttributeTypeAndValue, Error> {
    if value.is_empty() || value.chars().count() > part.characters_max() {
        return Err(Error::Issue(format!("{part:?} must have 1 to {} characters", part.characters_max())));
    }
    let printable = |byte: u8| byte.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(&byte);
    let is_printable = value.bytes().all(printable);
    if part == NamePart::Country && !is_printable {
        return Err(Error::Issue("Country must be printable".to_owned()));
    }
    let tag = if is_printable { Tag::PrintableString } else { Tag::Utf8String };
    let value = Any::new(tag, value.as_bytes()).map_err(unwritable)?;
    Ok(AttributeTypeAndValue { oid: part.identifier(), value })
}
