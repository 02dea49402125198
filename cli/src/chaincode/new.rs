//! `consort chaincode new`: a project that builds, and that passes its test.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;

use crate::files::write_atomically;

/// The SDK's folder in a clone of Consort.
const SDK: &str = "chaincode-sdk";

#[derive(Debug, Args)]
pub(crate) struct NewOptions {
    /// Name of the chaincode: letters, digits, '-' and '_'
    name: String,

    /// Folder to make [default: the name]
    #[arg(long, value_name = "FOLDER")]
    to: Option<PathBuf>,

    /// Folder chaincode-sdk of a clone of Consort [default: the clone around the current folder, or the one this program was built from]
    #[arg(long, value_name = "FOLDER")]
    sdk: Option<PathBuf>,
}

/// Makes the project.
///
/// # Errors
/// The name cannot be a chaincode's, the folder exists, or no SDK is found.
pub(crate) fn run(options: &NewOptions) -> anyhow::Result<()> {
    check_name(&options.name)?;
    let folder = options.to.clone().unwrap_or_else(|| PathBuf::from(&options.name));
    if folder.exists() {
        bail!("{} exists already.\nRemedy: choose another folder with --to.", folder.display());
    }
    let sdk = sdk(options.sdk.as_deref())?;
    create(&options.name, &folder, &sdk)?;
    println!(
        "{folder} is a chaincode project.\n\nTry:\n  cd {folder}\n  cargo test                                  # natively, in milliseconds\n  \
         consort chaincode test                      # the same tests in the sandbox, with fuel and memory\n  \
         consort chaincode deploy {name} --version 1.0 --path .    # on a running network",
        folder = folder.display(),
        name = options.name
    );
    Ok(())
}

/// Writes the project's files.
///
/// # Errors
/// A file cannot be written.
pub(crate) fn create(name: &str, folder: &Path, sdk: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder.join("src"))
        .with_context(|| format!("cannot make {}", folder.display()))?;
    let folder = folder.canonicalize()?;
    let contract = contract_name(name);
    let fill = |template: &str| {
        template
            .replace("{{name}}", name)
            .replace("{{contract}}", &contract)
            .replace("{{sdk}}", &relative(&folder, sdk).display().to_string())
    };
    write_atomically(&folder.join("Cargo.toml"), fill(MANIFEST).as_bytes(), false)?;
    write_atomically(&folder.join("src/lib.rs"), fill(LIBRARY).as_bytes(), false)?;
    write_atomically(&folder.join("README.md"), fill(README).as_bytes(), false)?;
    write_atomically(&folder.join(".gitignore"), b"/target\n*.wasm\n*.tar.gz\n", false)?;
    // The versions that the SDK was tested with, so that today's project builds the same bytes tomorrow.
    if let Some(lock) = sdk.parent().map(|clone| clone.join("Cargo.lock")).filter(|lock| lock.is_file()) {
        let lock = std::fs::read(&lock).with_context(|| format!("cannot read {}", lock.display()))?;
        write_atomically(&folder.join("Cargo.lock"), &lock, false)?;
    }
    Ok(())
}

/// The rule of chaincode names (Fabric `core/chaincode/lifecycle/scc.go`), and that of crates, which do not begin with a digit.
fn check_name(name: &str) -> anyhow::Result<()> {
    let words = name.split(['-', '_']);
    let valid =
        words.clone().all(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    if !valid || !name.starts_with(|first: char| first.is_ascii_alphabetic()) {
        bail!(
            "'{name}' cannot be a chaincode's name: it begins with a letter and is made of letters and digits, joined by '-' or '_'"
        );
    }
    Ok(())
}

fn contract_name(name: &str) -> String {
    name.split(['-', '_'])
        .map(|word| {
            let (first, rest) = word.split_at(usize::from(!word.is_empty()));
            format!("{}{rest}", first.to_uppercase())
        })
        .collect()
}

/// The SDK's folder.
fn sdk(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    let is_sdk =
        |folder: &Path| folder.join("wit/chaincode.wit").is_file() && folder.join("Cargo.toml").is_file();
    if let Some(folder) = named {
        if !is_sdk(folder) {
            bail!("{} is not the folder chaincode-sdk of a clone of Consort", folder.display());
        }
        return Ok(folder.canonicalize()?);
    }
    let around: Vec<PathBuf> = std::env::current_dir()
        .into_iter()
        .chain(std::env::current_exe())
        .flat_map(|from| from.ancestors().map(|folder| folder.join(SDK)).collect::<Vec<_>>())
        .collect();
    let built_from = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(SDK);
    let found = around.into_iter().chain(std::iter::once(built_from)).find(|folder| is_sdk(folder));
    let found = found.context(
        "the SDK is not found.\nRemedy: run this inside of a clone of Consort, or name the clone's folder chaincode-sdk with --sdk.",
    )?;
    Ok(found.canonicalize()?)
}

/// The way from one folder to another, both absolute.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let (from, to): (Vec<_>, Vec<_>) = (from.components().collect(), to.components().collect());
    let same = from.iter().zip(&to).take_while(|(left, right)| left == right).count();
    let up = std::iter::repeat_n(std::path::Component::ParentDir, from.len() - same);
    up.chain(to[same..].iter().copied()).collect()
}

const MANIFEST: &str = include_str!("template/Cargo.toml.in");
const LIBRARY: &str = include_str!("template/lib.rs.in");
const README: &str = include_str!("template/README.md.in");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_chaincodes_and_a_crates() {
        for name in ["basic", "asset-transfer_2"] {
            check_name(name).unwrap();
        }
        for name in ["", "2nd", "-a", "a--b", "a/b", "a b"] {
            assert!(check_name(name).is_err(), "{name}");
        }
        assert_eq!(contract_name("asset-transfer_2"), "AssetTransfer2");
    }

    #[test]
    fn the_way_to_the_sdk_is_relative() {
        assert_eq!(
            relative(Path::new("/a/b/new"), Path::new("/a/consort/sdk")),
            Path::new("../../consort/sdk")
        );
        assert_eq!(relative(Path::new("/a"), Path::new("/a/b")), Path::new("b"));
    }
}
