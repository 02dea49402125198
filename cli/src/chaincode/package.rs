//! Chaincode packages: the archive that a peer installs.
//!
//! The layout is Fabric's (`core/chaincode/persistence/chaincode_package.go`): a gzip'ed tar of `metadata.json` and
//! `code.tar.gz`. The type is `wasm`, and the code is one component. Equal input gives equal bytes, so that organisations that build
//! the same sources with the same compiler get the same package id.

use std::io::Write;

use anyhow::{Context, Result, bail};
use flate2::{Compression, GzBuilder};

/// The type that peers of this project run.
pub const PACKAGE_TYPE: &str = "wasm";
/// Name of the component in the code archive.
pub const COMPONENT_FILE: &str = "chaincode.wasm";

/// Packs a component under a label.
///
/// # Errors
/// The label has characters that Fabric does not allow: it must match `^[[:alnum:]][[:alnum:]_.+-]*$`.
pub fn package(label: &str, component: &[u8]) -> Result<Vec<u8>> {
    check_label(label)?;
    let code = archive(&[(COMPONENT_FILE, component)])?;
    // Written by hand, so that the order of the fields is fixed; a label needs no escapes.
    let metadata = format!(r#"{{"path":"","type":"{PACKAGE_TYPE}","label":"{label}"}}"#);
    archive(&[("metadata.json", metadata.as_bytes()), ("code.tar.gz", &code)])
}

fn check_label(label: &str) -> Result<()> {
    let mut characters = label.chars();
    let first = characters.next().is_some_and(|character| character.is_ascii_alphanumeric());
    if !first || !characters.all(|character| character.is_ascii_alphanumeric() || "_.+-".contains(character))
    {
        bail!(
            "invalid label '{label}': a label begins with a letter or digit and goes on with letters, digits, '_', '.', '+' or '-'"
        );
    }
    Ok(())
}

fn archive(files: &[(&str, &[u8])]) -> Result<Vec<u8>> {
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
        tar.append_data(&mut header, name, *content).with_context(|| format!("cannot pack {name}"))?;
    }
    let mut bytes = tar
        .into_inner()
        .context("cannot finish the archive")?
        .finish()
        .context("cannot finish the archive")?;
    bytes.flush().context("cannot finish the archive")?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn unpack(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(bytes));
        archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let name = entry.path().unwrap().display().to_string();
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                (name, content)
            })
            .collect()
    }

    #[test]
    fn a_package_holds_metadata_and_the_component() {
        let files = unpack(&package("basic_1.0", b"component").unwrap());
        assert_eq!(files[0].0, "metadata.json");
        assert_eq!(files[0].1, br#"{"path":"","type":"wasm","label":"basic_1.0"}"#);
        assert_eq!(files[1].0, "code.tar.gz");
        assert_eq!(unpack(&files[1].1), [(COMPONENT_FILE.to_owned(), b"component".to_vec())]);
    }

    #[test]
    fn equal_input_gives_equal_bytes() {
        assert_eq!(package("basic_1.0", b"component").unwrap(), package("basic_1.0", b"component").unwrap());
    }

    #[test]
    fn a_label_with_foreign_characters_is_refused() {
        assert!(package("basic 1.0", b"").is_err());
        assert!(package("", b"").is_err());
        assert!(package("_basic", b"").is_err());
    }
}
