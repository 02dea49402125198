//! `consort ca`: what a certificate authority is and knows.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use consort_client_sdk::ca::Affiliation;
use consort_crypto::certificate::Certificate;
use consort_crypto::revocation::RevocationList;
use serde_json::{Value, json};

use crate::authority::{AuthorityOptions, CallerOptions};
use crate::files;
use crate::identity::described;
use crate::output::Output;
use crate::report::{count, table};

/// Certificate authorities: their name and chain, revocation lists, affiliations, certificates, the audit log
#[derive(Debug, Subcommand)]
pub(crate) enum CaCommand {
    /// Show name, version and certificates of an authority; anybody may ask
    #[command(
        after_help = "Examples:\n  consort ca info\n  consort ca info --org org2.example.com --chain chain.pem"
    )]
    Info(InfoOptions),
    /// Make the list of revoked certificates and write it to a file
    #[command(
        after_help = "Example:\n  consort ca gencrl --to crl.pem\n  cp crl.pem <MSP folder>/crls/   # and update the channels' configurations"
    )]
    Gencrl(CrlOptions),
    /// Show, add, rename and remove affiliations
    #[command(subcommand)]
    Affiliations(AffiliationCommand),
    /// List the certificates that were issued
    #[command(subcommand)]
    Certificates(CertificatesCommand),
    /// Show what was issued and revoked, when and by whom
    #[command(after_help = "Examples:\n  consort ca audit\n  consort ca audit --after 120 --output json")]
    Audit(AuditOptions),
}

/// Affiliations of an authority
#[derive(Debug, Subcommand)]
pub(crate) enum AffiliationCommand {
    /// Show all, or one with those below it
    #[command(after_help = "Examples:\n  consort ca affiliations list\n  consort ca affiliations list org1")]
    List(AffiliationListOptions),
    /// Add one
    #[command(after_help = "Example:\n  consort ca affiliations add org1.department3")]
    Add(AffiliationChangeOptions),
    /// Give one another name; with --force the identities there follow
    #[command(after_help = "Example:\n  consort ca affiliations rename org1.department3 org1.sales --force")]
    Rename(AffiliationRenameOptions),
    /// Remove one, where the authority allows it; with --force with all below it
    #[command(after_help = "Example:\n  consort ca affiliations remove org1.sales --force")]
    Remove(AffiliationChangeOptions),
}

/// Issued certificates
#[derive(Debug, Subcommand)]
pub(crate) enum CertificatesCommand {
    /// List them; all conditions must hold
    #[command(
        after_help = "Examples:\n  consort ca certificates list --id alice\n  consort ca certificates list --valid --ends-before +30d"
    )]
    List(CertificateListOptions),
}

#[derive(Debug, Args)]
pub(crate) struct InfoOptions {
    #[command(flatten)]
    authority: AuthorityOptions,

    /// Write the chain of certificates to this file
    #[arg(long, value_name = "FILE")]
    chain: Option<PathBuf>,

    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct CrlOptions {
    #[command(flatten)]
    caller: CallerOptions,

    /// File to write (PEM)
    #[arg(long, value_name = "FILE")]
    to: PathBuf,

    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct AffiliationListOptions {
    #[command(flatten)]
    caller: CallerOptions,

    /// The affiliation to begin with [default: the caller's]
    name: Option<String>,

    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct AffiliationChangeOptions {
    #[command(flatten)]
    caller: CallerOptions,

    /// The affiliation, such as org1.department1
    name: String,

    /// Also what depends on it: those above that are missing, or those below and the identities there
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct AffiliationRenameOptions {
    #[command(flatten)]
    change: AffiliationChangeOptions,

    /// The new name
    to: String,
}

#[derive(Debug, Args)]
pub(crate) struct CertificateListOptions {
    #[command(flatten)]
    caller: CallerOptions,

    /// Of this identity
    #[arg(long, value_name = "ID")]
    id: Option<String>,

    /// With this serial number (hexadecimal)
    #[arg(long, value_name = "HEX")]
    serial: Option<String>,

    /// Only those that are neither revoked nor ended
    #[arg(long)]
    valid: bool,

    /// Only those that end before this moment: a day (2027-01-31), a moment (RFC 3339) or a span from now (+30d)
    #[arg(long, value_name = "MOMENT", allow_hyphen_values = true)]
    ends_before: Option<String>,

    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct AuditOptions {
    #[command(flatten)]
    caller: CallerOptions,

    /// Only rows after this number
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    after: i64,

    #[command(flatten)]
    output: Output,
}

/// Runs one of the commands.
///
/// # Errors
/// What failed, with its cause and what helps.
pub(crate) async fn run(command: CaCommand) -> anyhow::Result<()> {
    match command {
        CaCommand::Info(options) => info(&options).await,
        CaCommand::Gencrl(options) => generate_crl(&options).await,
        CaCommand::Affiliations(command) => affiliations(command).await,
        CaCommand::Certificates(CertificatesCommand::List(options)) => certificates(&options).await,
        CaCommand::Audit(options) => audit(&options).await,
    }
}

async fn info(options: &InfoOptions) -> anyhow::Result<()> {
    let info = options.authority.open()?.client.info().await?;
    let chain = Certificate::all_from_pem(info.chain_pem.as_bytes()).context("the chain cannot be read")?;
    if let Some(path) = &options.chain {
        files::write_atomically(path, info.chain_pem.as_bytes(), false)?;
    }
    let links: Vec<Value> = chain.iter().map(described).collect();
    options.output.print(&json!({ "name": info.name, "version": info.version, "chain": links }), || {
        let mut text = format!("{} (speaks the API of Fabric CA {})", info.name, info.version);
        for certificate in &chain {
            let key = certificate.public_key().algorithm();
            text.push_str(&format!(
                "\n  {}, {key}, until {}",
                certificate.subject(),
                certificate.not_after().date()
            ));
        }
        text
    })
}

async fn generate_crl(options: &CrlOptions) -> anyhow::Result<()> {
    let (reached, caller) = options.caller.open().await?;
    let pem = reached.client.gen_crl(&caller).await?;
    let list = RevocationList::from_pem_or_der(pem.as_bytes()).context("the list cannot be read")?;
    files::write_atomically(&options.to, pem.as_bytes(), false)?;
    let number = list.revoked().len();
    let next = list.next_update().map(|next| next.date().to_string());
    options.output.print(&json!({ "file": options.to, "revoked": number, "next_update": next }), || {
        format!("{} on the list in {}", count(number, "revoked certificate"), options.to.display())
    })
}

async fn affiliations(command: AffiliationCommand) -> anyhow::Result<()> {
    match command {
        AffiliationCommand::List(options) => {
            let (reached, caller) = options.caller.open().await?;
            let tree = reached.client.affiliations(&caller, options.name.as_deref()).await?;
            options.output.print(&json!(tree), || drawn(&tree))
        }
        AffiliationCommand::Add(options) => {
            let (reached, caller) = options.caller.open().await?;
            reached.client.add_affiliation(&caller, &options.name, options.force).await?;
            options
                .output
                .print(&json!({ "affiliation": options.name }), || format!("{} is there", options.name))
        }
        AffiliationCommand::Rename(AffiliationRenameOptions { change, to }) => {
            let (reached, caller) = change.caller.open().await?;
            let moved = reached.client.rename_affiliation(&caller, &change.name, &to, change.force).await?;
            let identities = moved.identities.len();
            let json = json!({ "affiliation": to, "before": change.name, "identities": identities });
            change.output.print(&json, || {
                format!("{} is now {to}; {} moved with it", change.name, count(identities, "identity"))
            })
        }
        AffiliationCommand::Remove(options) => {
            let (reached, caller) = options.caller.open().await?;
            let gone = reached.client.remove_affiliation(&caller, &options.name, options.force).await?;
            let identities = gone.identities.len();
            options.output.print(&json!({ "removed": options.name, "identities": identities }), || {
                format!("{} is gone, with {}", options.name, count(identities, "identity"))
            })
        }
    }
}

/// One line for each affiliation, those below one another in order.
fn drawn(tree: &Affiliation) -> String {
    let mut names = Vec::new();
    // Depth is bounded by the answer, which the client read whole.
    let mut waiting = vec![tree];
    while let Some(next) = waiting.pop() {
        if !next.name.is_empty() {
            names.push(next.name.clone());
        }
        waiting.extend(next.affiliations.iter().rev());
    }
    if names.is_empty() { "none".to_owned() } else { names.join("\n") }
}

async fn certificates(options: &CertificateListOptions) -> anyhow::Result<()> {
    let (reached, caller) = options.caller.open().await?;
    let mut query: Vec<(&str, &str)> = Vec::new();
    let texts = [("id", &options.id), ("serial", &options.serial), ("expired_end", &options.ends_before)];
    query.extend(texts.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))));
    if options.valid {
        query.push(("notrevoked", "true"));
        // The authority takes one of the two conditions on the end; a window from now on says the same.
        query.push(if options.ends_before.is_some() {
            ("expired_start", "now")
        } else {
            ("notexpired", "true")
        });
    }
    let pems = reached.client.certificates(&caller, &query).await?;
    let found = pems
        .iter()
        .map(|pem| Certificate::from_pem(pem).context("a certificate of the list cannot be read"))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let json: Vec<Value> = found.iter().map(described).collect();
    options.output.print(&json!(json), || {
        let head = ["identity", "units", "until", "serial"].map(str::to_owned).to_vec();
        let row = |certificate: &Certificate| {
            vec![
                certificate.subject_common_name().unwrap_or_default().to_owned(),
                certificate.organizational_units().join("."),
                certificate.not_after().date().to_string(),
                certificate.serial_hex(),
            ]
        };
        let rows: Vec<_> = std::iter::once(head).chain(found.iter().map(row)).collect();
        table(&rows)
    })
}

async fn audit(options: &AuditOptions) -> anyhow::Result<()> {
    let (reached, caller) = options.caller.open().await?;
    let rows = reached.client.audit(&caller, options.after).await?;
    options.output.print(&json!(rows), || {
        let head =
            ["number", "when", "by", "what", "identity", "detail", "serial"].map(str::to_owned).to_vec();
        let row = |row: &consort_client_sdk::ca::AuditEntry| {
            vec![
                row.number.to_string(),
                row.at.clone().unwrap_or_default(),
                row.caller.clone(),
                row.action.clone(),
                row.id.clone(),
                row.detail.clone(),
                row.serial.clone(),
            ]
        };
        let rows: Vec<_> = std::iter::once(head).chain(rows.iter().map(row)).collect();
        table(&rows)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn affiliations_are_drawn_from_the_top_in_order() {
        let leaf = |name: &str| Affiliation {
            name: name.to_owned(),
            affiliations: Vec::new(),
            identities: Vec::new(),
        };
        let org1 = Affiliation { affiliations: vec![leaf("org1.a"), leaf("org1.b")], ..leaf("org1") };
        let tree = Affiliation { affiliations: vec![org1, leaf("org2")], ..leaf("") };

        assert_eq!(drawn(&tree), "org1\norg1.a\norg1.b\norg2");
        assert_eq!(drawn(&leaf("")), "none");
    }
}
