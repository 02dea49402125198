//! Reading what was granted.

use clap::Args;
use consort_client_sdk::sealed::{Opened, Suite};
use serde_json::json;

use super::records::{PlaintextOptions, RecordOptions, record_words};
use super::session::{SealedOptions, Session};

#[derive(Debug, Args)]
pub(crate) struct ReadOptions {
    #[command(flatten)]
    common: SealedOptions,

    /// The grant
    grant: String,

    #[command(flatten)]
    record: RecordOptions,

    #[command(flatten)]
    plaintext: PlaintextOptions,
}

#[derive(Debug, Args)]
pub(crate) struct RequestOptions {
    #[command(flatten)]
    common: SealedOptions,

    /// The grant
    grant: String,

    #[command(flatten)]
    record: RecordOptions,
}

#[derive(Debug, Args)]
pub(crate) struct OpenOptions {
    #[command(flatten)]
    common: SealedOptions,

    /// The request: the transaction that `consort sealed request` printed
    request: String,

    #[command(flatten)]
    plaintext: PlaintextOptions,
}

/// `consort sealed request`.
///
/// # Errors
/// Those of the transaction: the grant is for another reader, over, used up or revoked.
pub(super) async fn request(options: &RequestOptions) -> anyhow::Result<()> {
    let RequestOptions { common, grant, record } = options;
    let requested = common.open().await?.sealed.request(grant, &record.name()).await?;
    let json = json!({ "request": requested.request, "block": requested.block });
    common.output.print(&json, || {
        format!(
            "request {} is in block {}; open it with `consort sealed open`",
            requested.request, requested.block
        )
    })
}

/// `consort sealed read`.
///
/// # Errors
/// As [`request`] and [`open`].
pub(super) async fn read(options: &ReadOptions) -> anyhow::Result<()> {
    let ReadOptions { common, grant, record, plaintext } = options;
    let session = common.open().await?;
    let key = session.reader_key(session.suite(&record.name().domain).await?)?;
    let ciphertext = plaintext.ciphertext()?;
    session.sealed.check_reader_key(grant, &key).await?;
    let requested = session.sealed.request(grant, &record.name()).await?;
    let opened = session.sealed.open_with(&requested.request, &key, ciphertext.as_deref()).await?;
    print(common, plaintext, &requested.request, &opened)
}

/// `consort sealed open`.
///
/// # Errors
/// Too few proxies answer; the key is not the reader's.
pub(super) async fn open(options: &OpenOptions) -> anyhow::Result<()> {
    let OpenOptions { common, request, plaintext } = options;
    let session = common.open().await?;
    let key = session.reader_key(suite_of_request(&session, request).await?)?;
    let ciphertext = plaintext.ciphertext()?;
    let opened = session.sealed.open_with(request, &key, ciphertext.as_deref()).await?;
    print(common, plaintext, request, &opened)
}

async fn suite_of_request(session: &Session, request: &str) -> anyhow::Result<Suite> {
    let asked = session.sealed.request_status(request).await?.request.unwrap_or_default();
    session.suite(&asked.record.unwrap_or_default().domain).await
}

fn print(
    common: &SealedOptions,
    plaintext: &PlaintextOptions,
    request: &str,
    opened: &Opened,
) -> anyhow::Result<()> {
    let text = plaintext.put(&opened.plaintext)?;
    let missing: Vec<String> = opened.missing.iter().map(ToString::to_string).collect();
    let record = &opened.record;
    let json = json!({
        "domain": record.domain, "key": record.key, "version": record.version, "request": request,
        "proxies": opened.proxies, "missing": missing, "record": text,
    });
    common.output.print(&json, || {
        let written = || format!("record {} opened", record_words(record));
        let mut lines = vec![text.clone().unwrap_or_else(written)];
        lines.extend(missing.iter().map(|missing| format!("note: {missing}")));
        lines.join("\n")
    })
}
