//! What callers ask for: the JSON bodies of Fabric CA's REST API as typed values.
//!
//! Clients differ in the case of keys (`caname`, `CAName`, `revokedBefore`), and send `null` for what they do not
//! mean; both are taken, as Go's JSON reader takes them. Unknown keys are ignored, as there.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use time::format_description::well_known::Rfc3339;
use time::{Date, Duration, OffsetDateTime, Time};

use crate::attributes::Attribute;
use crate::error::{ApiError, Code};
use crate::password::Secret;

/// Body of `enroll` and `reenroll`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct EnrollmentRequest {
    /// The certificate signing request in PEM.
    pub certificate_request: Option<String>,
    /// Which kind of certificate: `tls`, `ca`, or the default one.
    pub profile: Option<String>,
    /// Host names, addresses and mail addresses in place of those of the signing request.
    pub hosts: Option<Vec<String>>,
    /// The attributes that the certificate carries; without it, those registered for it.
    pub attr_reqs: Option<Vec<AttributeRequest>>,
    /// An earlier end than the profile's.
    #[serde(alias = "not_after")]
    pub notafter: Option<String>,
}

/// One attribute that a certificate shall carry.
#[derive(Debug, Clone, Deserialize)]
pub struct AttributeRequest {
    /// The attribute.
    pub name: String,
    /// Whether the enrolment goes on without it when the identity lacks it.
    #[serde(default, deserialize_with = "null_as_default")]
    pub optional: bool,
}

/// Body of `register`, `POST identities` and `PUT identities/{id}`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct RegistrationRequest {
    /// The enrolment id.
    #[serde(deserialize_with = "null_as_default")]
    pub id: String,
    /// The type of the identity.
    #[serde(rename = "type", deserialize_with = "null_as_default")]
    pub kind: String,
    /// Its secret; made here when there is none.
    pub secret: Option<Secret>,
    /// How often it may enrol.
    pub max_enrollments: Option<i64>,
    /// Where it stands; `.` is the root.
    pub affiliation: Option<String>,
    /// Its attributes.
    #[serde(deserialize_with = "null_as_default")]
    pub attrs: Vec<Attribute>,
}

/// Body of `revoke`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "lowercase")]
pub struct RevocationRequest {
    /// The identity, or the owner of the certificate.
    #[serde(deserialize_with = "null_as_default")]
    pub id: String,
    /// The certificate's authority key identifier in hexadecimal.
    #[serde(deserialize_with = "null_as_default")]
    pub aki: String,
    /// The certificate's serial number in hexadecimal.
    #[serde(deserialize_with = "null_as_default")]
    pub serial: String,
    /// Why: a word of RFC 5280.
    #[serde(deserialize_with = "null_as_default")]
    pub reason: String,
    /// Whether the answer shall hold the new list of revoked certificates.
    #[serde(deserialize_with = "null_as_default")]
    pub gencrl: bool,
}

/// Body of `gencrl`; each date is RFC 3339.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct CrlRequest {
    /// Only those revoked after this moment.
    pub revokedafter: Option<String>,
    /// Only those revoked before this moment.
    pub revokedbefore: Option<String>,
    /// Only those that end after this moment.
    pub expireafter: Option<String>,
    /// Only those that end before this moment.
    pub expirebefore: Option<String>,
}

/// Body of `POST affiliations` and `PUT affiliations/{name}`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct AffiliationRequest {
    /// The (new) name.
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
}

/// The part that every body may have.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Addressee {
    caname: Option<String>,
}

/// A parsed body, with its keys in lower case.
#[derive(Debug, Clone)]
pub struct JsonBody(Value);

impl JsonBody {
    /// Parses a body.
    ///
    /// # Errors
    /// Code 4 when it is empty, code 5 when it is no JSON.
    pub fn parse(bytes: &[u8]) -> Result<Self, ApiError> {
        if bytes.is_empty() {
            return Err(ApiError::bad_request(Code::EmptyBody, "the request needs a body"));
        }
        let value = serde_json::from_slice(bytes)
            .map_err(|error| ApiError::bad_request(Code::BadBody, format!("the body is no JSON: {error}")))?;
        Ok(Self(with_lower_case_keys(value)))
    }

    /// The name of the certificate authority that the body names, if it names one.
    pub fn ca_name(&self) -> Option<String> {
        let addressee: Addressee = serde_json::from_value(self.0.clone()).ok()?;
        addressee.caname.filter(|name| !name.is_empty())
    }

    /// The body as what the endpoint takes.
    ///
    /// # Errors
    /// Code 5 when a value has the wrong type.
    pub fn read<T: DeserializeOwned>(self) -> Result<T, ApiError> {
        serde_json::from_value(self.0).map_err(|error| {
            ApiError::bad_request(Code::BadBody, format!("the body is not as expected: {error}"))
        })
    }
}

/// Depth is bounded: the JSON reader takes at most 128 levels.
fn with_lower_case_keys(value: Value) -> Value {
    match value {
        Value::Object(object) => Value::Object(
            object
                .into_iter()
                .map(|(key, value)| (key.to_ascii_lowercase(), with_lower_case_keys(value)))
                .collect::<Map<_, _>>(),
        ),
        Value::Array(list) => Value::Array(list.into_iter().map(with_lower_case_keys).collect()),
        other => other,
    }
}

/// Reads `null` as what the field has when it is absent.
pub(crate) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads a date of RFC 3339 into seconds since 1970; nothing, and Go's zero time (the year 1), are no date.
///
/// # Errors
/// The text that cannot be read.
pub fn date(text: Option<&str>) -> Result<Option<i64>, String> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let moment = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| {
        let shown: String = text.chars().take(64).collect();
        format!("'{shown}' is no date of RFC 3339 (2026-01-31T12:00:00Z)")
    })?;
    Ok(Some(moment.unix_timestamp()).filter(|_| moment.year() > 1))
}

/// Reads a moment of a certificate listing: RFC 3339, a day (`2026-01-31`), `now`, or a span from now (`-15d`, `+3h`).
///
/// # Errors
/// The text that cannot be read.
pub fn moment(text: Option<&str>, now: OffsetDateTime) -> Result<Option<i64>, String> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let day = time::macros::format_description!("[year]-[month]-[day]");
    if text == "now" {
        return Ok(Some(now.unix_timestamp()));
    }
    if let Ok(day) = Date::parse(text, &day) {
        return Ok(Some(day.with_time(Time::MIDNIGHT).assume_utc().unix_timestamp()));
    }
    if let Some(span) = span(text) {
        return Ok(now.checked_add(span).map(OffsetDateTime::unix_timestamp));
    }
    date(Some(text))
}

fn span(text: &str) -> Option<Duration> {
    let (sign, rest) = match text.as_bytes().first()? {
        // A plus sign in a query string stands for a space.
        b'+' | b' ' => (1, &text[1..]),
        b'-' => (-1, &text[1..]),
        _ => return None,
    };
    let unit_at = rest.char_indices().last()?.0;
    let number: i32 = rest[..unit_at].parse().ok()?;
    let seconds = match &rest[unit_at..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return None,
    };
    Some(Duration::seconds(i64::from(number) * seconds * sign))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    fn body(text: &str) -> JsonBody {
        JsonBody::parse(text.as_bytes()).expect("body")
    }

    #[test]
    fn keys_match_in_any_case_and_null_is_nothing() {
        let text = r#"{"ID":"u","Type":null,"Max_Enrollments":1,"secret":null,"attrs":[{"Name":"a","value":"V"}],
                       "CAName":"ca-org1"}"#;

        let name = body(text).ca_name();
        let request: RegistrationRequest = body(text).read().expect("request");

        assert_eq!(name.as_deref(), Some("ca-org1"));
        assert_eq!((request.id.as_str(), request.kind.as_str()), ("u", ""));
        assert_eq!(request.max_enrollments, Some(1));
        assert_eq!(request.attrs, [Attribute::new("a", "V")]);
    }

    #[test]
    fn empty_and_broken_bodies_have_their_codes() {
        assert_eq!(JsonBody::parse(b"").expect_err("empty").code(), 4);
        assert_eq!(JsonBody::parse(b"{").expect_err("broken").code(), 5);
        assert_eq!(
            body("[]").read::<CrlRequest>().expect("an empty sequence is an empty request").revokedafter,
            None
        );
        assert_eq!(body(r#"{"id":7}"#).read::<RegistrationRequest>().expect_err("type").code(), 5);
    }

    #[test]
    fn dates_are_read_and_the_zero_time_is_none() {
        assert_eq!(date(Some("1970-01-01T00:00:10.500Z")), Ok(Some(10)));
        assert_eq!(date(Some("0001-01-01T00:00:00Z")), Ok(None));
        assert_eq!(date(None), Ok(None));
        assert!(date(Some("yesterday")).is_err());
    }

    #[test]
    fn moments_of_listings_are_read_in_all_forms() {
        let now = OffsetDateTime::from_unix_timestamp(1_000_000).expect("now");

        assert_eq!(moment(Some("now"), now), Ok(Some(1_000_000)));
        assert_eq!(moment(Some("-10s"), now), Ok(Some(999_990)));
        assert_eq!(moment(Some("+1d"), now), Ok(Some(1_086_400)));
        assert_eq!(moment(Some("1970-01-02"), now), Ok(Some(86_400)));
        assert!(moment(Some("1x"), now).is_err());
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in any::<String>(), bytes in any::<Vec<u8>>()) {
            let now = OffsetDateTime::UNIX_EPOCH;
            let _ = moment(Some(&text), now);
            let _ = span(&text);
            if let Ok(body) = JsonBody::parse(&bytes) {
                let _ = body.ca_name();
                let _ = body.read::<RegistrationRequest>();
            }
        }
    }
}
