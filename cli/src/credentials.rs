//! Writing certificates and keys in the layout of Fabric's tools, whole or not at all.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use consort_client_sdk::ca::{BlsWish, Enrollment};
use consort_crypto::bls::{CertifiedKey, SecretKey};
use consort_crypto::certificate::Certificate;
use consort_msp::BLS_KEYS;
use zeroize::Zeroizing;

use crate::files;

/// A certificate with its private key, and the roots above it (all PEM).
pub(crate) struct Credential {
    pub(crate) certificate_pem: String,
    pub(crate) key_pem: Zeroizing<String>,
    pub(crate) roots_pem: String,
}

/// The roots that an MSP folder carries.
pub(crate) struct Roots<'a> {
    /// Domain of the organisation; names the certificate files.
    pub(crate) domain: &'a str,
    pub(crate) identity_pem: &'a str,
    /// Authorities between the root and the certificates, the lowest first; empty when the root issues them.
    pub(crate) identity_between_pem: &'a str,
    pub(crate) tls_pem: &'a str,
    pub(crate) tls_between_pem: &'a str,
}

/// File name of a client's or node's certificate in `signcerts`, as fabric-ca-client writes it.
const CERTIFICATE_FILE: &str = "cert.pem";

/// File name of a private key in `keystore`, as cryptogen writes it.
const KEY_FILE: &str = "priv_sk";

/// Whether credentials have been written here by an earlier run.
pub(crate) fn exists(folder: &Path) -> bool {
    folder.is_dir()
}

/// Writes the MSP folder of an identity: `signcerts`, `keystore`, `cacerts`, `tlscacerts`, `config.yaml`.
///
/// # Errors
/// An I/O error; the folder is there whole or not at all.
pub(crate) fn write_identity(
    folder: &Path,
    credential: &Credential,
    roots: &Roots<'_>,
    bls_key: Option<&SecretKey>,
) -> anyhow::Result<()> {
    write_whole(folder, |folder| {
        write_roots(folder, roots)?;
        if let Some(key) = bls_key {
            write_bls_key(folder, key)?;
        }
        write(folder.join("signcerts").join(CERTIFICATE_FILE), &credential.certificate_pem)?;
        files::create_secret_folder(&folder.join("keystore"))?;
        let key = folder.join("keystore").join(KEY_FILE);
        files::write_atomically(&key, credential.key_pem.as_bytes(), true)
    })
}

/// Adds a BLS key to an MSP folder and returns its file, which only its owner may read: named after the key,
/// beside those of former keys.
///
/// # Errors
/// An I/O error.
pub(crate) fn write_bls_key(folder: &Path, key: &SecretKey) -> anyhow::Result<PathBuf> {
    let keys = folder.join(BLS_KEYS);
    files::create_secret_folder(&keys)?;
    let name = format!("{}.pem", hex::encode(&key.public_key().as_bytes()[..8]));
    let file = keys.join(name);
    files::write_atomically(&file, key.to_pem().as_bytes(), true)?;
    Ok(file)
}

/// The BLS key of an MSP folder that a certificate carries, to be certified again.
///
/// # Errors
/// The folder has no such key.
pub(crate) fn bls_wish_of(folder: &Path, certified: &CertifiedKey) -> anyhow::Result<BlsWish> {
    let keys = folder.join(BLS_KEYS);
    for file in std::fs::read_dir(&keys).with_context(|| format!("cannot read {}", keys.display()))?.flatten()
    {
        let text = Zeroizing::new(std::fs::read_to_string(file.path()).unwrap_or_default());
        if let Ok(secret) = SecretKey::from_pem(&text)
            && *secret.public_key() == certified.public_key
        {
            return Ok(BlsWish { secret: Arc::new(secret), msp_id: certified.msp_id.clone() });
        }
    }
    anyhow::bail!(
        "{} does not hold the BLS key that the certificate carries.\nRemedy: put the key's file back, or make a new key with --bls --msp-id {}",
        keys.display(),
        certified.msp_id
    )
}

/// What a certificate was enrolled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Signing messages.
    Signing,
    /// TLS.
    Tls,
}

/// Writes what an enrolment gave, in the layout of Fabric's CA client: `signcerts/cert.pem`, `keystore/priv_sk`, the
/// root in `cacerts` (`tlscacerts` for TLS), the authorities below it in `intermediatecerts` (`tlsintermediatecerts`),
/// and for signing the `config.yaml` that reads roles from organisational units.
///
/// # Errors
/// An I/O error, or a chain that cannot be read; the folder is there whole or not at all.
pub(crate) fn write_enrolled(
    folder: &Path,
    enrolled: &Enrollment,
    authority: &str,
    purpose: Purpose,
    bls_key: Option<&SecretKey>,
) -> anyhow::Result<()> {
    let (roots, between) = match purpose {
        Purpose::Signing => ("cacerts", "intermediatecerts"),
        Purpose::Tls => ("tlscacerts", "tlsintermediatecerts"),
    };
    let chain = Certificate::all_from_pem(enrolled.ca_chain_pem.as_bytes())
        .context("the authority's chain cannot be read")?;
    let parent = folder.parent().context("a credentials folder has a parent")?;
    files::create_folder(parent)?;
    let before = set_aside(folder)?;
    let written = write_whole(folder, |folder| {
        write(folder.join("signcerts").join(CERTIFICATE_FILE), &enrolled.certificate_pem)?;
        files::create_secret_folder(&folder.join("keystore"))?;
        let key = folder.join("keystore").join(KEY_FILE);
        files::write_atomically(&key, enrolled.key.to_pem().as_bytes(), true)?;
        if let Some(key) = bls_key {
            write_bls_key(folder, key)?;
        }
        for (number, certificate) in chain.iter().enumerate() {
            let is_root = certificate.verify_issued_by(certificate).is_ok();
            let place = folder.join(if is_root { roots } else { between });
            write(place.join(format!("{authority}-{number}.pem")), &certificate.pem())?;
        }
        match purpose {
            Purpose::Signing => write(folder.join("config.yaml"), NODE_OUS),
            Purpose::Tls => Ok(()),
        }
    });
    match (written, before) {
        (Ok(()), Some(before)) => std::fs::remove_dir_all(&before)
            .with_context(|| format!("cannot remove the former credentials {}", before.display())),
        (Err(error), Some(before)) => {
            // The former credentials come back; the first error is the one to tell.
            let _ = std::fs::rename(&before, folder);
            Err(error)
        }
        (written, None) => written,
    }
}

/// Replaces the certificate and the key of an MSP folder, and leaves the rest of it as it is. Servers that watch the
/// folder wait while only one of the two is new.
///
/// # Errors
/// An I/O error.
pub(crate) fn replace_in_folder(folder: &Path, enrolled: &Enrollment) -> anyhow::Result<()> {
    let certificate = only_file(&folder.join("signcerts"))?;
    let keystore = folder.join("keystore");
    let key_name = match only_file(&keystore) {
        Ok(path) => path,
        // Beside keys of other certificates: the new one is found by its certificate.
        Err(_) => keystore.join(KEY_FILE),
    };
    replace_pair(&certificate, &key_name, enrolled, "")
}

/// Replaces a certificate file (with `behind` after it) and its key file.
///
/// # Errors
/// An I/O error.
pub(crate) fn replace_pair(
    certificate: &Path,
    key: &Path,
    enrolled: &Enrollment,
    behind: &str,
) -> anyhow::Result<()> {
    files::write_atomically(key, enrolled.key.to_pem().as_bytes(), true)?;
    write(certificate, &format!("{}{behind}", enrolled.certificate_pem))
}

fn only_file(folder: &Path) -> anyhow::Result<PathBuf> {
    let files = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files: Vec<PathBuf> =
        files.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    match (files.len(), files.pop()) {
        (1, Some(only)) => Ok(only),
        (count, _) => anyhow::bail!("{} holds {count} files; exactly one is expected", folder.display()),
    }
}

/// Moves a folder that is there out of the way.
fn set_aside(folder: &Path) -> anyhow::Result<Option<PathBuf>> {
    if !exists(folder) {
        return Ok(None);
    }
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let aside = folder.with_file_name(format!(".{name}.old"));
    let _ = std::fs::remove_dir_all(&aside);
    std::fs::rename(folder, &aside).with_context(|| format!("cannot replace {}", folder.display()))?;
    Ok(Some(aside))
}

/// Roles by organisational unit, whichever of the folder's authorities issued the certificate.
const NODE_OUS: &str = "NodeOUs:
    Enable: true
    ClientOUIdentifier:
        OrganizationalUnitIdentifier: client
    PeerOUIdentifier:
        OrganizationalUnitIdentifier: peer
    AdminOUIdentifier:
        OrganizationalUnitIdentifier: admin
    OrdererOUIdentifier:
        OrganizationalUnitIdentifier: orderer
";

/// Writes an organisation's MSP folder, which has roots and no keys, with `ca/` and `tlsca/` beside it.
///
/// # Errors
/// An I/O error.
pub(crate) fn write_organisation(folder: &Path, roots: &Roots<'_>) -> anyhow::Result<()> {
    let domain = roots.domain;
    write(folder.join("ca").join(format!("ca.{domain}-cert.pem")), roots.identity_pem)?;
    write(folder.join("tlsca").join(format!("tlsca.{domain}-cert.pem")), roots.tls_pem)?;
    let msp = folder.join("msp");
    if exists(&msp) {
        return Ok(());
    }
    write_whole(&msp, |folder| write_roots(folder, roots))
}

/// Writes a TLS folder: `ca.crt` and `server.crt`/`server.key`, or `client.crt`/`client.key`.
///
/// # Errors
/// An I/O error; the folder is there whole or not at all.
pub(crate) fn write_tls(folder: &Path, credential: &Credential, role: &str) -> anyhow::Result<()> {
    write_whole(folder, |folder| {
        write(folder.join("ca.crt"), &credential.roots_pem)?;
        write(folder.join(format!("{role}.crt")), &credential.certificate_pem)?;
        let key = folder.join(format!("{role}.key"));
        files::write_atomically(&key, credential.key_pem.as_bytes(), true)
    })
}

fn write_roots(folder: &Path, roots: &Roots<'_>) -> anyhow::Result<()> {
    let domain = roots.domain;
    write(folder.join("cacerts").join(format!("ca.{domain}-cert.pem")), roots.identity_pem)?;
    write(folder.join("tlscacerts").join(format!("tlsca.{domain}-cert.pem")), roots.tls_pem)?;
    for (name, prefix, between) in [
        ("intermediatecerts", "ca", roots.identity_between_pem),
        ("tlsintermediatecerts", "tlsca", roots.tls_between_pem),
    ] {
        if !between.is_empty() {
            write(folder.join(name).join(format!("{prefix}.{domain}-cert.pem")), between)?;
        }
    }
    write(folder.join("config.yaml"), &node_ous(roots))
}

/// The roles that certificates carry as organisational units (Fabric's NodeOUs), as the issuing authority certifies them.
fn node_ous(roots: &Roots<'_>) -> String {
    let folder = if roots.identity_between_pem.is_empty() { "cacerts" } else { "intermediatecerts" };
    let domain = roots.domain;
    let mut text = "NodeOUs:\n    Enable: true\n".to_owned();
    for (key, unit) in [("Client", "client"), ("Peer", "peer"), ("Admin", "admin"), ("Orderer", "orderer")] {
        text.push_str(&format!(
            "    {key}OUIdentifier:\n        Certificate: {folder}/ca.{domain}-cert.pem\n        OrganizationalUnitIdentifier: {unit}\n"
        ));
    }
    text
}

fn write(path: impl AsRef<Path>, text: &str) -> anyhow::Result<()> {
    files::write_atomically(path.as_ref(), text.as_bytes(), false)
}

/// Fills a temporary neighbour and renames it, so that a folder that exists is complete.
fn write_whole(folder: &Path, fill: impl FnOnce(&Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let parent = folder.parent().context("a credentials folder has a parent")?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let temporary = parent.join(format!(".{name}.new"));
    let _ = std::fs::remove_dir_all(&temporary);
    files::create_folder(&temporary)?;
    fill(&temporary)?;
    std::fs::rename(&temporary, folder).with_context(|| format!("cannot write {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn credential() -> Credential {
        Credential {
            certificate_pem: "certificate".to_owned(),
            key_pem: Zeroizing::new("key".to_owned()),
            roots_pem: "tls roots".to_owned(),
        }
    }

    fn roots() -> Roots<'static> {
        Roots {
            domain: "org1.example.com",
            identity_pem: "identity roots",
            identity_between_pem: "",
            tls_pem: "tls roots",
            tls_between_pem: "",
        }
    }

    #[test]
    fn an_identity_folder_is_what_fabrics_tools_expect() {
        let data = tempfile::tempdir().unwrap();
        let msp = data.path().join("users/User1@org1.example.com/msp");
        write_identity(&msp, &credential(), &roots(), None).unwrap();
        let read = |path: &str| std::fs::read_to_string(msp.join(path)).unwrap();
        assert_eq!(read("signcerts/cert.pem"), "certificate");
        assert_eq!(read("keystore/priv_sk"), "key");
        assert_eq!(read("cacerts/ca.org1.example.com-cert.pem"), "identity roots");
        assert_eq!(read("tlscacerts/tlsca.org1.example.com-cert.pem"), "tls roots");
        let config = read("config.yaml");
        assert!(
            config.contains(
                "OrdererOUIdentifier:\n        Certificate: cacerts/ca.org1.example.com-cert.pem\n"
            )
        );
        let mode = std::fs::metadata(msp.join("keystore/priv_sk")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // Sample applications take the first file of these folders.
        for folder in ["signcerts", "keystore"] {
            assert_eq!(std::fs::read_dir(msp.join(folder)).unwrap().count(), 1);
        }
    }

    #[test]
    fn authorities_below_the_root_have_their_own_folders_and_certify_the_roles() {
        let data = tempfile::tempdir().unwrap();
        let msp = data.path().join("msp");
        let between = Roots { identity_between_pem: "below", tls_between_pem: "tls below", ..roots() };
        write_identity(&msp, &credential(), &between, None).unwrap();
        let read = |path: &str| std::fs::read_to_string(msp.join(path)).unwrap();
        assert_eq!(read("intermediatecerts/ca.org1.example.com-cert.pem"), "below");
        assert_eq!(read("tlsintermediatecerts/tlsca.org1.example.com-cert.pem"), "tls below");
        assert!(read("config.yaml").contains("Certificate: intermediatecerts/ca.org1.example.com-cert.pem"));
    }

    #[test]
    fn a_tls_folder_names_its_files_by_role() {
        let data = tempfile::tempdir().unwrap();
        let tls = data.path().join("tls");
        write_tls(&tls, &credential(), "server").unwrap();
        assert_eq!(std::fs::read_to_string(tls.join("ca.crt")).unwrap(), "tls roots");
        assert!(tls.join("server.crt").is_file() && tls.join("server.key").is_file());
    }

    #[test]
    fn a_folder_that_could_not_be_filled_does_not_exist() {
        let data = tempfile::tempdir().unwrap();
        let folder = data.path().join("msp");
        write_whole(&folder, |_| anyhow::bail!("disk full")).unwrap_err();
        assert!(!exists(&folder));
        write_identity(&folder, &credential(), &roots(), None).unwrap();
        assert!(exists(&folder));
    }

    #[test]
    fn an_organisation_has_roots_and_no_keys() {
        let data = tempfile::tempdir().unwrap();
        let folder = data.path().join("org1.example.com");
        write_organisation(&folder, &roots()).unwrap();
        write_organisation(&folder, &roots()).unwrap();
        assert!(folder.join("msp/config.yaml").is_file());
        assert!(folder.join("ca/ca.org1.example.com-cert.pem").is_file());
        assert!(!folder.join("msp/keystore").exists());
    }
}
