//! What holds for every record, grant and fragment, in both suites.

use proptest::prelude::*;

use super::element::{Element, POINT_BYTES};
use super::share::{GrantKeys, GrantSecret};
use super::*;

const SUITES: [Suite; 2] = [Suite::P256, Suite::Sm2];

const AUX: &[u8] = b"wards|records|patient-17|3";

const GRANT: &[u8] = b"wards|grant-5";

const REQUEST: &[u8] = b"wards|request-9";

/// An owner's record, granted to a reader by some of several proxies, with every proxy's fragment.
struct Case {
    owner: SecretKey,
    reader: SecretKey,
    threshold: u16,
    sealed: Sealed,
    split: Split,
    fragments: Vec<Fragment>,
}

impl Case {
    fn new(suite: Suite, threshold: u16, proxies: u16) -> Self {
        let [owner, reader] = [(); 2].map(|()| SecretKey::generate(suite).unwrap());
        let sealed = seal(&owner.public_key(), AUX, b"blood group 0-").unwrap();
        let split = split(&owner, &reader.public_key(), threshold, proxies, GRANT).unwrap();
        let fragment = |share| re_encrypt(share, &sealed.capsule, AUX, GRANT, REQUEST).unwrap();
        let fragments = split.shares.iter().map(fragment).collect();
        Self { owner, reader, threshold, sealed, split, fragments }
    }

    fn open(&self, fragments: &[Fragment]) -> Result<Vec<u8>, Error> {
        self.open_as(&self.reader, &self.owner.public_key(), GRANT, fragments)
    }

    fn open_as(
        &self,
        reader: &SecretKey,
        owner: &PublicKey,
        grant: &[u8],
        fragments: &[Fragment],
    ) -> Result<Vec<u8>, Error> {
        let Split { ephemeral, commitments, .. } = &self.split;
        let Sealed { capsule, ciphertext } = &self.sealed;
        let opened = open(
            reader,
            owner,
            ephemeral,
            self.threshold,
            AUX,
            grant,
            REQUEST,
            commitments,
            capsule,
            ciphertext,
            fragments,
        );
        opened.map(|plaintext| plaintext.to_vec())
    }

    /// What owner and reader know of a grant.
    fn grant_secret(&self) -> GrantSecret {
        let (owner, reader) = (self.owner.public_key(), self.reader.public_key());
        let keys =
            GrantKeys { owner: &owner, reader: &reader, ephemeral: &self.split.ephemeral, grant: GRANT };
        let with_ephemeral = self.reader.shared(&self.split.ephemeral).unwrap();
        GrantSecret::new(&keys, &with_ephemeral, &self.reader.shared(owner.point()).unwrap())
    }

    fn verify(&self, fragment: &Fragment) -> Result<(), Error> {
        let commitment = &self.split.commitments[usize::from(fragment.index()) - 1];
        fragment.verify(&self.sealed.capsule, AUX, commitment, GRANT, REQUEST)
    }
}

/// All choices of members by number, as masks.
fn subsets(members: usize) -> impl Iterator<Item = Vec<usize>> {
    (0u32..1 << members).map(move |mask| (0..members).filter(|member| mask >> member & 1 == 1).collect())
}

#[test]
fn an_owner_opens_what_was_sealed_for_it() {
    for suite in SUITES {
        let case = Case::new(suite, 1, 1);
        let Sealed { capsule, ciphertext } = &case.sealed;
        assert_eq!(&open_own(&case.owner, AUX, capsule, ciphertext).unwrap()[..], b"blood group 0-");
        assert_eq!(open_own(&case.owner, b"other", capsule, ciphertext).unwrap_err(), Error::Capsule);
        assert_eq!(open_own(&case.reader, AUX, capsule, ciphertext).unwrap_err(), Error::Closed);
        assert_eq!(open_own(&case.owner, AUX, capsule, &ciphertext[1..]).unwrap_err(), Error::Closed);
        assert_eq!(open_own(&case.owner, AUX, capsule, &[]).unwrap_err(), Error::Closed);
    }
}

#[test]
fn exactly_the_sets_of_enough_proxies_open_a_record() {
    for suite in SUITES {
        for (threshold, proxies) in [(1, 1), (1, 3), (2, 3), (3, 5), (4, 4)] {
            let case = Case::new(suite, threshold, proxies);
            for subset in subsets(usize::from(proxies)) {
                // Backwards, as the order does not matter.
                let fragments: Vec<_> = subset.iter().rev().map(|at| case.fragments[*at].clone()).collect();
                let opened = case.open(&fragments);
                if fragments.len() >= usize::from(threshold) {
                    assert_eq!(opened.unwrap(), b"blood group 0-", "{suite:?} {threshold} {subset:?}");
                } else {
                    assert_eq!(opened, Err(Error::TooFew { fragments: fragments.len(), threshold }));
                }
            }
        }
    }
}

#[test]
fn a_reader_who_pretends_a_lower_threshold_learns_nothing() {
    for suite in SUITES {
        let mut case = Case::new(suite, 3, 4);
        case.threshold = 2;
        assert_eq!(case.open(&case.fragments[..2]), Err(Error::Closed), "{suite:?}");
        case.threshold = 0;
        assert_eq!(case.open(&case.fragments), Err(Error::Threshold { threshold: 0, proxies: 4 }));
    }
}

#[test]
fn what_the_reader_and_fewer_proxies_than_the_threshold_have_together_opens_nothing() {
    for suite in SUITES {
        let case = Case::new(suite, 3, 5);
        // All that they have: the ledger, the reader's key, two shares, and whatever can be made with them.
        let Split { shares, ephemeral, commitments } = &case.split;
        let sum = shares[0].scalar.plus(&shares[1].scalar);
        for scalar in [*shares[0].scalar, *shares[1].scalar, sum] {
            let bytes = [&[0, 3][..], &scalar.to_bytes()].concat();
            let forged = Share::from_bytes(suite, &bytes).unwrap();
            let third = re_encrypt(&forged, &case.sealed.capsule, AUX, GRANT, REQUEST).unwrap();
            let fragments = [case.fragments[0].clone(), case.fragments[1].clone(), third];
            assert_eq!(case.open(&fragments), Err(Error::Fragment { index: 3 }), "{suite:?}");
            // Whoever leaves out the check gets something else than the record's key.
            let mut unchecked = commitments.clone();
            unchecked[2] = forged.commitment().unwrap();
            let opened = open(
                &case.reader,
                &case.owner.public_key(),
                ephemeral,
                3,
                AUX,
                GRANT,
                REQUEST,
                &unchecked,
                &case.sealed.capsule,
                &case.sealed.ciphertext,
                &fragments,
            );
            assert_eq!(opened.unwrap_err(), Error::Closed, "{suite:?}");
        }
    }
}

#[test]
fn the_shares_of_fewer_proxies_than_the_threshold_fit_every_owners_key() {
    use super::share::weights;
    for suite in SUITES {
        let case = Case::new(suite, 3, 5);
        // Also to the reader, who knows the places and the factor: for each key there is one third share that goes with the two.
        let secret = case.grant_secret();
        let places: Vec<_> = (1..=3).map(|index| secret.place(index)).collect();
        let weights = weights(&places).unwrap();
        let [first, second, third] = [0, 1, 2].map(|at| &case.split.shares[at].scalar);
        let of_two = first.times(&weights[0]).plus(&second.times(&weights[1]));
        let fitting = |key: &SecretKey| {
            let constant = key.scalar().times(&secret.factor.inverted().unwrap());
            constant.minus(&of_two).times(&weights[2].inverted().unwrap())
        };
        assert_eq!(fitting(&case.owner).to_bytes(), third.to_bytes());
        for _ in 0..8 {
            let other = fitting(&SecretKey::generate(suite).unwrap());
            assert!(!other.is_zero() && other.to_bytes() != third.to_bytes());
        }
    }
}

#[test]
fn another_reader_owner_or_grant_does_not_open() {
    for suite in SUITES {
        let case = Case::new(suite, 2, 3);
        let stranger = SecretKey::generate(suite).unwrap();
        let owner = case.owner.public_key();
        let fragments = &case.fragments[..2];
        assert_eq!(case.open_as(&stranger, &owner, GRANT, fragments), Err(Error::Closed));
        assert_eq!(case.open_as(&case.reader, &stranger.public_key(), GRANT, fragments), Err(Error::Closed));
        let wrong = Error::Fragment { index: 1 };
        assert_eq!(case.open_as(&case.reader, &owner, b"wards|grant-6", fragments), Err(wrong));
        // Even the owner's own key is not the reader's.
        assert_eq!(case.open_as(&case.owner, &owner, GRANT, fragments), Err(Error::Closed));
    }
}

#[test]
fn a_share_of_another_grant_does_not_open() {
    for suite in SUITES {
        let case = Case::new(suite, 2, 3);
        let other = split(&case.owner, &case.reader.public_key(), 2, 3, b"wards|grant-6").unwrap();
        let replayed = re_encrypt(&other.shares[0], &case.sealed.capsule, AUX, GRANT, REQUEST).unwrap();
        assert!(!other.shares[0].matches(&case.split.commitments[0]));
        assert_eq!(case.verify(&replayed), Err(Error::Fragment { index: 1 }));
        let mixed = [replayed, case.fragments[1].clone()];
        assert_eq!(case.open(&mixed), Err(Error::Fragment { index: 1 }));
    }
}

#[test]
fn a_fragment_holds_for_its_record_grant_request_and_proxy_only() {
    for suite in SUITES {
        let case = Case::new(suite, 2, 3);
        let (fragment, capsule) = (&case.fragments[1], &case.sealed.capsule);
        let commitments = &case.split.commitments;
        let wrong = Err(Error::Fragment { index: 2 });
        assert_eq!(fragment.verify(capsule, AUX, &commitments[1], GRANT, REQUEST), Ok(()));
        assert_eq!(fragment.verify(capsule, AUX, &commitments[0], GRANT, REQUEST), wrong);
        assert_eq!(fragment.verify(capsule, AUX, &commitments[1], b"other", REQUEST), wrong);
        assert_eq!(fragment.verify(capsule, AUX, &commitments[1], GRANT, b"other"), wrong);
        assert_eq!(fragment.verify(capsule, b"o", &commitments[1], GRANT, REQUEST), Err(Error::Capsule));
        let other = seal(&case.owner.public_key(), AUX, b"blood group 0-").unwrap();
        assert_eq!(fragment.verify(&other.capsule, AUX, &commitments[1], GRANT, REQUEST), wrong);
        // Number 2's answer under number 3's name.
        let mut renamed = fragment.to_bytes();
        renamed[1] = 3;
        let renamed = Fragment::from_bytes(suite, &renamed).unwrap();
        assert_eq!(case.verify(&renamed), Err(Error::Fragment { index: 3 }));
    }
}

#[test]
fn every_flipped_bit_of_a_fragment_is_noticed() {
    for suite in SUITES {
        let case = Case::new(suite, 1, 2);
        let bytes = case.fragments[0].to_bytes();
        for at in 0..bytes.len() {
            for bit in [0, 7] {
                let mut flipped = bytes;
                flipped[at] ^= 1 << bit;
                let Ok(fragment) = Fragment::from_bytes(suite, &flipped) else { continue };
                if let Some(commitment) = case.split.commitments.get(usize::from(fragment.index()) - 1) {
                    let verdict = fragment.verify(&case.sealed.capsule, AUX, commitment, GRANT, REQUEST);
                    assert!(verdict.is_err(), "{suite:?}: bit {bit} of byte {at}");
                } else {
                    let index = fragment.index();
                    assert_eq!(case.open(&[fragment]), Err(Error::Index { index }));
                }
            }
        }
    }
}

#[test]
fn every_flipped_bit_of_a_capsule_or_ciphertext_is_noticed() {
    for suite in SUITES {
        let case = Case::new(suite, 1, 1);
        let Sealed { capsule, ciphertext } = &case.sealed;
        for at in 0..Capsule::BYTES {
            let mut flipped = capsule.to_bytes();
            flipped[at] ^= 1;
            let Ok(capsule) = Capsule::from_bytes(suite, &flipped) else { continue };
            assert_eq!(capsule.check(AUX), Err(Error::Capsule), "{suite:?}: byte {at}");
            assert!(re_encrypt(&case.split.shares[0], &capsule, AUX, GRANT, REQUEST).is_err());
        }
        for at in 0..ciphertext.len() {
            let mut flipped = ciphertext.clone();
            flipped[at] ^= 1;
            assert_eq!(open_own(&case.owner, AUX, capsule, &flipped).unwrap_err(), Error::Closed);
        }
    }
}

#[test]
fn a_capsule_that_was_moved_to_another_record_is_refused_by_everybody() {
    for suite in SUITES {
        let case = Case::new(suite, 1, 1);
        let Sealed { capsule, ciphertext } = &case.sealed;
        let moved = b"wards|records|patient-18|1";
        assert_eq!(capsule.check(moved), Err(Error::Capsule));
        let answer = re_encrypt(&case.split.shares[0], capsule, moved, GRANT, REQUEST);
        assert_eq!(answer.unwrap_err(), Error::Capsule);
        assert_eq!(open_own(&case.owner, moved, capsule, ciphertext).unwrap_err(), Error::Capsule);
    }
}

#[test]
fn a_fragment_given_twice_does_not_count_twice() {
    let case = Case::new(Suite::P256, 2, 3);
    let twice = [case.fragments[2].clone(), case.fragments[2].clone()];
    assert_eq!(case.open(&twice), Err(Error::Duplicate { index: 3 }));
}

#[test]
fn a_wrong_fragment_among_enough_right_ones_is_named() {
    let case = Case::new(Suite::Sm2, 2, 3);
    let other = re_encrypt(&case.split.shares[1], &case.sealed.capsule, AUX, GRANT, b"other").unwrap();
    let fragments = [case.fragments[0].clone(), other, case.fragments[2].clone()];
    assert_eq!(case.open(&fragments), Err(Error::Fragment { index: 2 }));
}

#[test]
fn every_one_of_many_fragments_is_found_when_it_is_wrong() {
    // More than are verified at once.
    let case = Case::new(Suite::P256, 2, 66);
    assert_eq!(case.open(&case.fragments).unwrap(), b"blood group 0-");
    for wrong in [0, 31, 63, 64, 65] {
        let mut fragments = case.fragments.clone();
        let share = &case.split.shares[wrong];
        fragments[wrong] = re_encrypt(share, &case.sealed.capsule, AUX, GRANT, b"other").unwrap();
        assert_eq!(case.open(&fragments), Err(Error::Fragment { index: fragments[wrong].index() }));
    }
}

#[test]
fn impossible_thresholds_are_refused() {
    let [owner, reader] = [(); 2].map(|()| SecretKey::generate(Suite::P256).unwrap());
    for (threshold, proxies) in [(0, 3), (4, 3), (0, 0), (1, PROXIES_MAX + 1), (u16::MAX, u16::MAX)] {
        let refused = split(&owner, &reader.public_key(), threshold, proxies, GRANT).unwrap_err();
        assert_eq!(refused, Error::Threshold { threshold, proxies });
    }
}

#[test]
fn suites_do_not_mix() {
    let (p256, sm2) = (Case::new(Suite::P256, 1, 1), Case::new(Suite::Sm2, 1, 1));
    let capsule = &p256.sealed.capsule;
    assert_eq!(open_own(&sm2.owner, AUX, capsule, b"").unwrap_err(), Error::Suites);
    assert_eq!(split(&p256.owner, &sm2.reader.public_key(), 1, 1, GRANT).unwrap_err(), Error::Suites);
    assert_eq!(re_encrypt(&sm2.split.shares[0], capsule, AUX, GRANT, REQUEST).unwrap_err(), Error::Suites);
    let foreign = sm2.fragments[0].verify(capsule, AUX, &p256.split.commitments[0], GRANT, REQUEST);
    assert_eq!(foreign, Err(Error::Suites));
    assert_eq!(p256.open(&sm2.fragments), Err(Error::Suites));
    assert!(!p256.split.shares[0].matches(&sm2.split.commitments[0]));
    let proof = prove_knowledge(&p256.owner, b"c").unwrap();
    assert_eq!(proof.verify(&sm2.owner.public_key(), b"c"), Err(Error::Suites));
}

#[test]
fn points_that_are_not_canonical_are_refused() {
    let mut bad: Vec<Vec<u8>> = vec![vec![], vec![0], vec![0; POINT_BYTES], vec![2; 32], vec![2; 34]];
    for suite in SUITES {
        let good = SecretKey::generate(suite).unwrap().public_key().to_bytes();
        for tag in [0, 1, 4, 5, 6, 7, 0xff] {
            let mut point = good.to_vec();
            point[0] = tag;
            bad.push(point);
        }
        // x is not below the prime.
        bad.push([&[2][..], &[0xff; 32]].concat());
        for point in &bad {
            assert_eq!(Point::from_bytes(suite, point), Err(Error::Point), "{suite:?} {point:x?}");
            assert_eq!(PublicKey::from_bytes(suite, point), Err(Error::Point));
        }
    }
    // x = 0 is on P-256 (its b is a square); the prime of SP 800-186, congruent to it, is not its encoding.
    let prime = hex::decode("ffffffff00000001000000000000000000000000ffffffffffffffffffffffff").unwrap();
    assert!(Point::from_bytes(Suite::P256, &[&[2][..], &[0; 32]].concat()).is_ok());
    assert_eq!(Point::from_bytes(Suite::P256, &[&[2][..], &prime].concat()), Err(Error::Point));
}

#[test]
fn scalars_that_are_zero_or_not_below_the_order_are_refused() {
    let orders = [
        (Suite::P256, "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551"),
        (Suite::Sm2, "fffffffeffffffffffffffffffffffff7203df6b21c6052b53bbf40939d54123"),
    ];
    for (suite, order) in orders {
        let order = hex::decode(order).unwrap();
        let mut largest = order.clone();
        largest[31] -= 1;
        assert!(SecretKey::from_bytes(suite, &largest).is_ok());
        for bad in [&order[..], &[0; 32], &[0xff; 32], &[1; 31], &[1; 33], &[]] {
            assert_eq!(SecretKey::from_bytes(suite, bad).unwrap_err(), Error::Scalar, "{suite:?}");
        }
        let case = Case::new(suite, 1, 1);
        let mut share = case.split.shares[0].to_bytes();
        share[2..].copy_from_slice(&order);
        assert_eq!(Share::from_bytes(suite, share.as_ref()).unwrap_err(), Error::Scalar);
        let mut capsule = case.sealed.capsule.to_bytes();
        capsule[66..].copy_from_slice(&order);
        assert_eq!(Capsule::from_bytes(suite, &capsule).unwrap_err(), Error::Scalar);
        let mut fragment = case.fragments[0].to_bytes();
        fragment[167..].copy_from_slice(&order);
        assert_eq!(Fragment::from_bytes(suite, &fragment).unwrap_err(), Error::Scalar);
    }
}

#[test]
fn what_is_written_reads_the_same() {
    for suite in SUITES {
        let case = Case::new(suite, 2, 2);
        let capsule = case.sealed.capsule;
        assert_eq!(Capsule::from_bytes(suite, &capsule.to_bytes()).unwrap(), capsule);
        let fragment = &case.fragments[1];
        assert_eq!(Fragment::from_bytes(suite, &fragment.to_bytes()).unwrap(), *fragment);
        let share = Share::from_bytes(suite, case.split.shares[1].to_bytes().as_ref()).unwrap();
        assert!(share.index() == 2 && share.matches(&case.split.commitments[1]));
        assert!(!share.matches(&case.split.commitments[0]));
        let key = SecretKey::from_bytes(suite, case.owner.to_bytes().as_ref()).unwrap();
        assert_eq!(key.public_key(), case.owner.public_key());
        let ephemeral = case.split.ephemeral;
        assert_eq!(Point::from_bytes(suite, &ephemeral.to_bytes()).unwrap(), ephemeral);
    }
    let zero = Share::from_bytes(Suite::P256, &[0; 34]).unwrap_err();
    assert_eq!(zero, Error::Index { index: 0 });
}

#[test]
fn knowledge_is_proved_for_one_key_and_context() {
    for suite in SUITES {
        let [key, other] = [(); 2].map(|()| SecretKey::generate(suite).unwrap());
        let proof = prove_knowledge(&key, b"domain wards").unwrap();
        let proof = Proof::from_bytes(suite, &proof.to_bytes()).unwrap();
        assert_eq!(proof.verify(&key.public_key(), b"domain wards"), Ok(()));
        assert_eq!(proof.verify(&key.public_key(), b"domain labs"), Err(Error::Knowledge));
        assert_eq!(proof.verify(&other.public_key(), b"domain wards"), Err(Error::Knowledge));
    }
}

#[test]
fn a_message_opens_for_its_recipient_and_context() {
    for suite in SUITES {
        let [key, other] = [(); 2].map(|()| SecretKey::generate(suite).unwrap());
        let sealed = seal_to(&key.public_key(), b"grant 5", b"a share").unwrap();
        assert_eq!(sealed.len(), 7 + 49);
        assert_eq!(&open_sealed(&key, b"grant 5", &sealed).unwrap()[..], b"a share");
        assert_eq!(open_sealed(&key, b"grant 6", &sealed).unwrap_err(), Error::Closed);
        assert_eq!(open_sealed(&other, b"grant 5", &sealed).unwrap_err(), Error::Closed);
        for length in 0..sealed.len() {
            assert!(open_sealed(&key, b"grant 5", &sealed[..length]).is_err());
        }
    }
}

#[test]
fn derived_keys_are_stable_and_apart() {
    let master = [7; 32];
    let key = |suite, purpose| SecretKey::derive(suite, &master, purpose).unwrap().to_bytes();
    assert_eq!(*key(Suite::P256, b"wards"), *key(Suite::P256, b"wards"));
    assert_ne!(*key(Suite::P256, b"wards"), *key(Suite::P256, b"labs"));
    assert_ne!(*key(Suite::P256, b"wards"), *key(Suite::Sm2, b"wards"));
    let other = SecretKey::derive(Suite::P256, &[8; 32], b"wards").unwrap().to_bytes();
    assert_ne!(*key(Suite::P256, b"wards"), *other);
}

#[test]
fn secrets_do_not_show_up_in_debug_output() {
    let case = Case::new(Suite::P256, 2, 3);
    let shown = format!("{:?} {:?} {:?}", case.owner, case.split, case.fragments);
    assert!(!shown.contains(&hex::encode(case.owner.to_bytes().as_ref())));
    for share in &case.split.shares {
        assert!(!shown.contains(&hex::encode(&share.to_bytes()[2..])));
    }
}

#[test]
fn both_generators_of_a_suite_differ() {
    for suite in SUITES {
        let generator = Element::generator(suite).to_point().unwrap();
        assert_ne!(generator, *Point::second_generator(suite));
    }
}

#[test]
fn enough_proxies_and_the_reader_together_find_the_owners_key() {
    // The limit that the documentation states: it is inherent, and the reason for one key per domain.
    use super::share::weights;
    let case = Case::new(Suite::P256, 2, 3);
    let secret = case.grant_secret();
    let colluding = &case.split.shares[1..];
    let places: Vec<_> = colluding.iter().map(|share| secret.place(share.index())).collect();
    let weights = weights(&places).unwrap();
    let values = colluding.iter().zip(&weights).map(|(share, weight)| share.scalar.times(weight));
    let constant = values.reduce(|sum, value| sum.plus(&value)).unwrap();
    assert_eq!(constant.times(&secret.factor).to_bytes(), *case.owner.to_bytes());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_plaintext_and_aux_survive(plaintext: Vec<u8>, aux: Vec<u8>, sm2: bool) {
        let suite = if sm2 { Suite::Sm2 } else { Suite::P256 };
        let owner = SecretKey::generate(suite).unwrap();
        let sealed = seal(&owner.public_key(), &aux, &plaintext).unwrap();
        let opened = open_own(&owner, &aux, &sealed.capsule, &sealed.ciphertext).unwrap();
        prop_assert_eq!(&opened[..], &plaintext[..]);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..220), sm2: bool) {
        let suite = if sm2 { Suite::Sm2 } else { Suite::P256 };
        let _ = (Capsule::from_bytes(suite, &bytes).is_ok(), Share::from_bytes(suite, &bytes).is_ok());
        let _ = (Fragment::from_bytes(suite, &bytes).is_ok(), Proof::from_bytes(suite, &bytes).is_ok());
        let key = SecretKey::generate(suite).unwrap();
        prop_assert!(open_sealed(&key, b"", &bytes).is_err());
    }
}
