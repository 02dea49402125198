//! The functions of membership under proptest, which shrinks what fails.

use std::sync::LazyLock;

use consort_crypto::{
    issue::{CertificateAuthority, CertificateRequest, DistinguishedName, Validity},
    key::{KeyAlgorithm, PrivateKey},
};
use proptest::prelude::*;
use prost::Message;
use time::macros::datetime;

/// Well-formed inputs of every algorithm to start from.
static SEEDS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let validity =
        Validity { not_before: datetime!(2020-01-01 00:00 UTC), not_after: datetime!(2040-01-01 00:00 UTC) };
    let name = DistinguishedName::common_name("ca");
    KeyAlgorithm::ALL
        .into_iter()
        .flat_map(|algorithm| {
            let key = PrivateKey::generate(algorithm).expect("a key");
            let request = CertificateRequest::create(&key, "x", &[]).expect("a request");
            let root = CertificateAuthority::new_root(&name, key, validity).expect("a root");
            let list = root.issue_crl(&[], 1, validity.not_before, validity.not_after).expect("a list");
            [root.certificate().der().to_vec(), request.der().to_vec(), list.der().to_vec()]
        })
        .collect()
});

proptest! {
    #[test]
    fn mutated_certificates_requests_and_lists_never_panic(
        seed in any::<prop::sample::Index>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = SEEDS[seed.index(SEEDS.len())].clone();
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        consort_fuzz::certificate(&bytes);
    }

    #[test]
    fn random_bytes_never_panic_a_reader(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        consort_fuzz::certificate(&bytes);
        consort_fuzz::policy(&bytes);
    }

    #[test]
    fn mutated_policies_never_panic(place in any::<prop::sample::Index>(), value in any::<u8>(), text in any::<bool>()) {
        const POLICY: &str = "OutOf(2, 'A.member', AND('B.peer', OR('C.admin', 'D.client')), 'E.orderer')";
        let mut bytes = POLICY.as_bytes().to_vec();
        if !text {
            bytes = consort_msp::policy::parse(POLICY).expect("a policy").encode_to_vec();
        }
        let place = place.index(bytes.len());
        bytes[place] = value;
        consort_fuzz::policy(&bytes);
    }
}
