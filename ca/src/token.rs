//! The token that authenticates a request: a certificate and a signature over the request.
//!
//! `base64(certificate PEM) + "." + base64(signature)`, sent alone in the `Authorization` header. The signature is
//! that of the certificate's key over
//! `METHOD + "." + base64(request URI) + "." + base64(body) + "." + base64(certificate PEM)`: ECDSA over its SHA-256,
//! and with the other kinds of keys as they sign every message (Ed25519 over the text itself, SM2 over its SM3).
//! Source: fabric-ca `util/util.go` (`CreateToken`, `VerifyToken`), format 1.4 and later.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Longest token that is looked at, in bytes: a certificate with a hundred large attributes stays below.
const TOKEN_BYTES_MAX: usize = 1 << 20;

/// A token taken apart; nothing about it has been verified.
#[derive(Debug, PartialEq, Eq)]
pub struct Token<'a> {
    /// The certificate as base64, exactly as received, because the signature covers these characters.
    certificate_base64: &'a str,
    /// The certificate in PEM.
    pub certificate_pem: Vec<u8>,
    /// The signature in DER.
    pub signature: Vec<u8>,
}

/// Why a text is no token.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the token is malformed: {0}")]
pub struct InvalidToken(&'static str);

impl<'a> Token<'a> {
    /// Takes the header's value apart.
    ///
    /// # Errors
    /// When it is too long, does not have exactly two parts, or a part is no base64.
    pub fn parse(header: &'a str) -> Result<Self, InvalidToken> {
        if header.len() > TOKEN_BYTES_MAX {
            return Err(InvalidToken("it is too long"));
        }
        let (certificate_base64, signature) =
            header.split_once('.').ok_or(InvalidToken("it does not have two parts"))?;
        if signature.contains('.') {
            return Err(InvalidToken("it has more than two parts"));
        }
        let decode = |part, fault| STANDARD.decode(part).map_err(|_| InvalidToken(fault));
        Ok(Self {
            certificate_base64,
            certificate_pem: decode(certificate_base64, "the certificate is no base64")?,
            signature: decode(signature, "the signature is no base64")?,
        })
    }

    /// The bytes that the signature must cover for this request.
    ///
    /// `uri` is path and query exactly as on the request line; `body` is the raw body.
    pub fn signed_bytes(&self, method: &str, uri: &str, body: &[u8]) -> Vec<u8> {
        signed_bytes(method, uri, body, self.certificate_base64)
    }
}

fn signed_bytes(method: &str, uri: &str, body: &[u8], certificate_base64: &str) -> Vec<u8> {
    let uri = STANDARD.encode(uri);
    let body = STANDARD.encode(body);
    format!("{method}.{uri}.{body}.{certificate_base64}").into_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn the_signed_text_covers_method_uri_body_and_certificate() {
        let token = Token::parse("Y2VydA==.c2ln").expect("token");

        let signed = token.signed_bytes("GET", "/api/v1/identities/u2?ca=ca-org1", b"");

        assert_eq!(token.certificate_pem, b"cert");
        assert_eq!(token.signature, b"sig");
        assert_eq!(signed, b"GET.L2FwaS92MS9pZGVudGl0aWVzL3UyP2NhPWNhLW9yZzE=..Y2VydA==");
    }

    #[test]
    fn malformed_tokens_are_refused() {
        for text in ["", "Y2VydA==", "Y2VydA==.c2ln.c2ln", "?.c2ln", "Y2VydA==.c2l", "Basic YTpi"] {
            assert!(Token::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in any::<String>()) {
            let _ = Token::parse(&text);
        }

        #[test]
        fn what_was_written_is_read(certificate in any::<Vec<u8>>(), signature in any::<Vec<u8>>()) {
            let text = format!("{}.{}", STANDARD.encode(&certificate), STANDARD.encode(&signature));
            let token = Token::parse(&text).expect("token");
            prop_assert_eq!(token.certificate_pem, certificate);
            prop_assert_eq!(token.signature, signature);
        }
    }
}
