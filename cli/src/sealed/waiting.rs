//! Shares that wait for their proxies: kept beside the owner's secret until each proxy has signed for its own.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::Args;
use consort_client_sdk::sealed::{Delivery, GrantAnswer, SealedShare, Terms};
use prost::Message;
use serde_json::json;

use super::session::SealedOptions;
use crate::files::{create_secret_folder, write_atomically};
use crate::report::count;

/// The folder of waiting shares, beside the secret's file.
const FOLDER: &str = "sealed-shares";

/// Longest id of a grant, in bytes; as the chaincode `_sealed` demands.
const ID_BYTES_MAX: usize = 64;

#[derive(Debug, Args)]
pub(crate) struct DeliverOptions {
    #[command(flatten)]
    common: SealedOptions,

    /// The grant
    grant: String,
}

/// The file with the waiting shares of a grant. Each is sealed to its proxy, so that the file tells nobody else anything.
pub(super) struct Waiting {
    path: PathBuf,
}

impl Waiting {
    /// The file of a grant of a channel, beside the owner's secret.
    ///
    /// # Errors
    /// The id is none that a grant can have.
    pub(super) fn new(secret: &Path, channel: &str, grant: &str) -> anyhow::Result<Self> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        ensure!(
            (1..=ID_BYTES_MAX).contains(&grant.len()) && grant.bytes().all(allowed),
            "the id of a grant has 1 to {ID_BYTES_MAX} of A-Z a-z 0-9 . _ -, and '{grant}' does not"
        );
        let folder = secret.parent().unwrap_or(Path::new(".")).join(FOLDER).join(channel);
        Ok(Self { path: folder.join(format!("{grant}.json")) })
    }

    fn read(&self) -> anyhow::Result<Vec<SealedShare>> {
        let text = match std::fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", self.path.display()));
            }
        };
        serde_json::from_slice(&text).with_context(|| {
            format!(
                "{} does not hold shares; restore it, or revoke the grant and make another",
                self.path.display()
            )
        })
    }

    fn write(&self, shares: &[SealedShare]) -> anyhow::Result<()> {
        if !shares.is_empty() {
            create_secret_folder(self.path.parent().unwrap_or(Path::new(".")))?;
            return write_atomically(&self.path, &serde_json::to_vec_pretty(shares)?, true);
        }
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", self.path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Keeps further shares. Those of an earlier attempt stay, as its transaction may still be committed: which ones count is told by
    /// the ledger.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn add(&self, shares: &[SealedShare]) -> anyhow::Result<()> {
        let mut all = self.read()?;
        all.extend_from_slice(shares);
        self.write(&all)
    }

    /// Drops shares of a grant that never comes to the ledger.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn forget(&self, shares: &[SealedShare]) -> anyhow::Result<()> {
        let mut all = self.read()?;
        all.retain(|share| !shares.contains(share));
        self.write(&all)
    }

    /// Keeps what was not delivered, and nothing else.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn keep(&self, delivery: &Delivery) -> anyhow::Result<()> {
        let rest: Vec<SealedShare> = delivery.undelivered.iter().map(|(share, _)| share.clone()).collect();
        self.write(&rest)
    }
}

/// What became of each share, line by line.
pub(super) fn delivery_words(grant: &str, delivery: &Delivery) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for (share, receipt) in &delivery.delivered {
        let (address, organisation) = (&share.address, &share.proxy.msp_id);
        lines.push(format!("proxy {}: {address} ({organisation}) has signed for its share", receipt.index));
    }
    lines.extend(delivery.undelivered.iter().map(|(_, missing)| format!("not delivered: {missing}")));
    if !delivery.undelivered.is_empty() {
        let shares = count(delivery.undelivered.len(), "share");
        lines.push(format!("{shares} kept here; `consort sealed deliver {grant}` tries again"));
    }
    lines
}

/// `consort sealed deliver`.
///
/// # Errors
/// No shares wait; the grant is not on the ledger or was revoked; proxies still do not take theirs.
pub(super) async fn deliver(options: &DeliverOptions) -> anyhow::Result<()> {
    let DeliverOptions { common, grant } = options;
    let session = common.open().await?;
    let waiting = session.waiting(grant)?;
    let mut shares = waiting.read()?;
    if shares.is_empty() {
        bail!(
            "no shares of grant {grant} wait in {}: its proxies have signed for all of them, or it was granted with another secret file",
            waiting.path.display()
        );
    }
    let GrantAnswer { grant: found, status, .. } =
        session.sealed.grant_status(grant).await.with_context(|| {
            format!("grant {grant} cannot be read; nothing was sent, and its shares are still kept")
        })?;
    if status.is_some_and(|status| status.revocation.is_some()) {
        waiting.write(&[])?;
        bail!("grant {grant} was revoked: its shares, which no proxy takes any more, are removed here");
    }
    let found = found.unwrap_or_default();
    shares.retain(|share| {
        let hash = share.sha256();
        found.commitments.iter().any(|commitment| commitment.sealed_share_sha256[..] == hash)
    });
    let terms = Terms::decode(found.terms).context("the ledger holds a grant that cannot be read")?;
    let delivery = session.sealed.deliver(shares).await;
    waiting.keep(&delivery)?;
    let undelivered: Vec<String> =
        delivery.undelivered.iter().map(|(_, missing)| missing.to_string()).collect();
    let acknowledged: Vec<&String> = delivery.delivered.iter().map(|(share, _)| &share.address).collect();
    let have = terms.proxies.len().saturating_sub(undelivered.len());
    let json = json!({
        "grant": grant, "acknowledged": acknowledged, "undelivered": undelivered, "receipts": have,
        "proxies": terms.proxies.len(), "threshold": terms.threshold,
    });
    common.output.print(&json, || {
        let mut lines = delivery_words(grant, &delivery);
        lines.push(format!(
            "{have} of {} of grant {grant} have their shares; {} must answer",
            count(terms.proxies.len(), "proxy"),
            terms.threshold
        ));
        lines.join("\n")
    })?;
    ensure!(undelivered.is_empty(), "{} not delivered; nothing is lost", count(undelivered.len(), "share"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(index: u32) -> SealedShare {
        serde_json::from_value(json!({
            "address": "peer0.b:1", "msp_id": "BMSP", "id": "x509::b::ca", "channel": "c", "grant": "g",
            "index": index, "sealed": "00ff",
        }))
        .unwrap()
    }

    #[test]
    fn shares_wait_until_their_proxies_have_them() {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("sealed-data.secret");
        let waiting = Waiting::new(&secret, "patients", "g").unwrap();
        assert_eq!(waiting.read().unwrap(), []);
        waiting.add(&[share(1)]).unwrap();
        waiting.add(&[share(2), share(3)]).unwrap();
        waiting.forget(&[share(1)]).unwrap();
        let again = Waiting::new(&secret, "patients", "g").unwrap();
        assert_eq!(again.read().unwrap(), [share(2), share(3)]);
        waiting.keep(&Delivery::default()).unwrap();
        assert!(!waiting.path.exists() && waiting.read().unwrap().is_empty());
    }

    #[test]
    fn a_grants_id_never_leads_out_of_the_folder() {
        for id in ["", "../g", "a/b", "a b", &"x".repeat(65)] {
            assert!(Waiting::new(Path::new("secret"), "patients", id).is_err(), "{id:?}");
        }
    }
}
