//! One certificate, for people and for programs.

use consort_crypto::certificate::{Certificate, ExtendedKeyUsage, KeyUsage};
use consort_crypto::key::KeyAlgorithm;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Roles that Fabric's NodeOUs read from organisational units.
const ROLES: [&str; 4] = ["client", "peer", "admin", "orderer"];

/// The certificate as a JSON object.
pub(crate) fn described(certificate: &Certificate) -> Value {
    let moment = |moment: OffsetDateTime| moment.format(&Rfc3339).unwrap_or_default();
    let hosts: Vec<String> =
        certificate.subject_alternative_names().iter().map(ToString::to_string).collect();
    json!({
        "subject": certificate.subject(),
        "issuer": certificate.issuer(),
        "common_name": certificate.subject_common_name(),
        "organizational_units": certificate.organizational_units(),
        "serial": certificate.serial_hex(),
        "not_before": moment(certificate.not_before()),
        "not_after": moment(certificate.not_after()),
        "key": key(certificate),
        "bls_key": bls_key(certificate),
        "is_ca": certificate.is_ca(),
        "path_length": certificate.path_len(),
        "usages": usages(certificate),
        "hosts": hosts,
        "attributes": certificate.attributes(),
        "subject_key_id": certificate.subject_key_id().map(hex::encode),
        "authority_key_id": certificate.authority_key_id().map(hex::encode),
        "sha256": hex::encode(certificate.fingerprint()),
    })
}

/// The BLS key that the certificate carries, or what is wrong with it.
fn bls_key(certificate: &Certificate) -> Option<String> {
    match certificate.bls_key() {
        Ok(key) => key.map(|key| format!("{} of {}", hex::encode(key.public_key.as_bytes()), key.msp_id)),
        Err(error) => Some(format!("does not count: {error}")),
    }
}

/// The certificate in words, one line for each thing that is worth knowing.
pub(super) fn in_words(certificate: &Certificate, now: OffsetDateTime) -> String {
    let mut lines = vec![("who", certificate.subject().to_owned())];
    let units = certificate.organizational_units();
    let roles: Vec<&str> = ROLES.into_iter().filter(|role| units.iter().any(|unit| unit == role)).collect();
    let kind = match (certificate.is_ca(), certificate.extended_key_usage().is_some()) {
        (true, _) => match certificate.path_len() {
            None => "an authority; others may follow below it".to_owned(),
            Some(0) => "an authority; no authority may follow below it".to_owned(),
            Some(most) => format!("an authority; at most {most} may follow one another below it"),
        },
        (false, true) => "for TLS".to_owned(),
        (false, false) if roles.is_empty() => "for signing, without a role of NodeOUs".to_owned(),
        (false, false) => format!("for signing, as {}", roles.join(" and ")),
    };
    lines.push(("what", kind));
    let issuer = if certificate.verify_issued_by(certificate).is_ok() {
        "itself (a root)".to_owned()
    } else {
        certificate.issuer().to_owned()
    };
    lines.push(("issued by", issuer));
    lines.push(("valid", validity(certificate, now)));
    lines.push(("key", key(certificate)));
    lines.extend(bls_key(certificate).map(|key| ("BLS key", key)));
    lines.push(("may be used for", usages(certificate).join(", ")));
    let hosts: Vec<String> =
        certificate.subject_alternative_names().iter().map(ToString::to_string).collect();
    lines.push(("hosts", hosts.join(", ")));
    let attributes: Vec<String> =
        certificate.attributes().iter().map(|(name, value)| format!("{name}={value}")).collect();
    lines.push(("attributes", attributes.join(", ")));
    lines.push(("serial", certificate.serial_hex()));
    lines.push(("issuer's key id", certificate.authority_key_id().map(hex::encode).unwrap_or_default()));
    lines.push(("SHA-256", hex::encode(certificate.fingerprint())));
    let shown = lines.into_iter().filter(|(_, text)| !text.is_empty());
    shown.map(|(name, text)| format!("  {name:<16} {text}")).collect::<Vec<_>>().join("\n")
}

fn validity(certificate: &Certificate, now: OffsetDateTime) -> String {
    let (from, to) = (certificate.not_before(), certificate.not_after());
    let days = (to - now).whole_days();
    let state = match () {
        () if now < from => "not yet".to_owned(),
        () if to <= now => format!("it ENDED {} days ago", -days),
        () => format!("{days} days left"),
    };
    format!("from {} to {} ({state})", from.date(), to.date())
}

fn key(certificate: &Certificate) -> String {
    let key = certificate.public_key();
    key.key_algorithm()
        .map_or_else(|| key.algorithm().to_owned(), |known| KeyAlgorithm::title(known).to_owned())
}

fn usages(certificate: &Certificate) -> Vec<&'static str> {
    let named = [
        (KeyUsage::DIGITAL_SIGNATURE, "signatures"),
        (KeyUsage::KEY_ENCIPHERMENT, "key encipherment"),
        (KeyUsage::KEY_AGREEMENT, "key agreement"),
        (KeyUsage::CERTIFICATE_SIGN, "signing certificates"),
        (KeyUsage::CRL_SIGN, "signing revocation lists"),
    ];
    let own = certificate.key_usage();
    let mut usages: Vec<&str> = named
        .into_iter()
        .filter(|(usage, _)| own.is_some_and(|own| own.contains(*usage)))
        .map(|(_, name)| name)
        .collect();
    for purpose in certificate.extended_key_usage().unwrap_or_default() {
        usages.push(match purpose {
            ExtendedKeyUsage::ServerAuth => "TLS server",
            ExtendedKeyUsage::ClientAuth => "TLS client",
            _ => "another purpose",
        });
    }
    usages
}

#[cfg(test)]
mod tests {
    use consort_crypto::issue::{CertificateAuthority, DistinguishedName, NamePart, Template, Validity};
    use consort_crypto::key::PrivateKey;
    use time::Duration;

    use super::*;

    fn at() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
    }

    #[test]
    fn words_say_who_what_and_how_long() {
        let validity =
            Validity { not_before: at() - Duration::days(1), not_after: at() + Duration::days(10) };
        let key = PrivateKey::generate(KeyAlgorithm::Ed25519).unwrap();
        let root = CertificateAuthority::new_root(&DistinguishedName::common_name("ca.org1"), key, validity)
            .unwrap();
        let user = PrivateKey::generate(KeyAlgorithm::Sm2).unwrap();
        let name = DistinguishedName::common_name("alice").with(NamePart::OrganizationalUnit, "client");
        let certificate = root.issue(&Template::identity(name, validity), user.public_key()).unwrap();

        let text = in_words(&certificate, at());
        let authority = in_words(root.certificate(), at() + Duration::days(13));

        for expected in ["for signing, as client", "SM2", "10 days left", "CN=ca.org1", "signatures"] {
            assert!(text.contains(expected), "{text}");
        }
        for expected in ["an authority; others may follow", "itself (a root)", "ENDED 3 days ago", "Ed25519"]
        {
            assert!(authority.contains(expected), "{authority}");
        }
        assert_eq!(described(&certificate)["key"], "SM2");
        assert_eq!(described(&certificate)["organizational_units"][0], "client");
    }
}
