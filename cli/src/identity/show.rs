//! Certificates in words.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::Args;
use consort_crypto::certificate::Certificate;
use serde_json::{Value, json};

use super::words;
use crate::authority::now;
use crate::output::Output;

/// The parts of an MSP folder that hold certificates, the own one first.
const PARTS: [&str; 6] =
    ["signcerts", "admincerts", "intermediatecerts", "cacerts", "tlsintermediatecerts", "tlscacerts"];

#[derive(Debug, Args)]
pub(crate) struct ShowOptions {
    /// A PEM file, or an MSP folder
    path: PathBuf,

    #[command(flatten)]
    output: Output,
}

/// Runs `consort identity show`.
///
/// # Errors
/// The path holds no certificate that can be read.
pub(crate) fn show(options: &ShowOptions) -> anyhow::Result<()> {
    let found = certificates(&options.path)?;
    let json: Vec<Value> = found
        .iter()
        .map(|(file, certificate)| {
            let mut json = words::described(certificate);
            json["file"] = json!(file);
            json
        })
        .collect();
    let now = now();
    options.output.print(&json!(json), || {
        let texts = found
            .iter()
            .map(|(file, certificate)| format!("{}\n{}", file.display(), words::in_words(certificate, now)));
        texts.collect::<Vec<_>>().join("\n\n")
    })
}

fn certificates(path: &Path) -> anyhow::Result<Vec<(PathBuf, Certificate)>> {
    let files: Vec<PathBuf> = if path.is_dir() {
        let mut files = Vec::new();
        for part in PARTS {
            let mut inside: Vec<PathBuf> = std::fs::read_dir(path.join(part))
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path())
                .filter(|path| path.is_file())
                .collect();
            inside.sort();
            files.extend(inside);
        }
        files
    } else {
        vec![path.to_owned()]
    };
    let mut found = Vec::new();
    for file in files {
        let text = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let inside = Certificate::all_from_pem(&text)
            .with_context(|| format!("{} holds no certificate that can be read", file.display()))?;
        found.extend(inside.into_iter().map(|certificate| (file.clone(), certificate)));
    }
    ensure!(
        !found.is_empty(),
        "{} holds no certificates (an MSP folder has signcerts or cacerts)",
        path.display()
    );
    Ok(found)
}
