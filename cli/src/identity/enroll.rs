//! Enrolling by secret, and renewing by the certificate itself.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use consort_client_sdk::ca::{AttributeRequest, BlsWish, Enrollment, EnrollmentOptions};
use consort_crypto::bls::SecretKey;
use consort_crypto::certificate::Certificate;
use consort_crypto::key::{KeyAlgorithm, PrivateKey};
use serde_json::json;
use zeroize::Zeroizing;

use super::described;
use crate::authority::AuthorityOptions;
use crate::credentials::{self, Purpose};
use crate::output::Output;

/// What the certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Profile {
    /// Signing messages
    Identity,
    /// TLS servers and clients
    Tls,
}

#[derive(Debug, Args)]
pub(crate) struct EnrollOptions {
    #[command(flatten)]
    authority: AuthorityOptions,

    /// Enrolment id
    #[arg(long, value_name = "ID")]
    id: String,

    /// File with the enrolment secret; - reads it from standard input
    #[arg(long, value_name = "FILE", required_unless_present = "secret")]
    secret_file: Option<PathBuf>,

    /// The enrolment secret itself; rather in the variable than on the command line, which others can see
    #[arg(
        long,
        value_name = "SECRET",
        env = "CONSORT_SECRET",
        hide_env_values = true,
        conflicts_with = "secret_file"
    )]
    secret: Option<String>,

    /// MSP folder to write
    #[arg(long, value_name = "FOLDER")]
    msp: PathBuf,

    /// Replace the credentials that are in the folder
    #[arg(long)]
    force: bool,

    /// What the certificate is for
    #[arg(long, value_enum, default_value_t = Profile::Identity)]
    profile: Profile,

    /// Host name or address in the certificate; repeat for several
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,

    /// Attribute that the certificate must carry (with :opt, if there is one); repeat for several [default: those registered for it]
    #[arg(long = "attribute", value_name = "NAME[:opt]")]
    attributes: Vec<String>,

    /// Kind of key to make: p256, p384, ed25519 or sm2
    #[arg(long, value_name = "ALGORITHM", default_value_t = KeyAlgorithm::P256)]
    key_algorithm: KeyAlgorithm,

    /// Also make a BLS key, for endorsements that add up, and have it certified
    #[arg(long, requires = "msp_id")]
    bls: bool,

    /// MSP id of the organisation that the BLS key is proved for
    #[arg(long, value_name = "ID")]
    msp_id: Option<String>,

    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct ReenrollOptions {
    #[command(flatten)]
    authority: AuthorityOptions,

    /// MSP folder whose certificate is renewed
    #[arg(long, value_name = "FOLDER", required_unless_present = "cert", conflicts_with_all = ["cert", "key"])]
    msp: Option<PathBuf>,

    /// Certificate file that is renewed, in place
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,

    /// File of its key, replaced unless --reuse-key
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,

    /// Keep the key: for orderers' TLS certificates, which channel configurations know by their key
    #[arg(long)]
    reuse_key: bool,

    /// Kind of the new key [default: the kind of the old one]
    #[arg(long, value_name = "ALGORITHM", conflicts_with = "reuse_key")]
    key_algorithm: Option<KeyAlgorithm>,

    /// Make a new BLS key, too; the one before stays in the folder, for entries that name it, until you remove it
    #[arg(long, requires = "msp_id")]
    bls: bool,

    /// MSP id of the organisation that the BLS key is proved for
    #[arg(long, value_name = "ID")]
    msp_id: Option<String>,

    #[command(flatten)]
    output: Output,
}

/// Runs `consort identity enroll`.
///
/// # Errors
/// The folder is taken, the secret cannot be read, or the authority refuses.
pub(crate) async fn enroll(options: &EnrollOptions) -> anyhow::Result<()> {
    ensure!(
        options.force || !options.msp.exists(),
        "{} is there already.\nRemedy: renew it with `consort identity reenroll --msp {}`, replace it with --force, or name another folder.",
        options.msp.display(),
        options.msp.display()
    );
    let secret = secret(options)?;
    let reached = options.authority.open()?;
    let (profile, purpose) = match options.profile {
        Profile::Identity => (None, Purpose::Signing),
        Profile::Tls => (Some("tls".to_owned()), Purpose::Tls),
    };
    let bls = bls_wish(options.bls, options.msp_id.as_deref())?;
    ensure!(
        bls.is_none() || options.profile == Profile::Identity,
        "--bls is for --profile identity: TLS certificates carry no BLS key"
    );
    let wishes = EnrollmentOptions {
        profile,
        hosts: options.hosts.clone(),
        attributes: attributes(&options.attributes),
        key_algorithm: options.key_algorithm,
        bls_key: bls.clone(),
    };
    let enrolled = reached.client.enroll(&options.id, &secret, &wishes).await?;
    credentials::write_enrolled(
        &options.msp,
        &enrolled,
        &reached.name,
        purpose,
        bls.as_ref().map(|wish| &*wish.secret),
    )?;
    report(options.output, &enrolled, &options.msp, "enrolled")
}

/// Runs `consort identity reenroll`.
///
/// # Errors
/// The credentials cannot be read or written, or the authority refuses.
pub(crate) async fn reenroll(options: &ReenrollOptions) -> anyhow::Result<()> {
    let reached = options.authority.open()?;
    let current = match (&options.msp, &options.cert, &options.key) {
        (Some(folder), ..) => Enrollment::from_folder(folder)?,
        (None, Some(cert), Some(key)) => {
            let key_pem = Zeroizing::new(read(key)?);
            Enrollment::from_pem(&read(cert)?, &key_pem, "")
                .with_context(|| format!("{} and {} cannot be used", cert.display(), key.display()))?
        }
        _ => bail!("which certificate? Name an MSP folder with --msp, or files with --cert and --key"),
    };
    let certificate = Certificate::from_pem(&current.certificate_pem)?;
    let hosts = certificate.subject_alternative_names().iter().map(ToString::to_string).collect();
    // Whatever names purposes is a TLS certificate; those for signing name none.
    let profile = certificate.extended_key_usage().is_some().then(|| "tls".to_owned());
    let key_algorithm = options.key_algorithm.unwrap_or_else(|| current.key.algorithm());
    // A certificate that carries a BLS key goes on carrying one; the folder keeps the keys before it until they are removed.
    let certified = certificate.bls_key().ok().flatten().filter(|_| !options.bls);
    let bls = match (&certified, &options.msp) {
        (Some(certified), Some(folder)) => Some(credentials::bls_wish_of(folder, certified)?),
        (Some(_), None) => {
            bail!("the certificate carries a BLS key, which is proved anew: name the MSP folder with --msp")
        }
        (None, _) => bls_wish(options.bls, options.msp_id.as_deref())?,
    };
    ensure!(bls.is_none() || options.msp.is_some(), "--bls needs --msp: the key is kept in the MSP folder");
    let wishes = EnrollmentOptions { profile, hosts, attributes: None, key_algorithm, bls_key: bls.clone() };
    let renewed = if options.reuse_key {
        reached.client.reenroll_same_key(&current, &wishes).await?
    } else {
        reached.client.reenroll(&current, &wishes).await?
    };
    let place = match (&options.msp, &options.cert, &options.key) {
        (None, Some(cert), Some(key)) => {
            let behind = issuers_behind(cert, &renewed)?;
            credentials::replace_pair(cert, key, &renewed, &behind)?;
            cert
        }
        (folder, ..) => {
            let folder = folder.as_ref().context("a folder was named")?;
            if let (None, Some(wish)) = (&certified, &bls) {
                credentials::write_bls_key(folder, &wish.secret)?;
            }
            credentials::replace_in_folder(folder, &renewed)?;
            folder
        }
    };
    report(options.output, &renewed, place, "renewed")
}

/// The issuers that stood behind the certificate in its file, as a TLS server shows them: those that the authority tells
/// now, without the root.
fn issuers_behind(file: &Path, renewed: &Enrollment) -> anyhow::Result<String> {
    if Certificate::all_from_pem(read(file)?.as_bytes())?.len() < 2 {
        return Ok(String::new());
    }
    let chain = Certificate::all_from_pem(renewed.ca_chain_pem.as_bytes())?;
    Ok(chain.iter().filter(|link| link.verify_issued_by(link).is_err()).map(Certificate::pem).collect())
}

fn secret(options: &EnrollOptions) -> anyhow::Result<Zeroizing<String>> {
    let text = match (&options.secret, &options.secret_file) {
        (Some(secret), _) => Zeroizing::new(secret.clone()),
        (None, Some(path)) if path.as_os_str() == "-" => {
            let mut text = Zeroizing::new(String::new());
            std::io::stdin()
                .read_to_string(&mut text)
                .context("cannot read the secret from standard input")?;
            text
        }
        (None, Some(path)) => Zeroizing::new(read(path)?),
        (None, None) => bail!("name the secret with --secret-file <file>, or in the variable CONSORT_SECRET"),
    };
    let trimmed = Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned());
    ensure!(!trimmed.is_empty(), "the enrolment secret is empty");
    Ok(trimmed)
}

/// A new BLS key, when one is asked for.
fn bls_wish(wanted: bool, msp_id: Option<&str>) -> anyhow::Result<Option<BlsWish>> {
    if !wanted {
        return Ok(None);
    }
    let msp_id = msp_id.context("--bls needs --msp-id: the key is proved for one organisation")?.to_owned();
    Ok(Some(BlsWish { secret: Arc::new(SecretKey::generate()?), msp_id }))
}

fn attributes(wishes: &[String]) -> Option<Vec<AttributeRequest>> {
    let wish = |text: &String| match text.strip_suffix(":opt") {
        Some(name) => AttributeRequest { name: name.to_owned(), optional: true },
        None => AttributeRequest { name: text.clone(), optional: false },
    };
    (!wishes.is_empty()).then(|| wishes.iter().map(wish).collect())
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn report(output: Output, enrolled: &Enrollment, place: &Path, what: &str) -> anyhow::Result<()> {
    let certificate = Certificate::from_pem(&enrolled.certificate_pem)?;
    let algorithm = PrivateKey::algorithm(&enrolled.key).title();
    let mut json = described(&certificate);
    json["written"] = json!(place);
    output.print(&json, || {
        format!(
            "{} {what} with a {algorithm} key, valid until {}, in {}",
            certificate.subject_common_name().unwrap_or_default(),
            certificate.not_after().date(),
            place.display()
        )
    })
}
