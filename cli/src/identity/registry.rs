//! What a registrar does: register, revoke, list.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use consort_client_sdk::ca::{Attribute, RegisteredIdentity, Registration, Revoke};
use consort_crypto::certificate::Certificate;
use serde_json::json;

use crate::authority::CallerOptions;
use crate::files;
use crate::output::Output;
use crate::report::{count, table};

#[derive(Debug, Args)]
pub(crate) struct RegisterOptions {
    #[command(flatten)]
    caller: CallerOptions,

    /// Enrolment id
    #[arg(long, value_name = "ID")]
    id: String,

    /// client, peer, orderer, admin or another word; it becomes the role in the certificate
    #[arg(long = "type", value_name = "TYPE", default_value = "client")]
    kind: String,

    /// Where it stands, such as org1.department1 [default: where the caller stands]
    #[arg(long, value_name = "AFFILIATION")]
    affiliation: Option<String>,

    /// Attribute, with :ecert if certificates carry it by default; repeat for several
    #[arg(long = "attribute", value_name = "NAME=VALUE[:ecert]")]
    attributes: Vec<String>,

    /// How often it may enrol; -1 is without limit
    #[arg(long, value_name = "NUMBER", default_value_t = 1, allow_negative_numbers = true)]
    max_enrollments: i64,

    /// File with the secret to register [default: the authority makes one]
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,

    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct RevokeOptions {
    #[command(flatten)]
    caller: CallerOptions,

    /// Revoke this identity with all its certificates
    #[arg(long, value_name = "ID", required_unless_present_any = ["cert", "serial"])]
    id: Option<String>,

    /// Revoke the certificate in this file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["id", "serial", "aki"])]
    cert: Option<PathBuf>,

    /// Revoke the certificate with this serial number (hexadecimal)
    #[arg(long, value_name = "HEX", requires = "aki", conflicts_with = "id")]
    serial: Option<String>,

    /// Its authority key identifier (hexadecimal)
    #[arg(long, value_name = "HEX", requires = "serial")]
    aki: Option<String>,

    /// Why, in a word of RFC 5280: keycompromise, superseded, cessationofoperation, ...
    #[arg(long, value_name = "REASON", default_value = "")]
    reason: String,

    /// Write the new list of revoked certificates to this file
    #[arg(long, value_name = "FILE")]
    crl: Option<PathBuf>,

    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct ListOptions {
    #[command(flatten)]
    caller: CallerOptions,

    /// Show only this identity
    #[arg(long, value_name = "ID")]
    id: Option<String>,

    #[command(flatten)]
    output: Output,
}

/// Runs `consort identity register`.
///
/// # Errors
/// The authority refuses, or does not answer.
pub(crate) async fn register(options: &RegisterOptions) -> anyhow::Result<()> {
    let (reached, caller) = options.caller.open().await?;
    let secret = match &options.secret_file {
        None => None,
        Some(path) => {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            Some(text.trim().to_owned())
        }
    };
    let attributes = options.attributes.iter().map(|text| attribute(text)).collect::<Result<_, _>>()?;
    let registration = Registration {
        id: options.id.clone(),
        kind: Some(options.kind.clone()),
        affiliation: options.affiliation.clone(),
        secret,
        max_enrollments: Some(options.max_enrollments),
        attributes,
    };
    let secret = reached.client.register(&caller, &registration).await?;
    options.output.print(&json!({ "id": options.id, "secret": secret }), || {
        format!("{} is registered. Its enrolment secret, shown only now:\n{secret}", options.id)
    })
}

/// `name=value`, with `:ecert` at its end.
fn attribute(text: &str) -> anyhow::Result<Attribute> {
    let Some((name, value)) = text.split_once('=').filter(|(name, _)| !name.is_empty()) else {
        bail!("'{text}' is not of the form name=value or name=value:ecert");
    };
    let (value, ecert) = match value.strip_suffix(":ecert") {
        Some(value) => (value, true),
        None => (value, false),
    };
    Ok(Attribute { name: name.to_owned(), value: value.to_owned(), ecert })
}

/// Runs `consort identity revoke`.
///
/// # Errors
/// The authority refuses or does not answer, or files cannot be read or written.
pub(crate) async fn revoke(options: &RevokeOptions) -> anyhow::Result<()> {
    let what = match (&options.id, &options.cert, &options.serial, &options.aki) {
        (Some(id), ..) => Revoke::Identity(id.clone()),
        (None, Some(path), ..) => {
            let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            let certificate = Certificate::from_pem(text)
                .with_context(|| format!("{} holds no certificate", path.display()))?;
            let aki = certificate.authority_key_id().map(hex::encode).unwrap_or_default();
            Revoke::Certificate { serial: certificate.serial_hex(), aki }
        }
        (None, None, Some(serial), Some(aki)) => {
            Revoke::Certificate { serial: serial.clone(), aki: aki.clone() }
        }
        _ => bail!("what is to be revoked? Name an identity with --id, or a certificate with --cert"),
    };
    let (reached, caller) = options.caller.open().await?;
    let done = reached.client.revoke(&caller, &what, &options.reason, options.crl.is_some()).await?;
    if let (Some(path), Some(crl)) = (&options.crl, &done.crl_pem) {
        files::write_atomically(path, crl.as_bytes(), false)?;
    }
    let revoked: Vec<_> =
        done.certificates.iter().map(|(serial, aki)| json!({ "serial": serial, "aki": aki })).collect();
    options.output.print(&json!({ "revoked": revoked, "crl": options.crl }), || {
        let mut text = format!("{} revoked", count(done.certificates.len(), "certificate"));
        for (serial, _) in &done.certificates {
            text.push_str(&format!("\n  serial {serial}"));
        }
        match &options.crl {
            Some(path) => text.push_str(&format!(
                "\nThe list is in {}: put it into crls/ of the organisation's MSP and into the channels' configurations.",
                path.display()
            )),
            None => text.push_str("\nNobody knows yet: publish a list with `consort ca gencrl --to <file>`."),
        }
        text
    })
}

/// Runs `consort identity list`.
///
/// # Errors
/// The authority refuses, or does not answer.
pub(crate) async fn list(options: &ListOptions) -> anyhow::Result<()> {
    let (reached, caller) = options.caller.open().await?;
    let identities = match &options.id {
        Some(id) => vec![reached.client.identity(&caller, id).await?],
        None => reached.client.identities(&caller).await?,
    };
    options.output.print(&json!(identities), || {
        let head = ["id", "type", "affiliation", "enrolments", "attributes"].map(str::to_owned).to_vec();
        let rows: Vec<Vec<String>> = std::iter::once(head).chain(identities.iter().map(row)).collect();
        table(&rows)
    })
}

fn row(identity: &RegisteredIdentity) -> Vec<String> {
    let most = match identity.max_enrollments {
        -1 => "any number".to_owned(),
        most => format!("at most {most}"),
    };
    // The three that every identity has say nothing new.
    let own = |attribute: &&Attribute| {
        !["hf.EnrollmentID", "hf.Type", "hf.Affiliation"].contains(&attribute.name.as_str())
    };
    let attributes: Vec<String> = identity
        .attributes
        .iter()
        .filter(own)
        .map(|attribute| format!("{}={}", attribute.name, attribute.value))
        .collect();
    let affiliation = if identity.affiliation.is_empty() { "." } else { &identity.affiliation };
    vec![identity.id.clone(), identity.kind.clone(), affiliation.to_owned(), most, attributes.join(" ")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_with_their_mark() {
        let read = |text: &str| attribute(text).map(|read| (read.name, read.value, read.ecert));

        assert_eq!(read("role=auditor:ecert").unwrap(), ("role".to_owned(), "auditor".to_owned(), true));
        assert_eq!(read("a=b=c").unwrap(), ("a".to_owned(), "b=c".to_owned(), false));
        assert!(read("role").unwrap_err().to_string().contains("name=value"));
    }
}
