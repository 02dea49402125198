//! Refusals explain themselves, a dry run tells who could sign, and one certificate counts once whatever its form.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::sync::Arc;

use bytes::Bytes;
use consort_crypto::{
    certificate::Certificate,
    issue::{CertificateAuthority, Template, Validity},
    key::{PrivateKey, SignatureCheck},
    name::{DistinguishedName, NamePart},
};
use consort_msp::{
    Identity, Msp, MspManager, MspVersion,
    policy::{Policy, Screening, SignaturePolicy, SignedData, parse, verified_identities},
    serialize,
};
use consort_protos::{
    fabric::msp::{FabricMspConfig, FabricNodeOUs},
    ids::MspId,
};
use time::macros::datetime;

const VALIDITY: Validity =
    Validity { not_before: datetime!(2020-01-01 00:00 UTC), not_after: datetime!(2040-01-01 00:00 UTC) };

struct Organisation {
    id: MspId,
    authority: CertificateAuthority,
}

impl Organisation {
    fn new(name: &str) -> Self {
        let subject = DistinguishedName::common_name(name);
        let key = PrivateKey::generate_p256().unwrap();
        let authority = CertificateAuthority::new_root(&subject, key, VALIDITY).unwrap();
        Self { id: MspId::parse(name).unwrap(), authority }
    }

    fn msp(&self) -> Msp {
        let config = FabricMspConfig {
            name: self.id.to_string(),
            root_certs: vec![self.authority.certificate().pem().into_bytes().into()],
            fabric_node_ous: Some(FabricNodeOUs::named(&Bytes::new())),
            ..FabricMspConfig::default()
        };
        Msp::new(&config, MspVersion::V1_4_3).unwrap()
    }

    fn member(&self, name: &str, unit: &str) -> (Certificate, PrivateKey) {
        let key = PrivateKey::generate_p256().unwrap();
        let subject = DistinguishedName::common_name(name).with(NamePart::OrganizationalUnit, unit);
        (self.authority.issue(&Template::identity(subject, VALIDITY), key.public_key()).unwrap(), key)
    }

    fn signed(&self, name: &str, unit: &str) -> SignedData {
        let (certificate, key) = self.member(name, unit);
        SignedData {
            identity: serialize(&self.id, &certificate),
            message: Bytes::from_static(b"message"),
            signature: key.sign(b"message").unwrap().into(),
        }
    }
}

fn policy(text: &str, organisations: &[&Organisation]) -> (Policy, Arc<MspManager>) {
    let msps = Arc::new(MspManager::new(organisations.iter().map(|one| one.msp()).collect()));
    let rule = SignaturePolicy::from_proto(&parse(text).unwrap()).unwrap();
    (Policy::signature("/Channel/Application/Endorsement", rule, Arc::clone(&msps)), msps)
}

#[test]
fn a_refusal_says_which_branch_needed_whom_and_why_each_signature_did_not_count() {
    let (a, b) = (Organisation::new("Org1MSP"), Organisation::new("Org2MSP"));
    let (policy, _) = policy("AND('Org1MSP.peer', OR('Org2MSP.peer', 'Org2MSP.admin'))", &[&a, &b]);
    let good = a.signed("peer0", "peer");
    let mut forged = b.signed("peer1", "peer");
    forged.message = Bytes::from_static(b"another message");
    let stranger = Organisation::new("Org3MSP").signed("peer2", "peer");
    let client = b.signed("User1", "client");
    let refusal = policy.evaluate(&[good.clone(), good, forged, stranger, client]).unwrap_err();
    assert_eq!(refusal.to_string(), "signature set did not satisfy policy");
    let told = format!("{refusal:#}");
    for part in [
        "[unmet] /Channel/Application/Endorsement: needs 2 of 2, has 1",
        "- signature 2 does not count: peer0 (Org1MSP) signed before",
        "- signature 3 does not count: peer1 (Org2MSP): The signature is invalid",
        "- signature 4 does not count: MSP Org3MSP is not defined on channel",
        "  [met] Org1MSP.peer\n    - signed by peer0 (Org1MSP)",
        "  [unmet] needs 1 of 2, has 0",
        "    [unmet] Org2MSP.peer",
        "User1 (Org2MSP) does not count: The identity is not a [PEER] under this MSP [Org2MSP]",
    ] {
        assert!(told.contains(part), "{part}\n---\n{told}");
    }
}

#[test]
fn a_signer_counts_by_the_first_signature_that_holds_however_many_are_checked_together() {
    let organisation = Organisation::new("Org1MSP");
    let msps = MspManager::new(vec![organisation.msp()]);
    let good = [organisation.signed("peer0", "peer"), organisation.signed("peer1", "peer")];
    let choice = |number: usize| {
        let mut signed = good[number % 2].clone();
        if number >= 2 {
            signed.message = Bytes::from_static(b"another message");
        }
        signed
    };
    // All sequences of four signatures, by either of the two, good or bad.
    let sequences: Vec<[usize; 4]> =
        (0..256_usize).map(|number| [number & 3, number >> 2 & 3, number >> 4 & 3, number >> 6]).collect();
    let begin = |sequence: &[usize; 4]| Screening::begin(&msps, sequence.map(choice).to_vec());
    let mut together: Vec<Screening> = sequences.iter().map(begin).collect();
    SignatureCheck::settle(together.iter_mut().flat_map(Screening::checks));
    for (sequence, together) in sequences.iter().zip(together) {
        let mut expected: Vec<usize> = Vec::new();
        for number in sequence.iter().filter(|number| **number < 2) {
            if !expected.contains(number) {
                expected.push(*number);
            }
        }
        let expected: Vec<&Bytes> = expected.into_iter().map(|number| &good[number].identity).collect();
        let alone = verified_identities(&msps, &sequence.map(choice));
        for found in [together.identities(), alone] {
            assert_eq!(
                found.iter().map(|found| found.serialized()).collect::<Vec<_>>(),
                expected,
                "{sequence:?}"
            );
        }
    }
}

#[test]
fn a_dry_run_tells_who_could_satisfy_a_policy() {
    let (a, b) = (Organisation::new("Org1MSP"), Organisation::new("Org2MSP"));
    let (policy, msps) = policy("OutOf(2, 'Org1MSP.peer', 'Org2MSP.peer', 'Org3MSP.peer')", &[&a, &b]);
    let known = |organisation: &Organisation, name: &str, unit: &str| -> Arc<Identity> {
        let (certificate, _) = organisation.member(name, unit);
        msps.deserialize(&serialize(&organisation.id, &certificate)).unwrap()
    };
    let first = known(&a, "peer0", "peer");
    let client = known(&b, "User1", "client");
    let alone = policy.dry_run(&[first.clone(), client.clone()]);
    assert!(!alone.satisfied, "{alone}");
    let told = alone.to_string();
    for part in [
        "[unmet] /Channel/Application/Endorsement: needs 2 of 3, could have 1",
        "- enough: Org1MSP + Org2MSP",
        "[met] Org1MSP.peer\n    - peer0 (Org1MSP) could sign",
        "[unmet] Org2MSP.peer\n    - nobody who is known could sign",
    ] {
        assert!(told.contains(part), "{part}\n---\n{told}");
    }
    let together = policy.dry_run(&[first.clone(), client, known(&b, "peer1", "peer")]);
    assert!(together.satisfied, "{together}");
    // One signer cannot stand twice.
    let (twice, _) = self::policy("AND('Org1MSP.peer', 'Org1MSP.peer')", &[&a]);
    assert!(!twice.dry_run(std::slice::from_ref(&first)).satisfied);
    let (never, _) = self::policy("OutOf(2, 'Org1MSP.peer')", &[&a]);
    assert!(never.dry_run(&[first]).to_string().contains("no signatures can satisfy it"));
}

#[test]
fn two_encodings_of_one_certificate_are_one_signer() {
    let a = Organisation::new("Org1MSP");
    let (policy, msps) = policy("AND('Org1MSP.member', 'Org1MSP.member')", &[&a]);
    let (certificate, key) = a.member("peer0", "peer");
    let high = with_high_s(certificate.der());
    assert_ne!(high, *certificate.der());
    let forms = [certificate.pem(), consort_crypto::pem::encode("CERTIFICATE", &high)];
    let signatures = forms.map(|pem| SignedData {
        identity: prost::Message::encode_to_vec(&consort_protos::fabric::msp::SerializedIdentity {
            mspid: a.id.to_string(),
            id_bytes: pem.into_bytes().into(),
            ..Default::default()
        })
        .into(),
        message: Bytes::from_static(b"message"),
        signature: key.sign(b"message").unwrap().into(),
    });
    let ids = signatures.each_ref().map(|one| msps.deserialize(&one.identity).unwrap().id().clone());
    assert_eq!(ids[0], ids[1]);
    let refusal = policy.evaluate(&signatures).unwrap_err();
    assert!(format!("{refusal:#}").contains("signature 2 does not count: peer0 (Org1MSP) signed before"));
}

/// The same certificate with the other valid signature: S replaced by the order of P-256 less S.
fn with_high_s(der: &[u8]) -> Vec<u8> {
    const ORDER: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
        0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    // 30 82 LLLL body algorithm 03 len 00 30 len 02 len r 02 len s
    let start = (0..der.len())
        .rev()
        .find(|place| {
            der[*place] == 3
                && der.get(place + 1).is_some_and(|len| usize::from(*len) == der.len() - place - 2)
        })
        .unwrap();
    let r_length = usize::from(der[start + 6]);
    let r = &der[start + 7..start + 7 + r_length];
    let s = &der[start + 9 + r_length..];
    let mut padded = vec![0; 32_usize.saturating_sub(s.len())];
    padded.extend_from_slice(&s[s.len().saturating_sub(32)..]);
    let (mut high, mut borrow) = (vec![0; 32], 0_i16);
    for index in (0..32).rev() {
        let digit = i16::from(ORDER[index]) - i16::from(padded[index]) - borrow;
        borrow = i16::from(digit < 0);
        high[index] = u8::try_from(digit.rem_euclid(256)).unwrap();
    }
    let byte = |length: usize| u8::try_from(length).unwrap();
    let mut numbers = vec![2, byte(r.len())];
    numbers.extend_from_slice(r);
    numbers.extend([2, 33, 0]);
    numbers.extend(high);
    let mut signature = vec![3, byte(numbers.len() + 3), 0, 0x30, byte(numbers.len())];
    signature.extend(numbers);
    let mut out = der[..start].to_vec();
    out.extend(signature);
    let length = u16::try_from(out.len() - 4).unwrap().to_be_bytes();
    out[2..4].copy_from_slice(&length);
    out
}
