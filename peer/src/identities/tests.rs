//! What counts under a number, and what does not: each attack gets the code of an unknown identity, on a peer that takes one
//! block after the other as on one that judges them ahead.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use consort_channel_config::REGISTERED_IDENTITIES;
use consort_msp::SigningIdentity;
use consort_protos::block::{commit_hash, flags};
use consort_protos::consort::identities::{
    BlsKey, GetArgs, ListArgs, ListResult, RegisterArgs, RenewArgs, RetireArgs,
};
use consort_protos::entry::EntryNumber;
use consort_protos::fabric::common::Block;
use consort_protos::fabric::msp::SerializedIdentity;
use consort_protos::fabric::protos::TxValidationCode::{
    self, BadCreatorSignature, EndorsementPolicyFailure, IllegalWriteset, InvalidChaincode, MvccReadConflict,
    Valid,
};
use consort_protos::ids::BlockNumber;
use prost::Message;

use super::testing::{change, number_of};
use super::{IDENTITIES, state, with_certificate_within};
use crate::committer::feed;
use crate::testing::configuration::revoke;
use crate::testing::{
    JoinedPeer, Network, TestChannel, TransactionBuilder, channel_policy, collections, write, writes,
};

/// A channel with a table, whose blocks are kept so that another peer can judge them again.
struct Story {
    test: TestChannel,
    admin1: Arc<SigningIdentity>,
    admin2: Arc<SigningIdentity>,
    blocks: Vec<Block>,
}

impl Story {
    async fn new() -> Self {
        let network = Network::with(&[], &[REGISTERED_IDENTITIES]);
        let (admin1, admin2) = (network.org1.identity("admin"), network.org2.identity("admin"));
        let test = TestChannel::of(network).await;
        Self { test, admin1, admin2, blocks: Vec::new() }
    }

    /// A channel on which the peers of both organisations are entries 0 and 1.
    async fn with_peers() -> Self {
        let mut story = Self::new().await;
        let (peer1, peer2) = (story.peer1(), story.peer2());
        assert_eq!(story.commit(vec![story.register(&story.admin1, &peer1)]).await, [Valid]);
        assert_eq!(story.commit(vec![story.register(&story.admin2, &peer2)]).await, [Valid]);
        story
    }

    fn peer1(&self) -> Arc<SigningIdentity> {
        Arc::clone(&self.test.network.org1.peer)
    }

    fn peer2(&self) -> Arc<SigningIdentity> {
        Arc::clone(&self.test.network.org2.peer)
    }

    async fn commit(&mut self, envelopes: Vec<Bytes>) -> Vec<TxValidationCode> {
        self.blocks.push(self.test.next_block(envelopes.clone()));
        self.test.commit(envelopes).await
    }

    /// A call by an administrator, over the present state, endorsed by the peer of its organisation.
    fn call(
        &self,
        admin: &Arc<SigningIdentity>,
        name: &'static str,
        argument: &impl Message,
    ) -> TransactionBuilder {
        let arguments = [Bytes::from(name), argument.encode_to_vec().into()];
        let snapshot = self.test.channel.ledger().snapshot();
        let builder = change(&self.test.channel, snapshot, admin, &arguments).expect("the function takes it");
        let peer = if admin.msp_id() == self.admin1.msp_id() { self.peer1() } else { self.peer2() };
        builder.endorsed_by(&[&peer])
    }

    fn register(&self, admin: &Arc<SigningIdentity>, who: &SigningIdentity) -> Bytes {
        self.call(admin, "Register", &registration(who)).build()
    }

    fn retire(&self, admin: &Arc<SigningIdentity>, number: u64) -> Bytes {
        self.call(admin, "Retire", &RetireArgs { number }).build()
    }

    /// A transaction of `basic` whose endorsers, the peers of both organisations, are named by numbers.
    fn by_numbers(&self, numbers: [u64; 2]) -> Bytes {
        let mut builder = self.test.basic();
        builder.change_endorsements = Some(Box::new(move |endorsements| {
            for (endorsement, number) in endorsements.iter_mut().zip(numbers) {
                endorsement.endorser = entry(number);
            }
        }));
        builder.build()
    }

    /// What every other peer makes of the same blocks, judging them ahead.
    async fn check_replay(&self) {
        let replay = JoinedPeer::new(&self.test.network.genesis);
        let first = self.test.channel.ledger().block(BlockNumber::new(1)).unwrap().unwrap();
        let blocks = std::iter::once(first).chain(self.blocks.iter().cloned());
        feed(&replay.channel, blocks).await;
        let (ours, theirs) = (self.test.channel.ledger(), replay.channel.ledger());
        assert_eq!(ours.height(), theirs.height());
        for number in (1..ours.height()).map(BlockNumber::new) {
            let (ours, theirs) =
                (ours.block(number).unwrap().unwrap(), theirs.block(number).unwrap().unwrap());
            assert_eq!(flags(&ours), flags(&theirs), "codes of block {number}");
            assert_eq!(commit_hash(&ours), commit_hash(&theirs), "hash of block {number}");
        }
    }
}

fn registration(who: &SigningIdentity) -> RegisterArgs {
    RegisterArgs { certificate: who.certificate().pem().into_bytes().into(), bls: None }
}

fn entry(number: u64) -> Bytes {
    EntryNumber::new(number).expect("a number").serialize()
}

fn created_by(mut builder: TransactionBuilder, number: u64) -> TransactionBuilder {
    builder.change_signature_header = Some(Box::new(move |header| header.creator = entry(number)));
    builder
}

#[tokio::test]
async fn a_transaction_names_creator_and_endorsers_by_number() {
    let mut story = Story::with_peers().await;
    let client = Arc::clone(&story.test.network.org1.client);
    assert_eq!(story.commit(vec![story.register(&story.admin1, &client)]).await, [Valid]);
    assert_eq!(number_of(&story.test.channel, &client), Some(2));
    let mut all = story.test.basic();
    all.change_endorsements = Some(Box::new(|endorsements| {
        endorsements[0].endorser = entry(0);
        endorsements[1].endorser = entry(1);
    }));
    let all = created_by(all, 2).build();
    let with_certificates = story.test.basic().build();
    assert!(
        all.len() + 2_000 < with_certificates.len(),
        "{} bytes against {}",
        all.len(),
        with_certificates.len()
    );
    assert_eq!(story.commit(vec![all]).await, [Valid]);
    story.check_replay().await;
}

#[tokio::test]
async fn an_entry_counts_from_the_block_after_its_registration() {
    let mut story = Story::new().await;
    let (peer1, client) = (story.peer1(), Arc::clone(&story.test.network.org1.client));
    assert_eq!(story.commit(vec![story.register(&story.admin2, &story.peer2())]).await, [Valid]);
    let (registration, use_now) = (story.register(&story.admin1, &peer1), story.by_numbers([1, 0]));
    assert_eq!(story.commit(vec![registration, use_now]).await, [Valid, EndorsementPolicyFailure]);
    let registration = story.register(&story.admin1, &client);
    let use_now = created_by(story.test.basic(), 2).build();
    assert_eq!(story.commit(vec![registration, use_now]).await, [Valid, BadCreatorSignature]);
    let later = vec![story.by_numbers([1, 0]), created_by(story.test.basic(), 2).build()];
    assert_eq!(story.commit(later).await, [Valid, Valid]);
    story.check_replay().await;
}

#[tokio::test]
async fn a_number_is_waited_for_until_its_block_is_here() {
    let mut story = Story::with_peers().await;
    let client = Arc::clone(&story.test.network.org1.client);
    let (channel, registration) = (Arc::clone(&story.test.channel), story.register(&story.admin1, &client));
    let number = entry(2);
    let named = with_certificate_within(&channel, &number, Duration::from_secs(60));
    let (named, codes) = tokio::join!(named, story.commit(vec![registration]));
    assert_eq!((&named, codes), (client.serialized(), vec![Valid]));
    let nobody = entry(9);
    assert_eq!(with_certificate_within(&channel, &nobody, Duration::from_millis(1)).await, nobody);
}

#[tokio::test]
async fn a_retired_entry_counts_no_more_from_its_own_block_on() {
    let mut story = Story::with_peers().await;
    let client = Arc::clone(&story.test.network.org1.client);
    assert_eq!(story.commit(vec![story.register(&story.admin1, &client)]).await, [Valid]);
    let before = story.by_numbers([0, 1]);
    let after = [story.by_numbers([0, 1]), created_by(story.test.basic(), 2).build()];
    let retire = story.retire(&story.admin1, 0);
    let codes = story.commit(vec![before, retire, after[0].clone(), after[1].clone()]).await;
    assert_eq!(codes, [Valid, Valid, EndorsementPolicyFailure, Valid]);
    let (retire, use_now) = (story.retire(&story.admin1, 2), created_by(story.test.basic(), 2).build());
    assert_eq!(story.commit(vec![retire, use_now]).await, [Valid, BadCreatorSignature]);
    let later =
        vec![story.by_numbers([0, 1]), created_by(story.test.basic(), 2).build(), story.test.basic().build()];
    assert_eq!(story.commit(later).await, [EndorsementPolicyFailure, BadCreatorSignature, Valid]);
    story.check_replay().await;
}

#[tokio::test]
async fn a_renewed_entry_counts_until_it_is_retired() {
    let mut story = Story::with_peers().await;
    let renewed = story.test.network.org1.identity("peer");
    let certificate = Bytes::from(renewed.certificate().pem().into_bytes());
    let renew = story.call(&story.admin1, "Renew", &RenewArgs { number: 0, certificate, bls: None }).build();
    assert_eq!(story.commit(vec![renew, story.by_numbers([0, 1])]).await, [Valid, Valid]);
    let by_new = |story: &Story, numbers: [u64; 2]| {
        let mut builder =
            story.test.network.transaction("basic").endorsed_by(&[&renewed, &story.test.network.org2.peer]);
        builder.change_endorsements = Some(Box::new(move |endorsements| {
            for (endorsement, number) in endorsements.iter_mut().zip(numbers) {
                endorsement.endorser = entry(number);
            }
        }));
        builder.build()
    };
    assert_eq!(story.commit(vec![story.by_numbers([0, 1]), by_new(&story, [2, 1])]).await, [Valid, Valid]);
    assert_eq!(story.commit(vec![story.retire(&story.admin1, 0)]).await, [Valid]);
    let later = vec![story.by_numbers([0, 1]), by_new(&story, [0, 1]), by_new(&story, [2, 1])];
    assert_eq!(story.commit(later).await, [EndorsementPolicyFailure, EndorsementPolicyFailure, Valid]);
    story.check_replay().await;
}

#[tokio::test]
async fn an_entry_is_worth_what_the_configuration_makes_of_its_certificate() {
    let mut story = Story::with_peers().await;
    let list = story.test.network.org1.revocation(&story.peer1());
    let bundle = story.test.channel.bundle();
    let envelope = story.test.network.configuration(&bundle, |root| revoke(root, "Org1MSP", &list));
    assert_eq!(story.commit(vec![envelope]).await, [Valid]);
    assert_eq!(story.commit(vec![story.by_numbers([0, 1])]).await, [EndorsementPolicyFailure]);
    story.check_replay().await;
}

#[tokio::test]
async fn a_number_that_stands_for_nobody_or_for_somebody_else_does_not_count() {
    let mut story = Story::with_peers().await;
    let cases = [
        // Nobody.
        story.by_numbers([0, 7]),
        // The other's number: the signature is not that certificate's.
        story.by_numbers([1, 0]),
        // One entry twice, and an entry beside its own certificate.
        story.by_numbers([0, 0]),
    ];
    for case in cases {
        assert_eq!(story.commit(vec![case]).await, [EndorsementPolicyFailure]);
    }
    // Entry 0 is the peer's, and the client signed.
    let stolen = created_by(story.test.basic(), 0).build();
    let nobody = created_by(story.test.basic(), u64::MAX - 1).build();
    assert_eq!(story.commit(vec![stolen, nobody]).await, [BadCreatorSignature, BadCreatorSignature]);
    // A number in another encoding, and beside a certificate.
    for strange in [Bytes::from_static(&[0xc0, 0x3e, 0x81, 0x00]), both(&story.peer1())] {
        let mut builder = story.test.basic();
        builder.change_endorsements = Some(Box::new(move |all| all[0].endorser = strange.clone()));
        assert_eq!(story.commit(vec![builder.build()]).await, [EndorsementPolicyFailure]);
    }
    story.check_replay().await;
}

fn both(who: &SigningIdentity) -> Bytes {
    let identity = SerializedIdentity::decode(who.serialized().clone()).unwrap();
    SerializedIdentity { entry: 1, ..identity }.encode_to_vec().into()
}

#[tokio::test]
async fn one_signer_counts_once_by_number_and_by_certificate() {
    let mut story = Story::with_peers().await;
    let mut builder = story.test.network.transaction("basic").endorsed_by(&[&story.peer1(), &story.peer1()]);
    builder.change_endorsements = Some(Box::new(|endorsements| endorsements[1].endorser = entry(0)));
    assert_eq!(story.commit(vec![builder.build()]).await, [EndorsementPolicyFailure]);
    story.check_replay().await;
}

#[tokio::test]
async fn entries_of_another_channel_do_not_count() {
    let mut story = Story::with_peers().await;
    // A channel of the same organisations, on which nobody is registered.
    let fresh = JoinedPeer::new(&story.test.network.genesis);
    let definition = story.test.network.definition(
        "basic",
        &channel_policy("/Channel/Application/Endorsement"),
        &collections(),
    );
    let first = story.test.network.block_after(&story.test.network.genesis, vec![definition.build()]);
    let envelope = story.by_numbers([0, 1]);
    let second = story.test.network.block_after(&first, vec![envelope.clone()]);
    feed(&fresh.channel, [first, second]).await;
    let stored = fresh.channel.ledger().block(BlockNumber::new(2)).unwrap().unwrap();
    assert_eq!(flags(&stored).unwrap()[..], [EndorsementPolicyFailure as u8]);
    assert_eq!(story.commit(vec![envelope]).await, [Valid]);
}

#[tokio::test]
async fn a_channel_without_the_capability_knows_no_table() {
    let network = Network::new(&[]);
    let admin = network.org1.identity("admin");
    let mut test = TestChannel::of(network).await;
    let peer = Arc::clone(&test.network.org1.peer);
    let arguments = [Bytes::from("Register"), registration(&peer).encode_to_vec().into()];
    let snapshot = test.channel.ledger().snapshot();
    let builder = change(&test.channel, snapshot, &admin, &arguments)
        .expect("the function itself asks for no capability");
    let registration = builder.endorsed_by(&[&peer]).build();
    let mut named = test.basic();
    named.change_endorsements = Some(Box::new(|endorsements| endorsements[0].endorser = entry(0)));
    let created = created_by(test.basic(), 0);
    let codes = test.commit(vec![registration, named.build(), created.build()]).await;
    assert_eq!(codes, [InvalidChaincode, EndorsementPolicyFailure, BadCreatorSignature]);
}

#[tokio::test]
async fn nobody_but_an_organisations_administrators_changes_its_entries() {
    let mut story = Story::with_peers().await;
    let (peer1, peer2) = (story.peer1(), story.peer2());
    let everybody: [&Arc<SigningIdentity>; 2] = [&peer1, &peer2];
    // Another organisation's administrator, with the set that the own one would have written.
    let mut foreign = story.call(&story.admin1, "Retire", &RetireArgs { number: 0 }).endorsed_by(&everybody);
    foreign.creator = Arc::clone(&story.admin2);
    // No administrator.
    let mut client = story.call(&story.admin1, "Retire", &RetireArgs { number: 0 });
    client.creator = Arc::clone(&story.test.network.org1.client);
    // The administrator, without the own organisation's endorsement.
    let unendorsed = story.call(&story.admin1, "Retire", &RetireArgs { number: 0 }).endorsed_by(&[&peer2]);
    // Another call than the one that was simulated.
    let mut other_call = story.call(&story.admin1, "Retire", &RetireArgs { number: 0 });
    other_call.arguments = vec![Bytes::from("Get"), GetArgs::default().encode_to_vec().into()];
    // One write more: another organisation's entry under the own hat.
    let mut smuggled = story.call(&story.admin1, "Retire", &RetireArgs { number: 0 }).endorsed_by(&everybody);
    let extra = write(&state::entry_key(1), b"");
    smuggled.set.namespaces[0].writes.push(extra);
    // A write without the read that protects it.
    let mut unread = story.call(&story.admin1, "Retire", &RetireArgs { number: 0 });
    unread.set.namespaces[0].reads.clear();
    for (case, builder) in [foreign, client, unendorsed, other_call, smuggled, unread].into_iter().enumerate()
    {
        assert_eq!(story.commit(vec![builder.build()]).await, [EndorsementPolicyFailure], "case {case}");
    }
    // A chaincode of the channel that writes into the namespace.
    let set = writes(IDENTITIES, vec![write(&state::entry_key(0), b"")]);
    let elsewhere = story.test.basic().set(set).build();
    assert_eq!(story.commit(vec![elsewhere]).await, [IllegalWriteset]);
    assert_eq!(story.commit(vec![story.by_numbers([0, 1])]).await, [Valid]);
    story.check_replay().await;
}

#[tokio::test]
async fn a_stale_change_takes_no_entry_from_anybody() {
    let mut story = Story::with_peers().await;
    let mut stale = story.call(&story.admin1, "Retire", &RetireArgs { number: 0 });
    stale.set.namespaces[0].reads[0].version = None;
    let codes = story.commit(vec![stale.build(), story.by_numbers([0, 1])]).await;
    assert_eq!(codes, [MvccReadConflict, Valid]);
    // Two registrations over one state: the second has to be made again.
    let (client1, client2) =
        (Arc::clone(&story.test.network.org1.client), Arc::clone(&story.test.network.org2.client));
    let both = vec![story.register(&story.admin1, &client1), story.register(&story.admin2, &client2)];
    assert_eq!(story.commit(both).await, [Valid, MvccReadConflict]);
    story.check_replay().await;
}

#[tokio::test]
async fn a_certificate_is_registered_once_and_only_where_it_is_valid() {
    let mut story = Story::with_peers().await;
    let bundle = story.test.channel.bundle();
    let admin = story.admin1.identity(bundle.msps()).unwrap();
    let refusal = |name: &'static str, argument: Vec<u8>| {
        let mut simulator =
            consort_ledger::TxSimulator::new(story.test.channel.ledger().snapshot(), String::new());
        let arguments = [Bytes::from(name), argument.into()];
        let call = super::functions::Call { creator: &admin, arguments: &arguments, bundle: &bundle };
        super::functions::perform(&call, &mut simulator).unwrap_err().to_string()
    };
    let peer1 = registration(&story.peer1());
    let wrapped = RegisterArgs {
        certificate: [b"hello\n", &peer1.certificate[..], b"\n\n"].concat().into(),
        ..peer1.clone()
    };
    for again in [&peer1, &wrapped] {
        let reason = refusal("Register", again.encode_to_vec());
        assert!(reason.contains("registered already, as entry 0"), "{reason}");
    }
    let reason = refusal("Register", registration(&story.test.network.org2.client).encode_to_vec());
    assert!(reason.contains("the certificate is none of Org1MSP"), "{reason}");
    let reason = refusal("Retire", RetireArgs { number: 1 }.encode_to_vec());
    assert!(reason.contains("entry 1 is Org2MSP's"), "{reason}");
    let reason = refusal("Retire", RetireArgs { number: 9 }.encode_to_vec());
    assert!(reason.contains("there is no entry 9"), "{reason}");
    let long = RegisterArgs { certificate: vec![b'x'; 20_000].into(), bls: None };
    assert!(refusal("Register", long.encode_to_vec()).contains("20000 bytes"));
    let garbage = BlsKey { public_key: vec![1; 96].into(), proof: vec![1; 48].into() };
    let with_key = RegisterArgs { bls: Some(garbage), ..registration(&story.test.network.org1.client) };
    assert!(refusal("Register", with_key.encode_to_vec()).contains("BLS"));
    assert!(refusal("Register", vec![0xff]).contains("does not parse"));
    assert!(refusal("Delete", Vec::new()).contains("no function"));
    // A retired certificate never comes back, so that a number stays what it was.
    assert_eq!(story.commit(vec![story.retire(&story.admin1, 0)]).await, [Valid]);
    let arguments = [Bytes::from("Register"), peer1.encode_to_vec().into()];
    let snapshot = story.test.channel.ledger().snapshot();
    assert!(change(&story.test.channel, snapshot, &story.admin1, &arguments).is_none());
}

#[tokio::test]
async fn entries_are_listed_in_the_order_of_their_numbers() {
    let story = Story::with_peers().await;
    let bundle = story.test.channel.bundle();
    let admin = story.admin1.identity(bundle.msps()).unwrap();
    let list = |first: u64, count: u32| {
        let mut simulator =
            consort_ledger::TxSimulator::new(story.test.channel.ledger().snapshot(), String::new());
        let arguments = [Bytes::from("List"), ListArgs { first, count }.encode_to_vec().into()];
        let call = super::functions::Call { creator: &admin, arguments: &arguments, bundle: &bundle };
        let answer = super::functions::perform(&call, &mut simulator).unwrap();
        let result = ListResult::decode(answer.payload).unwrap();
        (
            result.entries.iter().map(|entry| (entry.number, entry.msp_id.clone())).collect::<Vec<_>>(),
            result.total,
        )
    };
    let both = vec![(0, "Org1MSP".to_owned()), (1, "Org2MSP".to_owned())];
    assert_eq!(list(0, 0), (both.clone(), 2));
    assert_eq!(list(1, 1), (both[1..].to_vec(), 2));
    assert_eq!(list(u64::MAX, u32::MAX), (Vec::new(), 2));
}
