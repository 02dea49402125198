//! Readers of what clients and other nodes send about a channel: proposals, envelopes, blocks, requests for blocks, configurations.

use std::sync::LazyLock;

use bytes::Bytes;
use consort_channel_config::ChannelBundle;
use consort_node::deliver;
use consort_protos::entry::EntryNumber;
use consort_protos::fabric::common::{Block, Config, Envelope};
use consort_protos::fabric::protos::SignedProposal;
use consort_protos::proposal::Proposal;
use consort_protos::rwset::TxReadWriteSet;
use consort_protos::transaction::{Body, Transaction};
use consort_protos::{block, envelope, signers};
use prost::Message;
use time::OffsetDateTime;

/// The first block of a channel of a real Fabric network.
pub const GENESIS: &[u8] = include_bytes!("../../protos/tests/golden/fabric-channel/blocks/0000.pb");

/// Its configuration.
static BUNDLE: LazyLock<ChannelBundle> = LazyLock::new(|| {
    let genesis = Block::decode(GENESIS).expect("invariant: the golden block is a block");
    ChannelBundle::from_block(&genesis).expect("invariant: a real channel's configuration is in order")
});

/// A `protos.SignedProposal`, opened.
pub(crate) fn opened_proposal(bytes: &[u8]) {
    let Ok(signed) = SignedProposal::decode(bytes) else { return };
    let Ok(read) = Proposal::open(&signed) else { return };
    let _ = read.check_headers();
    let _ = read.payload_without_transient();
    let again = Proposal::open(&signed).expect("what was opened is opened again");
    assert_eq!((again.tx_id, again.channel), (read.tx_id, read.channel));
}

/// A `common.Envelope`: a transaction, a configuration, or a configuration update, as orderers get it and blocks hold it.
///
/// # Panics
/// When what was read breaks a rule: a finding.
pub fn transaction(bytes: &[u8]) {
    let raw = Bytes::copy_from_slice(bytes);
    let _ = envelope::OpenEnvelope::open(raw.clone());
    if let Some((payload, signature)) = envelope::canonical_parts(bytes) {
        let whole = Envelope {
            payload: Bytes::copy_from_slice(payload),
            signature: Bytes::copy_from_slice(signature),
            ..Envelope::default()
        };
        assert_eq!(whole.encode_to_vec(), bytes, "what is canonical is its own encoding");
    }
    let Ok(read) = Transaction::open(raw) else { return };
    if let Ok(Body::Endorser(body)) = &read.body {
        let _ = body.arguments();
        if let Ok(invocation) = &body.invocation {
            settled(&invocation.rwset.encode());
        }
    }
}

/// A read-write set.
///
/// # Panics
/// When what was read breaks a rule: a finding.
pub fn read_write_set(bytes: &[u8]) {
    settled(&Bytes::copy_from_slice(bytes));
}

fn settled(bytes: &Bytes) {
    let Ok(read) = TxReadWriteSet::decode(bytes) else { return };
    let again = TxReadWriteSet::decode(&read.encode()).expect("what was written is read");
    assert_eq!(again, read);
}

/// A block.
///
/// # Panics
/// When what was read breaks a rule: a finding.
pub fn channel_block(bytes: &[u8]) {
    let Ok(read) = block::open(Bytes::copy_from_slice(bytes)) else { return };
    let _ = block::check_parts(&read);
    let _ = block::check_canonical(&read);
    let _ = (block::number(&read), block::flags(&read), block::is_config(&read));
    let _ = (block::commit_hash(&read), block::orderer_signatures(&read), block::last_config_index(&read));
    let _ = (block::raft_metadata(&read), block::config_envelope(&read), block::channel_id(&read));
    let _ = ChannelBundle::from_block(&read);
}

/// A request for blocks (`orderer.SeekInfo` in an envelope), before anybody is asked whether it may be answered.
///
/// # Panics
/// When what was read breaks a rule: a finding.
pub fn seek(bytes: &[u8]) {
    let Ok(envelope) = Envelope::decode(bytes) else { return };
    for height in [0, 1, 7, u64::MAX] {
        if let Ok((first, last)) = deliver::asked_blocks(envelope.clone(), OffsetDateTime::UNIX_EPOCH, height)
        {
            assert!(first <= last && first <= height, "{first} to {last} of {height}");
        }
    }
}

/// A configuration, and an update of one, judged by a real channel's configuration.
///
/// # Panics
/// When what was read breaks a rule: a finding.
pub fn configuration(bytes: &[u8]) {
    if let Ok(config) = Config::decode(bytes)
        && let Ok(bundle) = ChannelBundle::new(BUNDLE.channel().clone(), config)
    {
        let _ = (bundle.check_supported_by_peers(), bundle.check_supported_by_orderers());
        let _ = (bundle.check_consenters(), bundle.orderer_endpoints(), bundle.hash_algorithm());
    }
    if let Ok(update) = Envelope::decode(bytes) {
        let _ = BUNDLE.propose(&update);
    }
}

/// An identity (`msp.SerializedIdentity`), by certificate or by number, and a set of numbers.
///
/// # Panics
/// When what was read breaks a rule: a finding.
pub fn identity(bytes: &[u8]) {
    if let Some(number) = EntryNumber::of_serialized(bytes) {
        assert_eq!(number.serialize(), bytes, "an entry has one form");
    }
    if let Some(entries) = signers::decode(bytes) {
        assert_eq!(signers::encode(entries).as_deref(), Some(bytes), "a set of entries has one form");
    }
    if let Ok(read) = BUNDLE.msps().deserialize(bytes) {
        let _ = BUNDLE.msps().validate(&read);
        let _ = read.verify(bytes, bytes);
    }
    let parameters = [BUNDLE.endorsement_policy(bytes), BUNDLE.key_policy(bytes)];
    for policy in parameters.into_iter().flatten() {
        let _ = policy.evaluate_identities(&[]);
    }
}
