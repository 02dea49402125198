//! Signing requests and tokens from strangers: never a panic, and nothing that was changed on its way says something else.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use consort_ca::token::Token;
use consort_crypto::certificate::SubjectAlternativeName;
use consort_crypto::key::{KeyAlgorithm, PrivateKey};
use consort_crypto::request::CertificateRequest;
use proptest::prelude::{any, prop, prop_assert, proptest};

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

/// The request is read, and its signature holds.
fn counts(der: &[u8]) -> bool {
    CertificateRequest::from_der(der).is_ok_and(|request| request.verify().is_ok())
}

/// Where the signed body of a request begins and ends: the first element within the outer one.
fn body(der: &[u8]) -> std::ops::Range<usize> {
    let element = |at: usize| match der[at + 1] {
        short @ 0..=0x7f => (at + 2, usize::from(short)),
        0x81 => (at + 3, usize::from(der[at + 2])),
        _ => (at + 4, usize::from(u16::from_be_bytes([der[at + 2], der[at + 3]]))),
    };
    let (start, _) = element(0);
    let (content, length) = element(start);
    start..content + length
}

#[test]
fn the_unsigned_frame_of_a_request_has_one_form() {
    for (kind, original) in REQUESTS.iter().enumerate() {
        assert!(counts(original), "request {kind}");
        let body = body(original);
        // Identifier and length of the whole, the algorithm, and the head of the signature: no bit of them may differ.
        let frame = (0..body.start).chain(body.end..body.end + 20);
        for (at, bit) in frame.flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut changed = original.clone();
            changed[at] ^= 1 << bit;
            assert!(!counts(&changed), "request {kind}: bit {bit} of byte {at}");
        }
        let longer = [original.as_slice(), &[0]].concat();
        assert!(!counts(&longer), "request {kind}: something after it");
    }
}

#[test]
fn an_algorithm_with_parameters_that_it_does_not_have_is_refused() {
    let original = &REQUESTS[0];
    let at = body(original).end;
    // SEQUENCE { OID ecdsa-with-SHA256 } gets a NULL: two bytes more there, and in the whole.
    let mut changed = original.clone();
    assert_eq!(changed[at..at + 2], [0x30, 10], "the algorithm of a P-256 request");
    changed[at + 1] += 2;
    changed.splice(at + 12..at + 12, [5, 0]);
    let length = body(original).start;
    let outer = original.len() - length + 2;
    changed.splice(0..length, outer_head(outer));
    let refused = CertificateRequest::from_der(&changed).expect_err("refused").to_string();
    assert!(refused.contains("parameters"), "{refused}");
}

/// Identifier and length of a sequence.
fn outer_head(length: usize) -> Vec<u8> {
    match u8::try_from(length) {
        Ok(short @ 0..=0x7f) => vec![0x30, short],
        Ok(byte) => vec![0x30, 0x81, byte],
        Err(_) => [vec![0x30, 0x82], u16::try_from(length).expect("short").to_be_bytes().to_vec()].concat(),
    }
}

proptest! {
    #[test]
    fn what_strangers_send_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..600), text in any::<String>()) {
        consort_fuzz::signing_request(&bytes);
        consort_fuzz::signing_request(text.as_bytes());
        consort_fuzz::token(text.as_bytes());
        let wrapped = STANDARD.encode(&bytes);
        let pem = format!("-----BEGIN CERTIFICATE REQUEST-----\n{wrapped}\n-----END CERTIFICATE REQUEST-----\n");
        consort_fuzz::signing_request(pem.as_bytes());
        consort_fuzz::token(format!("{wrapped}.{wrapped}").as_bytes());
    }

    #[test]
    fn a_request_that_was_changed_anywhere_is_refused_or_its_signature_fails(
        kind in 0..4_usize,
        position in any::<prop::sample::Index>(),
        change in 1..=255_u8,
    ) {
        let mut der = REQUESTS[kind].clone();
        let at = position.index(der.len());
        der[at] ^= change;
        prop_assert!(!counts(&der), "byte {at} of request {kind} changed by {change:#04x}");
        consort_fuzz::signing_request(&der);
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
