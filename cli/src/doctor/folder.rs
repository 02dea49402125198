//! `consort doctor --msp`: does an MSP folder hold together, and if not, which file breaks which rule?
//!
//! The rules are those by which peers and orderers judge (Fabric documentation, "Membership Service Providers"): the whole
//! folder is set up as they do it. Files are looked at one by one first, so that the answer can name one.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::bail;
use consort_crypto::certificate::{Certificate, KeyUsage};
use consort_crypto::revocation::RevocationList;
use consort_msp::{FolderError, Msp, MspManager, MspVersion, SigningIdentity};
use consort_protos::ids::MspId;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use crate::authority::now;
use crate::identity::described;
use crate::output::Output;

/// A certificate that ends sooner is worth a word.
pub(super) const SOON: Duration = Duration::days(30);

/// Something that breaks a rule, or will soon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) file: PathBuf,
    pub(super) rule: String,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) faults: Vec<Finding>,
    pub(super) warnings: Vec<Finding>,
    pub(super) identity: Option<(Certificate, Vec<String>)>,
}

/// Tells how an MSP folder is.
///
/// # Errors
/// The folder breaks a rule; the message names the file and the rule.
pub(super) fn run(folder: &Path, msp_id: &str, with_identity: bool, output: Output) -> anyhow::Result<()> {
    let report = examine(folder, msp_id, with_identity, now());
    let list = |findings: &[Finding]| -> Vec<Value> {
        findings.iter().map(|found| json!({ "file": found.file, "rule": found.rule })).collect()
    };
    let identity = report.identity.as_ref().map(|(certificate, roles)| {
        let mut json = described(certificate);
        json["roles"] = json!(roles);
        json
    });
    let json = json!({
        "ok": report.faults.is_empty(),
        "faults": list(&report.faults),
        "warnings": list(&report.warnings),
        "identity": identity,
    });
    output.print(&json, || in_words(&report, msp_id))?;
    if report.faults.is_empty() {
        return Ok(());
    }
    let lines = report.faults.iter().map(|found| format!("{}: {}", found.file.display(), found.rule));
    bail!("{}", lines.collect::<Vec<_>>().join("\n"))
}

fn in_words(report: &Report, msp_id: &str) -> String {
    let mut lines = Vec::new();
    for found in &report.warnings {
        lines.push(format!("warning: {}: {}", found.file.display(), found.rule));
    }
    if report.faults.is_empty() {
        lines.push(match &report.identity {
            Some((certificate, roles)) => format!(
                "the folder is in order: {} of {msp_id}, {}, valid until {}",
                certificate.subject_common_name().unwrap_or_default(),
                if roles.is_empty() { "without a role".to_owned() } else { roles.join(" and ") },
                certificate.not_after().date()
            ),
            None => format!("the folder is in order as the MSP of {msp_id}"),
        });
    }
    lines.join("\n")
}

/// Looks at everything in an MSP folder.
pub(super) fn examine(folder: &Path, msp_id: &str, with_identity: bool, now: OffsetDateTime) -> Report {
    let mut report = Report::default();
    let id = match MspId::parse(msp_id) {
        Ok(id) => id,
        Err(error) => {
            report.fault(folder, format!("'{msp_id}' is no MSP id: {error}"));
            return report;
        }
    };
    if !folder.is_dir() {
        report.fault(folder, "there is no such folder".to_owned());
        return report;
    }
    report.look_at_files(folder, now);
    if !report.faults.is_empty() {
        return report;
    }
    let msp = consort_msp::folder::load_config(folder, &id)
        .and_then(|config| {
            Msp::new(&config, MspVersion::V3_0)
                .map_err(|source| FolderError::Msp { path: folder.to_owned(), source })
        })
        .map_err(|error| report.folder_fault(folder, &error));
    if let (Ok(msp), true) = (msp, with_identity) {
        report.look_at_identity(folder, &id, msp, now);
    }
    report
}

impl Report {
    fn fault(&mut self, file: &Path, rule: String) {
        self.faults.push(Finding { file: file.to_owned(), rule });
    }

    fn warn(&mut self, file: &Path, rule: String) {
        self.warnings.push(Finding { file: file.to_owned(), rule });
    }

    /// An error that names its own file, or the folder.
    fn folder_fault(&mut self, folder: &Path, error: &FolderError) {
        match error {
            FolderError::Unreadable { path, source } => self.fault(path, source.to_string()),
            FolderError::NoRoots(path) => {
                self.fault(
                    path,
                    "an MSP folder needs at least one certificate of an authority here".to_owned(),
                );
            }
            FolderError::Rule { path, rule } => self.fault(path, rule.clone()),
            FolderError::Yaml { path, reason } => self.fault(path, reason.clone()),
            FolderError::Msp { path, source } => self.fault(path, source.to_string()),
            other => self.fault(folder, other.to_string()),
        }
    }

    /// The rules that a file can break alone.
    fn look_at_files(&mut self, folder: &Path, now: OffsetDateTime) {
        let mut authorities = Vec::new();
        for part in ["cacerts", "intermediatecerts", "tlscacerts", "tlsintermediatecerts"] {
            for (file, certificate) in self.certificates(&folder.join(part)) {
                self.look_at_authority(&file, &certificate, part, now);
                if !part.starts_with("tls") {
                    authorities.push(certificate);
                }
            }
        }
        for (file, certificate) in self.certificates(&folder.join("admincerts")) {
            if !authorities.iter().any(|authority| certificate.verify_issued_by(authority).is_ok()) {
                self.fault(
                    &file,
                    "the administrator was issued by none of the folder's authorities".to_owned(),
                );
            }
        }
        for file in files(&folder.join("crls")) {
            self.look_at_list(&file, &authorities, now);
        }
        for file in files(&folder.join("keystore")) {
            let mode =
                std::fs::metadata(&file).map(|metadata| metadata.permissions().mode()).unwrap_or_default();
            if mode & 0o077 != 0 {
                self.warn(&file, "others can read the key; run: chmod 600 on it".to_owned());
            }
        }
    }

    fn look_at_authority(&mut self, file: &Path, certificate: &Certificate, part: &str, now: OffsetDateTime) {
        let signs = certificate.key_usage().is_none_or(|usage| usage.contains(KeyUsage::CERTIFICATE_SIGN));
        let is_root = certificate.verify_issued_by(certificate).is_ok();
        if !certificate.is_ca() {
            self.fault(
                file,
                "this is not the certificate of an authority (its CA flag is not set)".to_owned(),
            );
        } else if !signs {
            self.fault(file, "the authority's key may not sign certificates (key usage)".to_owned());
        } else if certificate.subject_key_id().is_none() {
            self.fault(file, "the authority's certificate has no subject key identifier".to_owned());
        } else if part.ends_with("intermediatecerts") && is_root {
            self.fault(file, format!("a root stands among the {part}; it belongs into cacerts"));
        }
        self.look_at_end(file, certificate, "the authority", now);
    }

    fn look_at_list(&mut self, file: &Path, authorities: &[Certificate], now: OffsetDateTime) {
        let list = match std::fs::read(file).map(|bytes| RevocationList::from_pem_or_der(&bytes)) {
            Ok(Ok(list)) => list,
            Ok(Err(error)) => return self.fault(file, format!("no list of revoked certificates: {error}")),
            Err(error) => return self.fault(file, error.to_string()),
        };
        if !authorities.iter().any(|authority| list.verify_issued_by(authority).is_ok()) {
            self.fault(file, "the list was signed by none of the folder's authorities".to_owned());
        }
        if list.next_update().is_some_and(|next| next < now) {
            self.warn(
                file,
                "the list is out of date; it still counts. Make a new one: consort ca gencrl".to_owned(),
            );
        }
    }

    fn look_at_end(&mut self, file: &Path, certificate: &Certificate, who: &str, now: OffsetDateTime) {
        let end = certificate.not_after();
        if end <= now {
            self.fault(file, format!("{who}'s certificate ended at {end}; renew it"));
        } else if end < now + SOON {
            self.warn(file, format!("{who}'s certificate ends at {end}; renew it"));
        }
    }

    fn look_at_identity(&mut self, folder: &Path, id: &MspId, msp: Msp, now: OffsetDateTime) {
        let own = match SigningIdentity::from_folder(folder, id) {
            Ok(own) => own,
            Err(error) => return self.folder_fault(folder, &error),
        };
        let file =
            files(&folder.join("signcerts")).into_iter().next().unwrap_or_else(|| folder.join("signcerts"));
        let certificate = own.certificate().clone();
        self.look_at_end(&file, &certificate, "the identity", now);
        if certificate.not_before() > now {
            self.fault(&file, format!("the identity's certificate begins at {}", certificate.not_before()));
        }
        match own.identity(&MspManager::new(vec![msp])) {
            Ok(identity) => {
                // Whoever is valid is a member; what is worth telling is the one role beside that.
                let words = identity.roles().into_iter().map(|role| format!("{role:?}").to_lowercase());
                let roles = words.filter(|role| role != "member").collect();
                self.identity = Some((certificate, roles));
            }
            Err(error) => self.fault(&file, error.to_string()),
        }
    }

    /// The certificates of a folder; a file without one is a fault.
    fn certificates(&mut self, folder: &Path) -> Vec<(PathBuf, Certificate)> {
        let mut found = Vec::new();
        for file in files(folder) {
            match std::fs::read(&file) {
                Err(error) => self.fault(&file, error.to_string()),
                Ok(text) => match Certificate::from_pem(text) {
                    Ok(certificate) => found.push((file, certificate)),
                    Err(error) => self.fault(&file, format!("no certificate: {error}")),
                },
            }
        }
        found
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use consort_client_sdk::ca::Enrollment;
    use consort_crypto::issue::{CertificateAuthority, DistinguishedName, NamePart, Template, Validity};
    use consort_crypto::key::PrivateKey;
    use consort_crypto::revocation::RevokedCertificate;

    use super::*;
    use crate::credentials::{Purpose, write_enrolled};

    struct Patient {
        root: CertificateAuthority,
        folder: tempfile::TempDir,
        certificate: Certificate,
    }

    fn root(name: &str) -> CertificateAuthority {
        let validity =
            Validity { not_before: now() - Duration::days(2), not_after: now() + Duration::days(400) };
        let key = PrivateKey::generate_p256().unwrap();
        CertificateAuthority::new_root(&DistinguishedName::common_name(name), key, validity).unwrap()
    }

    /// An MSP folder as `consort identity enroll` writes it.
    fn patient(unit: &str, days: i64) -> Patient {
        let root = root("ca.org1.example.com");
        let key = PrivateKey::generate_p256().unwrap();
        let name = DistinguishedName::common_name("alice").with(NamePart::OrganizationalUnit, unit);
        let validity =
            Validity { not_before: now() - Duration::days(1), not_after: now() + Duration::days(days) };
        let certificate = root.issue(&Template::identity(name, validity), key.public_key()).unwrap();
        let enrolled =
            Enrollment { certificate_pem: certificate.pem(), key, ca_chain_pem: root.certificate().pem() };
        let folder = tempfile::tempdir().unwrap();
        write_enrolled(&folder.path().join("msp"), &enrolled, "ca", Purpose::Signing, None).unwrap();
        Patient { root, folder, certificate }
    }

    impl Patient {
        fn msp(&self) -> PathBuf {
            self.folder.path().join("msp")
        }

        fn report(&self) -> Report {
            examine(&self.msp(), "Org1MSP", true, now())
        }

        fn fault(&self, file: &str, rule: &str) {
            let report = self.report();
            let named =
                report.faults.iter().find(|found| found.file.ends_with(file) && found.rule.contains(rule));
            assert!(named.is_some(), "{file}: {rule}: {report:?}");
        }
    }

    #[test]
    fn a_folder_as_it_was_enrolled_is_in_order() {
        let patient = patient("client", 300);
        let report = patient.report();
        assert_eq!((&report.faults, &report.warnings), (&Vec::new(), &Vec::new()));
        assert!(in_words(&report, "Org1MSP").contains("alice of Org1MSP, "), "{report:?}");
        let organisation = examine(&patient.msp(), "Org1MSP", false, now());
        assert!(organisation.faults.is_empty() && organisation.identity.is_none());
    }

    #[test]
    fn faults_name_the_file_and_the_rule() {
        let patient = patient("client", 300);
        let msp = patient.msp();
        let keep = std::fs::read(msp.join("signcerts/cert.pem")).unwrap();

        std::fs::write(
            msp.join("cacerts/broken.pem"),
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        )
        .unwrap();
        patient.fault("cacerts/broken.pem", "no certificate");
        std::fs::write(msp.join("cacerts/broken.pem"), patient.certificate.pem()).unwrap();
        patient.fault("cacerts/broken.pem", "CA flag");
        std::fs::remove_file(msp.join("cacerts/broken.pem")).unwrap();

        std::fs::write(msp.join("signcerts/cert.pem"), patient.root.certificate().pem()).unwrap();
        patient.fault("keystore", "belongs to another certificate");
        std::fs::write(msp.join("signcerts/cert.pem"), keep).unwrap();

        std::fs::write(msp.join("config.yaml"), "NodeOUs: [1]").unwrap();
        patient.fault("config.yaml", "");
        std::fs::remove_file(msp.join("config.yaml")).unwrap();
        patient.fault("msp", "administrators must be declared");

        std::fs::remove_dir_all(msp.join("cacerts")).unwrap();
        patient.fault("cacerts", "at least one certificate");
    }

    #[test]
    fn an_identity_that_ended_or_belongs_elsewhere_is_named() {
        patient("client", 0).fault("signcerts/cert.pem", "ended at");
        patient("nobody", 300).fault("signcerts/cert.pem", "");
        let soon = patient("client", 10).report();
        assert!(soon.faults.is_empty() && soon.warnings[0].rule.contains("renew it"), "{soon:?}");
        let foreign = patient("client", 300);
        let other = root("ca.org2.example.com");
        let authorities = foreign.msp().join("cacerts");
        std::fs::remove_dir_all(&authorities).unwrap();
        std::fs::create_dir(&authorities).unwrap();
        std::fs::write(authorities.join("ca.pem"), other.certificate().pem()).unwrap();
        foreign.fault("signcerts/cert.pem", "unknown authority");
    }

    #[test]
    fn lists_are_judged_by_their_signer_and_by_what_they_hold() {
        let patient = patient("client", 300);
        let (msp, other) = (patient.msp(), root("ca.org1.example.com"));
        std::fs::create_dir(msp.join("crls")).unwrap();
        let write = |authority: &CertificateAuthority, revoked: &[RevokedCertificate]| {
            let list = authority
                .issue_crl(revoked, 1, now() - Duration::hours(1), now() + Duration::days(1))
                .unwrap();
            std::fs::write(msp.join("crls/crl.pem"), list.pem()).unwrap();
        };

        write(&other, &[]);
        patient.fault("crls/crl.pem", "none of the folder's authorities");
        let serial = patient.certificate.serial().to_vec();
        write(
            &patient.root,
            &[RevokedCertificate { serial, revoked_at: now() - Duration::hours(2), reason: 1 }],
        );
        patient.fault("signcerts/cert.pem", "revoked");
    }

    #[test]
    fn a_key_that_others_can_read_is_warned_about() {
        let patient = patient("client", 300);
        let key = patient.msp().join("keystore/priv_sk");
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
        let report = patient.report();
        assert!(report.faults.is_empty() && report.warnings[0].file.ends_with("priv_sk"), "{report:?}");
    }
}
