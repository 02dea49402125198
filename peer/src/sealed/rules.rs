//! What messages about sealed data must look like, whatever is in the books.

use std::collections::BTreeSet;

use consort_channel_config::ChannelBundle;
use consort_crypto::pre;
use consort_protos::consort::sealed::{
    Commitment, Elsewhere, Filter, Party, ProxyOf, RecordName, Suite, Terms, Validity,
};
use consort_protos::sealed::PROXIES_MAX;
use prost_types::Timestamp;

use super::books::Refusal;

/// Longest id of a domain or a grant, in bytes.
const ID_BYTES_MAX: usize = 64;
/// Longest key of a record, in bytes.
const RECORD_KEY_BYTES_MAX: usize = 256;
/// Longest description, reason, location or endpoint, in bytes.
const TEXT_BYTES_MAX: usize = 512;
/// Longest id of a party, in bytes: names in certificates are far shorter.
const PARTY_BYTES_MAX: usize = 2_048;
/// Most keys and prefixes of a filter. An owner with more of them makes another grant, or another domain.
const FILTER_ENTRIES_MAX: usize = 256;
/// Bytes of a SHA-256 hash.
const HASH_BYTES: usize = 32;

/// The suite that a message names.
///
/// # Errors
/// It names none, or one that is not known here.
pub fn suite(value: i32) -> Result<pre::Suite, Refusal> {
    match Suite::try_from(value) {
        Ok(Suite::P256) => Ok(pre::Suite::P256),
        Ok(Suite::Sm2) => Ok(pre::Suite::Sm2),
        Ok(Suite::Unspecified) | Err(_) => {
            Err(Refusal::malformed(format!("suite {value} is none of P256 (1) and SM2 (2)")))
        }
    }
}

/// A public key of a suite.
pub(super) fn public_key(what: &str, suite: pre::Suite, bytes: &[u8]) -> Result<pre::PublicKey, Refusal> {
    pre::PublicKey::from_bytes(suite, bytes)
        .map_err(|error| Refusal::malformed(format!("{what} is no key of suite {}: {error}", suite.name())))
}

/// A point of a suite.
pub(super) fn point(what: &str, suite: pre::Suite, bytes: &[u8]) -> Result<pre::Point, Refusal> {
    pre::Point::from_bytes(suite, bytes)
        .map_err(|error| Refusal::malformed(format!("{what} is no point of suite {}: {error}", suite.name())))
}

/// An id that an owner chose.
pub(super) fn id(what: &str, id: &str) -> Result<(), Refusal> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if !id.is_empty() && id.len() <= ID_BYTES_MAX && id.bytes().all(allowed) {
        return Ok(());
    }
    Err(Refusal::malformed(format!(
        "{what} must have 1 to {ID_BYTES_MAX} of the characters A-Z a-z 0-9 . _ -, not {:?}",
        id.chars().take(ID_BYTES_MAX).collect::<String>()
    )))
}

/// The id of a transaction.
pub(super) fn tx_id(tx_id: &str) -> Result<(), Refusal> {
    let hexadecimal = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if tx_id.len() == 2 * HASH_BYTES && tx_id.bytes().all(hexadecimal) {
        return Ok(());
    }
    Err(Refusal::malformed("the id of a transaction has 64 hexadecimal digits".to_owned()))
}

/// A free text.
pub(super) fn text(what: &str, text: &str) -> Result<(), Refusal> {
    if text.len() <= TEXT_BYTES_MAX {
        return Ok(());
    }
    Err(Refusal::malformed(format!(
        "{what} has {} bytes, and at most {TEXT_BYTES_MAX} are allowed",
        text.len()
    )))
}

/// The name of a record, with or without its version.
pub(super) fn record_name(record: &RecordName) -> Result<(), Refusal> {
    id("the id of a domain", &record.domain)?;
    record_key("the key of a record", &record.key)
}

fn record_key(what: &str, key: &str) -> Result<(), Refusal> {
    let allowed = |character: char| character != '/' && !character.is_control();
    if !key.is_empty() && key.len() <= RECORD_KEY_BYTES_MAX && key.chars().all(allowed) {
        return Ok(());
    }
    Err(Refusal::malformed(format!(
        "{what} must have 1 to {RECORD_KEY_BYTES_MAX} bytes of UTF-8 without '/' and control characters"
    )))
}

/// A ciphertext that is kept elsewhere.
pub(super) fn elsewhere(elsewhere: &Elsewhere) -> Result<(), Refusal> {
    if elsewhere.sha256.len() != HASH_BYTES {
        return Err(Refusal::malformed("the hash of a ciphertext has 32 bytes"));
    }
    text("the location of a ciphertext", &elsewhere.location)
}

/// A time, as protobuf wants it.
pub(super) fn time(what: &str, time: &Timestamp) -> Result<(), Refusal> {
    if (0..1_000_000_000).contains(&time.nanos) {
        return Ok(());
    }
    Err(Refusal::malformed(format!("{what} has {} nanoseconds", time.nanos)))
}

/// A member of one of the channel's organisations.
fn member(what: &str, party: &Party, bundle: &ChannelBundle) -> Result<(), Refusal> {
    if party.id.is_empty() || party.id.len() > PARTY_BYTES_MAX {
        return Err(Refusal::malformed(format!(
            "{what} has no id, or one of more than {PARTY_BYTES_MAX} bytes"
        )));
    }
    let known = &bundle.application().organisations;
    if known.iter().any(|organisation| organisation.msp_id.as_str() == party.msp_id) {
        return Ok(());
    }
    Err(Refusal::malformed(format!(
        "{what} is of {:?}, which is no organisation of channel {}",
        party.msp_id,
        bundle.channel()
    )))
}

/// Everything about terms that can be said without the books: owner and domain are checked by the caller.
pub(super) fn terms(terms: &Terms, suite: pre::Suite, bundle: &ChannelBundle) -> Result<(), Refusal> {
    id("the id of a grant", &terms.grant)?;
    id("the id of a domain", &terms.domain)?;
    if terms.channel != bundle.channel().as_str() {
        return Err(Refusal::malformed(format!("the grant is for channel {:?}", terms.channel)));
    }
    let reader = terms.reader.as_ref().ok_or_else(|| Refusal::malformed("the grant names no reader"))?;
    member("the reader", reader, bundle)?;
    public_key("the reader's key", suite, &terms.reader_key)?;
    if let Some(filter) = &terms.filter {
        self::filter(filter)?;
    }
    proxies(terms, suite, bundle)?;
    terms.validity.as_ref().map_or(Ok(()), validity)
}

fn filter(filter: &Filter) -> Result<(), Refusal> {
    let entries = filter.keys.len() + filter.prefixes.len();
    if entries > FILTER_ENTRIES_MAX {
        return Err(Refusal::malformed(format!(
            "a filter has at most {FILTER_ENTRIES_MAX} keys and prefixes, not {entries}"
        )));
    }
    filter.keys.iter().try_for_each(|key| record_key("a key of the filter", key))?;
    filter.prefixes.iter().try_for_each(|prefix| record_key("a prefix of the filter", prefix))
}

fn proxies(terms: &Terms, suite: pre::Suite, bundle: &ChannelBundle) -> Result<(), Refusal> {
    let count = terms.proxies.len();
    if count == 0 || count > PROXIES_MAX {
        return Err(Refusal::malformed(format!("a grant has 1 to {PROXIES_MAX} proxies, not {count}")));
    }
    let reachable = usize::try_from(terms.threshold).is_ok_and(|threshold| (1..=count).contains(&threshold));
    if !reachable {
        return Err(Refusal::malformed(format!(
            "the threshold of {count} proxies must be 1 to {count}, not {}",
            terms.threshold
        )));
    }
    let (mut peers, mut keys) = (BTreeSet::new(), BTreeSet::new());
    for (expected, proxy) in (1..).zip(&terms.proxies) {
        let ProxyOf { index, peer, encryption_key, endpoint } = proxy;
        if *index != expected {
            return Err(Refusal::malformed(format!(
                "the indices of the proxies must be 1 to {count} in this order; place {expected} has {index}"
            )));
        }
        let peer = peer.as_ref().ok_or_else(|| Refusal::malformed(format!("proxy {index} names no peer")))?;
        member(&format!("proxy {index}"), peer, bundle)?;
        public_key(&format!("the encryption key of proxy {index}"), suite, encryption_key)?;
        text("an endpoint", endpoint)?;
        if !peers.insert((&peer.msp_id, &peer.id)) || !keys.insert(encryption_key) {
            return Err(Refusal::malformed(format!("proxy {index} is named twice")));
        }
    }
    Ok(())
}

fn validity(validity: &Validity) -> Result<(), Refusal> {
    let (first, last) = (validity.not_before_block, validity.not_after_block);
    if last != 0 && first > last {
        return Err(Refusal::malformed(format!(
            "the grant would begin in block {first} and end in block {last}"
        )));
    }
    for (what, bound) in [("not_before", &validity.not_before), ("not_after", &validity.not_after)] {
        bound.as_ref().map_or(Ok(()), |bound| time(what, bound))?;
    }
    match (&validity.not_before, &validity.not_after) {
        (Some(first), Some(last)) if at(first) > at(last) => {
            Err(Refusal::malformed("the grant would end before it begins"))
        }
        _ => Ok(()),
    }
}

/// A time that can be compared.
pub(super) fn at(time: &Timestamp) -> (i64, i32) {
    (time.seconds, time.nanos)
}

/// The commitments and the ephemeral point of a grant.
pub(super) fn commitments(
    commitments: &[Commitment],
    ephemeral: &[u8],
    proxies: usize,
    suite: pre::Suite,
) -> Result<(), Refusal> {
    point("the ephemeral point", suite, ephemeral)?;
    if commitments.len() != proxies {
        return Err(Refusal::malformed(format!(
            "{proxies} proxies need {proxies} commitments, not {}",
            commitments.len()
        )));
    }
    for (index, commitment) in (1..).zip(commitments) {
        let _: u32 = index;
        point(&format!("commitment {index}"), suite, &commitment.point)?;
        if commitment.sealed_share_sha256.len() != HASH_BYTES {
            return Err(Refusal::malformed(format!(
                "the hash of sealed share {index} does not have 32 bytes"
            )));
        }
    }
    Ok(())
}

/// Whether a grant covers a record of its domain.
pub(super) fn covers(terms: &Terms, record: &RecordName) -> bool {
    let wanted = |filter: &Filter| {
        (filter.keys.is_empty() && filter.prefixes.is_empty())
            || filter.keys.contains(&record.key)
            || filter.prefixes.iter().any(|prefix| record.key.starts_with(prefix.as_str()))
    };
    terms.domain == record.domain && terms.filter.as_ref().is_none_or(wanted)
}

/// Whether a request counts in a block, with the time that its transaction carries.
///
/// # Errors
/// Which bound it misses.
pub(super) fn in_time(terms: &Terms, block: u64, time: &Timestamp) -> Result<(), Refusal> {
    let Some(validity) = &terms.validity else { return Ok(()) };
    let grant = &terms.grant;
    let refused = |text: String| Err(Refusal::forbidden(text));
    if block < validity.not_before_block {
        return refused(format!(
            "grant {grant:?} begins in block {}, and this would be block {block}",
            validity.not_before_block
        ));
    }
    if validity.not_after_block != 0 && block > validity.not_after_block {
        return refused(format!(
            "grant {grant:?} ended with block {}, and this would be block {block}",
            validity.not_after_block
        ));
    }
    if validity.not_before.as_ref().is_some_and(|first| at(time) < at(first)) {
        return refused(format!("grant {grant:?} has not begun at the time of this transaction"));
    }
    if validity.not_after.as_ref().is_some_and(|last| at(time) > at(last)) {
        return refused(format!("grant {grant:?} had ended at the time of this transaction"));
    }
    Ok(())
}
