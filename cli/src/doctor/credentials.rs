//! Certificates and keys of a network's folder: ends, chains, keys that belong to them.

use std::path::Path;

use consort_crypto::certificate::{Certificate, SubjectAlternativeName};
use consort_crypto::key::PrivateKey;
use time::OffsetDateTime;

use super::Finding;
use super::folder::{self, SOON};
use crate::access::Access;
use crate::authority::now;
use crate::layout::{ADMINISTRATOR, MemberKind, members};
use crate::report::count;

const AREA: &str = "certificates";

/// Looks at every MSP folder and TLS certificate of nodes, users and organisations.
pub(super) fn check(access: &Access) -> Vec<Finding> {
    let mut all = Checked { now: now(), findings: Vec::new(), identities: 0, tls: 0, first_end: None };
    for (kind, member) in members(&access.topology) {
        let msp_id = member.msp_id.as_str();
        all.organisation(&access.layout.organisation_msp(kind, &member.domain), msp_id);
        for user in std::iter::once(ADMINISTRATOR).chain(member.users.iter().map(String::as_str)) {
            all.identity(&access.layout.user(kind, &member.domain, user).join("msp"), msp_id);
        }
    }
    let peers = access.topology.peers().map(|(of, peer)| (MemberKind::Peers, &of.member, &peer.host));
    let orderers =
        access.topology.orderers().map(|(of, orderer)| (MemberKind::Orderers, &of.member, &orderer.host));
    for (kind, member, host) in peers.chain(orderers) {
        let folder = access.layout.node(kind, &member.domain, host);
        all.identity(&folder.join("msp"), &member.msp_id);
        all.tls(&folder.join("tls"), host, kind);
    }
    all.done()
}

struct Checked {
    now: OffsetDateTime,
    findings: Vec<Finding>,
    identities: usize,
    tls: usize,
    first_end: Option<OffsetDateTime>,
}

impl Checked {
    fn organisation(&mut self, folder: &Path, msp_id: &str) {
        let report = folder::examine(folder, msp_id, false, self.now);
        self.note(&report, "compare the folder with that of the organisation's authority: consort ca info");
    }

    fn identity(&mut self, folder: &Path, msp_id: &str) {
        self.identities += 1;
        let report = folder::examine(folder, msp_id, true, self.now);
        if let Some((certificate, _)) = &report.identity {
            self.ends(certificate);
        }
        let renew = format!(
            "consort identity reenroll --msp {0}   (once it has ended: consort identity enroll --force --msp {0})",
            folder.display()
        );
        self.note(&report, &renew);
    }

    fn note(&mut self, report: &folder::Report, remedy: &str) {
        let line = |found: &folder::Finding| format!("{}: {}", found.file.display(), found.rule);
        self.findings.extend(report.faults.iter().map(|found| Finding::fault(AREA, line(found), remedy)));
        self.findings.extend(report.warnings.iter().map(|found| Finding::warning(AREA, line(found), remedy)));
    }

    fn ends(&mut self, certificate: &Certificate) {
        let end = certificate.not_after();
        self.first_end = Some(self.first_end.map_or(end, |first| first.min(end)));
    }

    /// A listener's certificate with its key and the roots that clients know it by.
    fn tls(&mut self, folder: &Path, host: &str, kind: MemberKind) {
        self.tls += 1;
        let (certificate, key) = (folder.join("server.crt"), folder.join("server.key"));
        let reuse = if kind == MemberKind::Orderers { " --reuse-key" } else { "" };
        let remedy = format!(
            "consort identity reenroll --cert {} --key {}{reuse}",
            certificate.display(),
            key.display()
        );
        match tls(folder, host, self.now) {
            Err(fault) => {
                let fault = format!("{}: {fault}", certificate.display());
                self.findings.push(Finding::fault(AREA, fault, remedy));
            }
            Ok(read) => {
                self.ends(&read);
                if read.not_after() < self.now + SOON {
                    let warning = format!("{}: it ends at {}", certificate.display(), read.not_after());
                    self.findings.push(Finding::warning(AREA, warning, remedy));
                }
            }
        }
    }

    fn done(mut self) -> Vec<Finding> {
        if self.findings.is_empty() {
            let end = self
                .first_end
                .map_or_else(String::new, |end| format!("; the first one ends on {}", end.date()));
            let (identities, tls) = (count(self.identities, "identity"), count(self.tls, "TLS certificate"));
            self.findings.push(Finding::ok(AREA, format!("{identities} and {tls} are in order{end}")));
        }
        self.findings
    }
}

fn tls(folder: &Path, host: &str, now: OffsetDateTime) -> Result<Certificate, String> {
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let certificate =
        Certificate::from_pem(read("server.crt")?).map_err(|error| format!("no certificate: {error}"))?;
    let key = PrivateKey::from_pem(&read("server.key")?).map_err(|error| format!("server.key: {error}"))?;
    if key.public_key() != certificate.public_key() {
        return Err("server.key belongs to another certificate".to_owned());
    }
    let roots =
        Certificate::all_from_pem(read("ca.crt")?.as_bytes()).map_err(|error| format!("ca.crt: {error}"))?;
    if !roots.iter().any(|root| certificate.verify_issued_by(root).is_ok()) {
        return Err("it was issued by none of the authorities in ca.crt".to_owned());
    }
    if certificate.not_after() <= now {
        return Err(format!("it ended at {}", certificate.not_after()));
    }
    if certificate.not_before() > now {
        return Err(format!(
            "it begins at {}; is the clock of this machine right?",
            certificate.not_before()
        ));
    }
    if !certificate.subject_alternative_names().contains(&SubjectAlternativeName::from_text(host)) {
        return Err(format!("it does not name the host {host}"));
    }
    Ok(certificate)
}
