//! Distinguished names, written.

use crate::{Error, der};

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
    fn identifier(self) -> [u32; 4] {
        let last = match self {
            Self::CommonName => 3,
            Self::SerialNumber => 5,
            Self::Country => 6,
            Self::Locality => 7,
            Self::State => 8,
            Self::Street => 9,
            Self::Organization => 10,
            Self::OrganizationalUnit => 11,
            Self::PostalCode => 17,
        };
        [2, 5, 4, last]
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
        let [a, b, c, d] = self.identifier();
        format!("{a}.{b}.{c}.{d}")
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

    pub(crate) fn to_der(&self) -> Result<Vec<u8>, Error> {
        let mut relative = Vec::new();
        for parts in &self.relative {
            let parts =
                parts.iter().map(|(part, value)| part_to_der(*part, value)).collect::<Result<_, _>>()?;
            relative.extend(der::set(parts));
        }
        Ok(der::element(der::SEQUENCE, &relative))
    }
}

fn part_to_der(part: NamePart, value: &str) -> Result<Vec<u8>, Error> {
    if value.is_empty() || value.chars().count() > part.characters_max() {
        return Err(Error::Issue(format!("{part:?} must have 1 to {} characters", part.characters_max())));
    }
    let printable = |byte: u8| byte.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(&byte);
    let is_printable = value.bytes().all(printable);
    if part == NamePart::Country && !is_printable {
        return Err(Error::Issue("Country must be printable".to_owned()));
    }
    let tag = if is_printable { der::PRINTABLE_STRING } else { der::UTF8_STRING };
    Ok(der::sequence(&[&der::object_identifier(&part.identifier()), &der::element(tag, value.as_bytes())]))
}
