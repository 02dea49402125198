//! Domains and records of an owner.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use consort_client_sdk::sealed::{RecordName, Suite};
use serde_json::json;

use super::session::SealedOptions;
use crate::files::write_atomically;
use crate::report::table;

#[derive(Debug, Args)]
pub(crate) struct DomainOptions {
    #[command(flatten)]
    common: SealedOptions,

    /// Id of the domain, new on the channel: 1 to 64 of A-Z a-z 0-9 . _ -
    domain: String,

    /// Algorithms: p256 (P-256, SHA-256, AES-256-GCM) or sm2 (SM2, SM3, SM4-GCM)
    #[arg(long, default_value = "p256", value_parser = suite)]
    suite: Suite,

    /// What the domain is, for people
    #[arg(long, default_value = "")]
    description: String,
}

#[derive(Debug, Args)]
pub(crate) struct SealOptions {
    #[command(flatten)]
    common: SealedOptions,

    /// The domain
    domain: String,

    /// Key of the record within the domain
    key: String,

    /// The record
    #[arg(long, conflicts_with = "file", required_unless_present = "file")]
    text: Option<String>,

    /// File with the record
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// Keep the ciphertext here instead of on the ledger (for records of more than 64 KiB); put it there yourself
    #[arg(long, value_name = "LOCATION", requires = "ciphertext_to")]
    elsewhere: Option<String>,

    /// File to write the ciphertext to
    #[arg(long, value_name = "FILE", requires = "elsewhere")]
    ciphertext_to: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ListOptions {
    #[command(flatten)]
    common: SealedOptions,

    /// The domain
    domain: String,
}

#[derive(Debug, Args)]
pub(crate) struct ShowOptions {
    #[command(flatten)]
    common: SealedOptions,

    #[command(flatten)]
    record: RecordOptions,

    #[command(flatten)]
    plaintext: PlaintextOptions,
}

/// Which record.
#[derive(Debug, Args)]
pub(super) struct RecordOptions {
    /// The domain
    domain: String,

    /// Key of the record within the domain
    key: String,

    /// Version of the record [default: the newest]
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    version: u64,
}

impl RecordOptions {
    pub(super) fn name(&self) -> RecordName {
        RecordName { domain: self.domain.clone(), key: self.key.clone(), version: self.version }
    }
}

/// What becomes of an opened record, and where its ciphertext is.
#[derive(Debug, Args)]
pub(super) struct PlaintextOptions {
    /// Write the record to this file (mode 0600) instead of printing it
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,

    /// The ciphertext, for a record that is kept elsewhere
    #[arg(long, value_name = "FILE")]
    ciphertext: Option<PathBuf>,
}

impl PlaintextOptions {
    pub(super) fn ciphertext(&self) -> anyhow::Result<Option<Vec<u8>>> {
        let read =
            |path: &PathBuf| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        self.ciphertext.as_ref().map(read).transpose()
    }

    /// Writes the record if that is wanted; returns the text to print otherwise.
    pub(super) fn put(&self, plaintext: &[u8]) -> anyhow::Result<Option<String>> {
        match &self.to {
            Some(path) => write_atomically(path, plaintext, true).map(|()| None),
            None => Ok(Some(String::from_utf8_lossy(plaintext).into_owned())),
        }
    }
}

fn suite(name: &str) -> Result<Suite, String> {
    Suite::from_name(name).ok_or_else(|| "must be p256 or sm2".to_owned())
}

/// A record as people write it: `st-anna/patient-17, version 3`.
pub(super) fn record_words(record: &RecordName) -> String {
    format!("{}/{}, version {}", record.domain, record.key, record.version)
}

/// `consort sealed domain`.
///
/// # Errors
/// Those of the transaction.
pub(super) async fn domain(options: &DomainOptions) -> anyhow::Result<()> {
    let DomainOptions { common, domain, suite, description } = options;
    let session = common.open().await?;
    let key = session.domain_key(*suite, domain)?;
    let committed = session.sealed.create_domain(domain, &key, description).await?;
    let public_key = hex::encode(key.public_key().to_bytes());
    let json = json!({
        "domain": domain, "suite": suite.name(), "public_key": public_key,
        "transaction": committed.tx_id, "block": committed.block,
    });
    common.output.print(&json, || {
        format!(
            "domain {domain} created in block {}; anybody may seal for its key {public_key}",
            committed.block
        )
    })
}

/// `consort sealed seal`.
///
/// # Errors
/// Those of the transaction; a file that cannot be read or written.
pub(super) async fn seal(options: &SealOptions) -> anyhow::Result<()> {
    let SealOptions { common, domain, key, text, file, elsewhere, ciphertext_to } = options;
    let plaintext = match (text, file) {
        (Some(text), _) => text.clone().into_bytes(),
        (None, Some(path)) => {
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?
        }
        (None, None) => Vec::new(),
    };
    let sealed = common.open().await?.sealed;
    let record = match (elsewhere, ciphertext_to) {
        (Some(location), Some(path)) => {
            let (record, ciphertext) = sealed.seal_elsewhere(domain, key, &plaintext, location).await?;
            write_atomically(path, &ciphertext, false)?;
            record
        }
        _ => sealed.seal(domain, key, &plaintext).await?,
    };
    let json = json!({
        "domain": domain, "key": key, "version": record.name.version,
        "transaction": record.committed.tx_id, "block": record.committed.block,
    });
    common.output.print(&json, || {
        format!("record {} sealed in block {}", record_words(&record.name), record.committed.block)
    })
}

/// `consort sealed list`.
///
/// # Errors
/// There is no such domain.
pub(super) async fn list(options: &ListOptions) -> anyhow::Result<()> {
    let records = options.common.open().await?.sealed.records(&options.domain).await?;
    let json: Vec<_> =
        records.iter().map(|record| json!({ "key": record.key, "version": record.version })).collect();
    options.common.output.print(&json!(json), || {
        let rows = records.iter().map(|record| vec![record.key.clone(), record.version.to_string()]);
        let head = ["record", "newest version"].map(str::to_owned).to_vec();
        table(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
    })
}

/// `consort sealed show`.
///
/// # Errors
/// The domain is not the caller's; the ciphertext is missing.
pub(super) async fn show(options: &ShowOptions) -> anyhow::Result<()> {
    let ShowOptions { common, record, plaintext } = options;
    let session = common.open().await?;
    let key = session.domain_key(session.suite(&record.domain).await?, &record.domain)?;
    let ciphertext = plaintext.ciphertext()?;
    let opened = session.sealed.open_own(&key, &record.name(), ciphertext.as_deref()).await?;
    let text = plaintext.put(&opened)?;
    common.output.print(&json!({ "record": text }), || text.clone().unwrap_or_default())
}
