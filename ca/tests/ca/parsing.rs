//! Signing requests and tokens from strangers: never a panic, and nothing that was changed on its way says something else.

mod entry;

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use consort_ca::token::Token;
use consort_crypto::certificate::SubjectAlternativeName;
use consort_crypto::key::{KeyAlgorithm, PrivateKey};
use consort_crypto::request::CertificateRequest;
use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

/// One request with each kind of key; making keys for every case would be most of the test's time.
static REQUESTS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let host = SubjectAlternativeName::from_text("peer0.org1.example.com");
    let request = |algorithm| {
        let key = PrivateKey::generate(algorithm).expect("key");
        CertificateRequest::create(&key, "alice", std::slice::from_ref(&host))
            .expect("request")
            .der()
            .to_vec()
    };
    KeyAlgorithm::ALL.into_iter().map(request).collect()
});

proptest! {
    #[test]
    fn what_strangers_send_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..600), text in any::<String>()) {
        entry::signing_request(&bytes);
        entry::signing_request(text.as_bytes());
        entry::token(text.as_bytes());
        let wrapped = STANDARD.encode(&bytes);
        let pem = format!("-----BEGIN CERTIFICATE REQUEST-----\n{wrapped}\n-----END CERTIFICATE REQUEST-----\n");
        entry::signing_request(pem.as_bytes());
        entry::token(format!("{wrapped}.{wrapped}").as_bytes());
    }

    #[test]
    fn a_request_that_was_changed_does_not_count_or_says_the_same(
        kind in 0..4_usize,
        position in any::<prop::sample::Index>(),
        change in 1..=255_u8,
    ) {
        let mut der = REQUESTS[kind].clone();
        let original = CertificateRequest::from_der(&der).expect("request");
        prop_assert!(original.verify().is_ok());

        let at = position.index(der.len());
        der[at] ^= change;

        // The frame around body and signature is not signed: what is read differently there must not read otherwise.
        if let Ok(read) = CertificateRequest::from_der(&der)
            && read.verify().is_ok()
        {
            let what = format!("byte {at} changed by {change:#04x}");
            prop_assert_eq!(read.common_name(), original.common_name(), "{}", what);
            prop_assert_eq!(read.sans(), original.sans(), "{}", what);
            prop_assert_eq!(read.public_key(), original.public_key(), "{}", what);
            prop_assert_eq!(read.asks_for_ca(), original.asks_for_ca(), "{}", what);
        }
        entry::signing_request(&der);
    }

    #[test]
    fn a_cut_request_does_not_count(kind in 0..4_usize, position in any::<prop::sample::Index>()) {
        let der = &REQUESTS[kind];
        let cut = &der[..position.index(der.len())];
        prop_assert!(CertificateRequest::from_der(cut).is_err());
    }

    #[test]
    fn a_token_covers_every_part_of_the_request(
        method in "(GET|POST|PUT|DELETE)",
        uri in "/[a-z0-9/?=&%]{0,30}",
        body in prop::collection::vec(any::<u8>(), 0..60),
        other_uri in "/[a-z0-9/?=&%]{0,30}",
        other_body in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let token = Token::parse("Y2VydA==.c2ln").expect("token");
        let signed = token.signed_bytes(&method, &uri, &body);
        let same = (&uri, &body) == (&other_uri, &other_body);
        prop_assert!((signed == token.signed_bytes(&method, &other_uri, &other_body)) == same);
        let other_method = if method == "GET" { "POST" } else { "GET" };
        prop_assert!(signed != token.signed_bytes(other_method, &uri, &body));
    }
}
