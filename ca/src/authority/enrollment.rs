//! Logging in by secret, and issuing certificates.

use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use consort_crypto::request::CertificateRequest;
use serde_json::{Map, Value, json};
use tracing::info;

use super::{Authority, Caller, Proof};
use crate::attributes::INTERMEDIATE_CA;
use crate::error::{ApiError, Code};
use crate::issuer::{Order, Profile};
use crate::password::Secret;
use crate::registry::{CertificateId, CertificateRecord, EnrollmentRefused, Identity};
use crate::request::{AttributeRequest, EnrollmentRequest, date};

/// A certificate that was just issued.
#[derive(Debug)]
pub struct Enrolled {
    /// The certificate in PEM.
    pub certificate_pem: String,
}

impl Authority {
    /// Whether an expired certificate may be used to enrol anew.
    pub fn reenroll_ignores_expiry(&self) -> bool {
        self.settings.reenroll_ignores_expiry
    }

    /// Finds the identity that a Basic `Authorization` header names, and judges its secret.
    ///
    /// # Errors
    /// An authentication failure that does not tell what was wrong; code 73 when too many wrong secrets were tried.
    pub fn log_in(&self, header: Option<&str>) -> Result<Identity, ApiError> {
        let (id, secret) = basic(header.ok_or_else(super::access::no_header)?).ok_or_else(|| {
            ApiError::authentication(Code::NoUserPassword, "the header is not HTTP Basic with id and secret")
        })?;
        if self.settings.max_enrollments == 0 {
            return Err(ApiError::authentication(Code::EnrollDisabled, "enrolment is switched off"));
        }
        self.limit(&id, Proof::Secret)?;
        // One at a time per identity: a wrong secret is counted before the next one is judged.
        let _turn = self.logins.turn(&id);
        let Some(identity) = self.registry.identity(&id)? else {
            self.check_attempts(self.guesses.count(&id))?;
            self.hashing.verify(&secret, None);
            return Err(ApiError::authentication(Code::InvalidUser, "there is no such identity"));
        };
        self.check_attempts(identity.failed_attempts)?;
        if !self.hashing.verify(&secret, Some(&identity.secret_hash)) {
            self.registry.count_failed_attempt(&id)?;
            self.meters.wrong_secrets.inc();
            info!(target: "audit", ca = self.name(), id, attempts = identity.failed_attempts + 1, "wrong secret");
            return Err(ApiError::authentication(Code::InvalidPassword, "the secret is wrong"));
        }
        if identity.revoked {
            return Err(ApiError::authentication(Code::InvalidPassword, "the identity is revoked"));
        }
        Ok(identity)
    }

    /// Judges the wrong secrets so far.
    fn check_attempts(&self, failed: i64) -> Result<(), ApiError> {
        let limit = self.settings.password_attempts;
        if limit == 0 || failed < limit {
            return Ok(());
        }
        let message =
            format!("the limit of {limit} wrong secrets is reached; a registrar must set a new one");
        Err(ApiError::new(StatusCode::UNAUTHORIZED, Code::PasswordAttempts, message))
    }

    /// Issues a certificate to an identity that has logged in by its secret.
    ///
    /// # Errors
    /// For a signing request that cannot be used, attributes that the identity lacks, or no enrolments left.
    pub fn enroll(&self, identity: &Identity, request: EnrollmentRequest) -> Result<Enrolled, ApiError> {
        self.issue(identity, request, true)
    }

    /// Issues a new certificate to a caller that proved itself by its current one.
    ///
    /// # Errors
    /// As [`Authority::enroll`]; it does not use up an enrolment.
    pub fn reenroll(&self, caller: &Caller, request: EnrollmentRequest) -> Result<Enrolled, ApiError> {
        self.issue(caller.identity(), request, false)
    }

    fn issue(
        &self,
        identity: &Identity,
        request: EnrollmentRequest,
        counts: bool,
    ) -> Result<Enrolled, ApiError> {
        let bad = |message: String| ApiError::bad_request(Code::BadSigningRequest, message);
        let pem = request.certificate_request.unwrap_or_default();
        let signing = CertificateRequest::from_pem(&pem).map_err(|error| bad(error.to_string()))?;
        check_names(&signing, identity)?;
        let profile = Profile::parse(request.profile.as_deref().unwrap_or_default())
            .map_err(|message| ApiError::bad_request(Code::Unknown, message))?;
        self.check_authority_wish(profile, &signing, identity)?;
        let not_after = date(request.notafter.as_deref())
            .map_err(|message| ApiError::bad_request(Code::BadBody, message))?;
        let order = Order {
            request: &signing,
            profile,
            units: units(identity),
            hosts: request.hosts.filter(|hosts| !hosts.is_empty()),
            attributes: attribute_extension(identity, request.attr_reqs.as_deref())?,
            not_after,
        };
        let now = self.now();
        if self.issuer.has_ended(now) {
            return Err(ApiError::internal(Code::Unknown, "the authority's own certificate has ended"));
        }
        let issued = self.issuer.issue(&order, now).map_err(|error| bad(error.to_string()))?;
        let aki = issued.authority_key_id().map(hex::encode).unwrap_or_default();
        let record = CertificateRecord {
            certificate: CertificateId::new(&issued.serial_hex(), &aki),
            id: identity.id.clone(),
            affiliation: identity.affiliation.clone(),
            pem: issued.pem(),
            issued_at: now.unix_timestamp(),
            not_after: issued.not_after().unix_timestamp(),
            revoked_at: None,
        };
        let ceiling = self.settings.max_enrollments;
        self.registry.record_certificate(&record, profile.name(), counts, ceiling).map_err(refused)?;
        self.meters.issued.inc();
        info!(target: "audit", ca = self.name(), id = record.id, serial = record.certificate.serial,
              aki = record.certificate.aki, profile = profile.name(), not_after = %issued.not_after(),
              renewal = !counts, "certificate issued");
        Ok(Enrolled { certificate_pem: record.pem })
    }

    /// Judges the wish to become an authority: by the profile, or by the request's basic constraints.
    fn check_authority_wish(
        &self,
        profile: Profile,
        signing: &CertificateRequest,
        identity: &Identity,
    ) -> Result<(), ApiError> {
        let wished = profile == Profile::Ca || signing.asks_for_ca();
        if wished && !identity.attributes.is_true(INTERMEDIATE_CA) {
            let detail = format!("'{}' lacks hf.IntermediateCA", identity.id);
            return Err(ApiError::authorization(Code::MissingAttribute, detail));
        }
        if profile == Profile::Ca && self.issuer.path_length_below().is_none() {
            let message = "this authority's own certificate allows no authority below it (path length 0)";
            return Err(ApiError::bad_request(Code::Unknown, message));
        }
        Ok(())
    }
}

fn check_names(signing: &CertificateRequest, identity: &Identity) -> Result<(), ApiError> {
    let too_long =
        signing.subject().parts().find(|(part, value)| value.chars().count() > part.characters_max());
    if let Some((part, _)) = too_long {
        let message = format!("{part:?} in the signing request is longer than {}", part.characters_max());
        return Err(ApiError::bad_request(Code::FieldTooLong, message));
    }
    if signing.common_name() != Some(identity.id.as_str()) {
        let message = "the common name of the signing request is not the enrolment id";
        return Err(ApiError::new(StatusCode::FORBIDDEN, Code::CommonNameMismatch, message));
    }
    Ok(())
}

fn refused(error: EnrollmentRefused) -> ApiError {
    match error {
        EnrollmentRefused::Registry(error) => error.into(),
        other => ApiError::authentication(Code::InvalidPassword, other.to_string()),
    }
}

/// Identity and secret of an HTTP Basic header (RFC 7617).
fn basic(header: &str) -> Option<(String, Secret)> {
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = STANDARD.decode(encoded.trim()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (id, secret) = text.split_once(':')?;
    Some((id.to_owned(), Secret::new(secret.to_owned())))
}

/// The organisational units of a certificate: the type first, then the affiliation from the top down.
fn units(identity: &Identity) -> Vec<String> {
    let above = std::iter::once(identity.kind.as_str());
    above.chain(identity.affiliation.components()).map(str::to_owned).collect()
}

/// The value of the attribute extension (OID 1.2.3.4.5.6.7.8.1): JSON with sorted names, without ASN.1 around it.
///
/// Source: fabric-ca `lib/attrmgr/attrmgr.go`.
fn attribute_extension(
    identity: &Identity,
    requested: Option<&[AttributeRequest]>,
) -> Result<Option<Vec<u8>>, ApiError> {
    let mut chosen: Vec<(&str, &str)> = Vec::new();
    let mut missing = Vec::new();
    match requested {
        None => chosen.extend(
            identity
                .attributes
                .iter()
                .filter(|attribute| attribute.ecert)
                .map(|attribute| (attribute.name.as_str(), attribute.value.as_str())),
        ),
        Some(requested) => {
            for wanted in requested {
                match identity.attributes.named(&wanted.name) {
                    Some(attribute) => chosen.push((&attribute.name, &attribute.value)),
                    None if wanted.optional => {}
                    None => missing.push(wanted.name.as_str()),
                }
            }
        }
    }
    if !missing.is_empty() {
        let message = format!("The following required attributes are missing: {missing:?}");
        return Err(ApiError::bad_request(Code::Unknown, message));
    }
    if chosen.is_empty() && requested.is_none() {
        return Ok(None);
    }
    chosen.sort_unstable();
    let attributes: Map<String, Value> =
        chosen.into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
    Ok(Some(json!({ "attrs": attributes }).to_string().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::affiliation::Affiliation;
    use crate::attributes::{Attribute, Attributes};

    fn identity() -> Identity {
        let affiliation = Affiliation::parse("org1.dep1").expect("affiliation");
        let mail = Attribute { name: "email".to_owned(), value: "a@b".to_owned(), ecert: true };
        let hidden = Attribute::new("app", "x");
        let own: Attributes = [mail, hidden].into_iter().collect();
        Identity {
            id: "alice".to_owned(),
            kind: "client".to_owned(),
            attributes: own.with_fixed("alice", "client", "org1.dep1"),
            affiliation,
            secret_hash: String::new(),
            max_enrollments: -1,
            enrollments: 0,
            failed_attempts: 0,
            revoked: false,
        }
    }

    fn text(requested: Option<&[(&str, bool)]>) -> Option<String> {
        let requests = requested.map(|list| {
            let request = |(name, optional): &(&str, bool)| AttributeRequest {
                name: (*name).to_owned(),
                optional: *optional,
            };
            list.iter().map(request).collect::<Vec<_>>()
        });
        let bytes = attribute_extension(&identity(), requests.as_deref()).ok()??;
        String::from_utf8(bytes).ok()
    }

    #[test]
    fn without_a_wish_the_registered_attributes_are_in_the_certificate() {
        let expected = r#"{"attrs":{"email":"a@b","hf.Affiliation":"org1.dep1","hf.EnrollmentID":"alice","hf.Type":"client"}}"#;
        assert_eq!(text(None).as_deref(), Some(expected));
    }

    #[test]
    fn with_a_wish_exactly_the_wished_ones_are() {
        assert_eq!(text(Some(&[("app", false), ("no", true)])).as_deref(), Some(r#"{"attrs":{"app":"x"}}"#));
        assert_eq!(text(Some(&[])).as_deref(), Some(r#"{"attrs":{}}"#));
        assert_eq!(text(Some(&[("no", false)])), None);
    }

    #[test]
    fn units_are_the_type_and_the_affiliation_from_the_top() {
        assert_eq!(units(&identity()), ["client", "org1", "dep1"]);
    }

    #[test]
    fn a_basic_header_is_read_and_nothing_else() {
        let (id, secret) = basic("Basic YWRtaW46cHc6eA==").expect("basic");
        assert_eq!((id.as_str(), secret.reveal()), ("admin", "pw:x"));
        for wrong in ["", "Basic", "Bearer YTpi", "Basic ?", "Basic YWI="] {
            assert!(basic(wrong).is_none(), "{wrong}");
        }
    }
}
