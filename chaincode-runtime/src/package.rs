//! Chaincode packages as Fabric's tools make them: a gzip'ed tar of `metadata.json` and `code.tar.gz`
//! (Fabric `core/chaincode/persistence/chaincode_package.go`). Type `wasm`: the code holds one WebAssembly component.

use std::fmt;
use std::io::{Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use consort_crypto::hash::sha256;
use flate2::read::GzDecoder;
use flate2::{Compression, GzBuilder};
use serde::Deserialize;

/// The only type of package that this peer runs.
pub const PACKAGE_TYPE: &str = "wasm";
/// Name of the component in the code archive.
pub const COMPONENT_FILE: &str = "chaincode.wasm";
/// Name of the metadata in the package.
const METADATA_FILE: &str = "metadata.json";
/// Name of the code in the package.
const CODE_FILE: &str = "code.tar.gz";
/// Largest metadata file; three short texts need a few hundred bytes.
const METADATA_BYTES_MAX: u64 = 64 << 10;
/// Most entries that an archive may have. Two or three are ordinary.
const ENTRIES_MAX: usize = 64;

/// Identifies a package: `<label>:<SHA-256 of its bytes>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackageId(Arc<str>);

impl PackageId {
    /// The id of a package's bytes.
    #[must_use]
    pub fn of(label: &str, package: &[u8]) -> Self {
        Self(format!("{label}:{}", hex::encode(sha256(package))).into())
    }

    /// Reads an id.
    ///
    /// # Errors
    /// The text is not a label, a colon and 64 hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, PackageError> {
        let malformed = || PackageError::Id(text.chars().take(128).collect());
        let (label, hash) = text.rsplit_once(':').ok_or_else(malformed)?;
        let digits = hash.len() == 64 && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !digits || !is_label(label) {
            return Err(malformed());
        }
        Ok(Self(text.into()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The label.
    #[must_use]
    pub fn label(&self) -> &str {
        self.0.rsplit_once(':').map_or("", |(label, _)| label)
    }

    /// The hexadecimal SHA-256 of the package.
    #[must_use]
    pub fn hash(&self) -> &str {
        self.0.rsplit_once(':').map_or("", |(_, hash)| hash)
    }
}

impl fmt::Display for PackageId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Why a package is refused.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// The id is not one.
    #[error("'{0}' is not a package id: a label, a colon and 64 hexadecimal digits are expected")]
    Id(String),
    /// An archive does not read.
    #[error("the {archive} cannot be read as a gzip'ed tar archive")]
    Archive {
        /// Which archive.
        archive: &'static str,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The archive or a file in it is larger than allowed.
    #[error("the {what} is larger than {limit} bytes when unpacked")]
    TooLarge {
        /// What.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A file is missing.
    #[error("did not find {0} inside the package")]
    Missing(&'static str),
    /// The metadata is not JSON of the expected form.
    #[error("could not unmarshal {METADATA_FILE} as json")]
    Metadata(#[source] serde_json::Error),
    /// The label has characters that are not allowed.
    #[error(
        "invalid label '{0}'. Label must be non-empty, can only consist of alphanumerics, symbols from '.+-_', and can \
         only begin with alphanumerics"
    )]
    Label(String),
    /// The code is in a language that this peer does not run.
    #[error("chaincode type '{0}' is not supported: this peer runs packages of type '{PACKAGE_TYPE}'")]
    Type(String),
    /// The code archive has no component.
    #[error("{CODE_FILE} holds no .wasm file")]
    NoComponent,
    /// The code archive has several.
    #[error("{CODE_FILE} holds more than one .wasm file")]
    SeveralComponents,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    r#type: String,
    #[serde(default)]
    label: String,
}

/// An opened package.
#[derive(Debug, Clone)]
pub struct Package {
    /// Its id.
    pub id: PackageId,
    /// The bytes as they were given.
    pub bytes: Bytes,
    /// The WebAssembly component in it.
    pub component: Vec<u8>,
}

impl Package {
    /// Opens a package. Nothing larger than `unpacked_bytes_max` is ever unpacked.
    ///
    /// # Errors
    /// [`PackageError`].
    pub fn open(bytes: Bytes, unpacked_bytes_max: u64) -> Result<Self, PackageError> {
        let (mut metadata, mut code) = (None, None);
        entries("package", &bytes, unpacked_bytes_max, |name, content| {
            match name {
                METADATA_FILE => metadata = Some(content),
                CODE_FILE => code = Some(content),
                _ => {}
            }
            Ok(())
        })?;
        let metadata = metadata.ok_or(PackageError::Missing(METADATA_FILE))?;
        if metadata.len() as u64 > METADATA_BYTES_MAX {
            return Err(PackageError::TooLarge { what: METADATA_FILE, limit: METADATA_BYTES_MAX });
        }
        let metadata: Metadata = serde_json::from_slice(&metadata).map_err(PackageError::Metadata)?;
        if !is_label(&metadata.label) {
            return Err(PackageError::Label(metadata.label.chars().take(128).collect()));
        }
        if !metadata.r#type.eq_ignore_ascii_case(PACKAGE_TYPE) {
            return Err(PackageError::Type(metadata.r#type.chars().take(64).collect()));
        }
        let code = code.ok_or(PackageError::Missing(CODE_FILE))?;
        let component = component(&code, unpacked_bytes_max)?;
        Ok(Self { id: PackageId::of(&metadata.label, &bytes), bytes, component })
    }
}

/// Packs a component under a label. Equal input gives equal bytes, so that organisations that build the same sources with the same
/// compiler get the same package id.
///
/// # Errors
/// The label has characters that Fabric does not allow.
pub fn pack(label: &str, component: &[u8]) -> Result<Vec<u8>, PackageError> {
    if !is_label(label) {
        return Err(PackageError::Label(label.chars().take(128).collect()));
    }
    let code = archive(CODE_FILE, &[(COMPONENT_FILE, component)])?;
    // Written by hand, so that the order of the fields is fixed; a label needs no escapes.
    let metadata = format!(r#"{{"path":"","type":"{PACKAGE_TYPE}","label":"{label}"}}"#);
    archive("package", &[(METADATA_FILE, metadata.as_bytes()), (CODE_FILE, &code)])
}

fn archive(name: &'static str, files: &[(&str, &[u8])]) -> Result<Vec<u8>, PackageError> {
    let broken = |source| PackageError::Archive { archive: name, source };
    // No time and no file name in the header: equal input, equal bytes.
    let encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    let mut tar = tar::Builder::new(encoder);
    for (name, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        tar.append_data(&mut header, name, *content).map_err(broken)?;
    }
    let mut bytes = tar.into_inner().and_then(flate2::write::GzEncoder::finish).map_err(broken)?;
    bytes.flush().map_err(broken)?;
    Ok(bytes)
}

/// The rule of labels: `^[[:alnum:]][[:alnum:]_.+-]*$`.
fn is_label(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.+-".contains(&byte))
}

fn component(code: &[u8], limit: u64) -> Result<Vec<u8>, PackageError> {
    let mut found: Option<Vec<u8>> = None;
    entries(CODE_FILE, code, limit, |name, content| {
        let wasm = std::path::Path::new(name).extension().is_some_and(|extension| extension == "wasm");
        if wasm && found.replace(content).is_some() {
            return Err(PackageError::SeveralComponents);
        }
        Ok(())
    })?;
    found.ok_or(PackageError::NoComponent)
}

/// Hands every regular file of a gzip'ed tar to `take`.
fn entries(
    archive: &'static str,
    bytes: &[u8],
    limit: u64,
    mut take: impl FnMut(&str, Vec<u8>) -> Result<(), PackageError>,
) -> Result<(), PackageError> {
    let broken = |source| PackageError::Archive { archive, source };
    // One byte more than allowed is let through, so that reaching it tells "too large" from "just fits".
    let mut unpacked = tar::Archive::new(GzDecoder::new(bytes).take(limit + 1));
    let mut total = 0;
    for (index, entry) in unpacked.entries().map_err(broken)?.enumerate() {
        let mut entry = entry.map_err(broken)?;
        if index >= ENTRIES_MAX {
            return Err(broken(std::io::Error::other(format!("it has more than {ENTRIES_MAX} entries"))));
        }
        if total + entry.size() > limit {
            return Err(PackageError::TooLarge { what: archive, limit });
        }
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = entry.path().map_err(broken)?.to_string_lossy().into_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).map_err(broken)?;
        total += content.len() as u64;
        take(&name, content)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        super::archive("package", files).unwrap()
    }

    fn package(label: &str, component: &[u8]) -> Bytes {
        pack(label, component).unwrap().into()
    }

    const LIMIT: u64 = 1 << 20;

    #[test]
    fn a_package_gives_its_component_and_an_id_of_label_and_hash() {
        let bytes = package("basic_1.0", b"component");
        let opened = Package::open(bytes.clone(), LIMIT).unwrap();
        assert_eq!(opened.component, b"component");
        assert_eq!(opened.id.as_str(), format!("basic_1.0:{}", hex::encode(sha256(&bytes))));
        assert_eq!(opened.id.label(), "basic_1.0");
        assert_eq!(PackageId::parse(opened.id.as_str()).unwrap(), opened.id);
    }

    #[test]
    fn a_package_of_another_language_is_refused_by_name() {
        let bytes = archive(&[("metadata.json", br#"{"type":"golang","label":"a"}"#), ("code.tar.gz", b"")]);
        let error = Package::open(bytes.into(), LIMIT).unwrap_err().to_string();
        assert_eq!(error, "chaincode type 'golang' is not supported: this peer runs packages of type 'wasm'");
    }

    #[test]
    fn garbage_and_missing_files_are_errors() {
        assert!(matches!(
            Package::open(Bytes::from_static(b"no gzip"), LIMIT),
            Err(PackageError::Archive { .. })
        ));
        let bytes = archive(&[("code.tar.gz", b"")]);
        assert!(matches!(Package::open(bytes.into(), LIMIT), Err(PackageError::Missing("metadata.json"))));
        let bytes = archive(&[("metadata.json", br#"{"type":"wasm","label":"../a"}"#)]);
        assert!(matches!(Package::open(bytes.into(), LIMIT), Err(PackageError::Label(_))));
    }

    #[test]
    fn what_unpacks_to_more_than_the_limit_is_refused() {
        let bytes = package("bomb", &vec![0; 4 << 20]);
        assert!((bytes.len() as u64) < LIMIT);
        assert!(matches!(Package::open(bytes, LIMIT), Err(PackageError::TooLarge { .. })));
    }

    #[test]
    fn an_id_is_a_label_and_a_hash() {
        for text in
            ["", "basic", "basic:12", "../x:0000000000000000000000000000000000000000000000000000000000000000"]
        {
            assert!(PackageId::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn equal_input_gives_equal_bytes_and_a_label_with_foreign_characters_is_refused() {
        assert_eq!(pack("basic_1.0", b"component").unwrap(), pack("basic_1.0", b"component").unwrap());
        for label in ["basic 1.0", "", "_basic"] {
            assert!(pack(label, b"").is_err(), "{label}");
        }
    }
}
