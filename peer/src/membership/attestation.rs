//! Attestations: at every so many blocks this peer signs where its books stand, and adds up what enough others sign too
//! ([`consort_channel_config::attestation`]). Shares travel with what peers tell each other about themselves.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use consort_channel_config::{ChannelBundle, attestation};
use consort_crypto::bls::SecretKey;
use consort_msp::{IdentityId, SigningIdentity};
use consort_node::renewal::Current;
use consort_protos::consort::attestations::{Attestation, Attester, Share};
use consort_protos::ids::ChannelId;

use super::statement::Statement;
use crate::attested::books_at;
use crate::channel::{BooksOf, ChannelHandle};
use crate::identities::table::entry_of;

/// Attested heights that a peer tells about: the last two, so that peers that are not quite equally far have one in common.
pub(super) const TOLD: usize = 2;
/// Attested heights at which shares are kept: those told, and some for peers that lag.
const HEIGHTS_MAX: usize = 8;
/// Heights at which shares are taken before the next look at them.
const HEARD_HEIGHTS_MAX: usize = 64;
/// Shares that are kept for one height; a channel has fewer peers.
const SHARES_MAX: usize = attestation::ATTESTERS_MAX;

/// The shares of all channels. One owner: the membership.
pub(super) struct Attestations {
    /// Blocks between two attested heights; 0 attests nothing.
    every_blocks: u64,
    channels: Mutex<BTreeMap<ChannelId, Book>>,
}

/// The shares of one channel, by height and author.
#[derive(Default)]
struct Book {
    own: BTreeMap<u64, Share>,
    heard: BTreeMap<u64, BTreeMap<IdentityId, Heard>>,
    /// Shares since the last attempt to add up: without new ones nothing changes.
    news: bool,
}

struct Heard {
    share: Share,
    endpoint: String,
}

impl Attestations {
    pub(super) fn new(every_blocks: u64) -> Self {
        Self { every_blocks, channels: Mutex::default() }
    }

    /// What this peer signs about its books now: its shares at the last attested heights. None without a BLS key.
    pub(super) fn own(&self, channel: &ChannelHandle, signer: &Current<SigningIdentity>) -> Vec<Share> {
        let signer = signer.get();
        if signer.bls_keys().is_empty() {
            return Vec::new();
        }
        let height = channel.ledger().height();
        let Some(last) = height.checked_div(self.every_blocks).map(|count| count * self.every_blocks) else {
            return Vec::new();
        };
        let heights = (0..TOLD as u64).filter_map(|back| last.checked_sub(back * self.every_blocks));
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let book = channels.entry(channel.id().clone()).or_default();
        let mut shares = Vec::new();
        for height in heights.filter(|height| *height > 1) {
            let known = book.own.get(&height).filter(|share| {
                share.attester.as_ref().is_some_and(|attester| attester.identity == *signer.serialized())
            });
            let share = match known {
                Some(share) => share.clone(),
                None => match sign(channel, &signer, height) {
                    Some(share) => share,
                    None => return shares,
                },
            };
            if book.own.insert(height, share.clone()).is_none() {
                book.news = true;
            }
            shares.push(share);
        }
        keep_last(&mut book.own);
        shares
    }

    /// Takes the shares that come with another peer's statement. They are verified when they are added up.
    pub(super) fn hear(&self, channel: &ChannelId, statement: &Statement) {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let book = channels.entry(channel.clone()).or_default();
        for share in &statement.state.attestations {
            let (Some(state), Some(attester)) = (&share.state, &share.attester) else { continue };
            if attester.identity != statement.signed.identity || state.channel != channel.as_str() {
                continue;
            }
            if !book.heard.contains_key(&state.height) && book.heard.len() >= HEARD_HEIGHTS_MAX {
                continue;
            }
            let at_height = book.heard.entry(state.height).or_default();
            let is_new = at_height.get(&statement.author).is_none_or(|heard| heard.share != *share);
            if is_new && (at_height.len() < SHARES_MAX || at_height.contains_key(&statement.author)) {
                let endpoint = statement.state.endpoint.clone();
                at_height.insert(statement.author.clone(), Heard { share: share.clone(), endpoint });
                book.news = true;
            }
        }
    }

    /// Adds up the shares at the highest height at which enough peers agree with this one. A peer that signed other books is
    /// named by an alarm.
    pub(super) fn assemble(&self, channel: &ChannelHandle, signer: &Current<SigningIdentity>) {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(book) = channels.get_mut(channel.id()).filter(|book| book.news) else { return };
        book.news = false;
        let bundle = channel.bundle();
        let own_organisation = signer.get().msp_id().clone();
        // What nobody here can have signed yet, and what is long past, makes room.
        let reached = channel.ledger().height();
        book.heard.retain(|height, _| *height <= reached.saturating_add(self.every_blocks));
        keep_last(&mut book.heard);
        let done = channel.attestation().and_then(|done| done.state.as_ref().map(|state| state.height));
        let heights: Vec<u64> = book.own.keys().rev().copied().collect();
        for height in heights {
            let Some(own) = book.own.get(&height).cloned() else { continue };
            let empty = BTreeMap::new();
            let heard = book.heard.get(&height).unwrap_or(&empty);
            let mut shares = vec![own.clone()];
            for (author, heard) in heard {
                if heard.share.state == own.state {
                    shares.push(heard.share.clone());
                    continue;
                }
                channel.note_books_of(BooksOf {
                    endpoint: heard.endpoint.clone(),
                    own_organisation: *author.msp_id() == own_organisation,
                    msp_id: author.msp_id().clone(),
                    block: height - 1,
                    equal: false,
                });
            }
            if done.is_some_and(|done| height <= done) {
                continue;
            }
            if let Some(attestation) = add_up(&bundle, shares) {
                tracing::info!(
                    channel = %channel.id(), height, attesters = attestation.attesters.len(), "books attested"
                );
                channel.set_attestation(attestation);
                return;
            }
        }
    }
}

/// The attestation that these shares are, if those that hold are enough.
fn add_up(bundle: &ChannelBundle, shares: Vec<Share>) -> Option<Attestation> {
    let checked = |attestation: &Attestation| attestation::verify(bundle, attestation);
    let sum = attestation::aggregate(&shares).ok()?;
    match checked(&sum) {
        Ok(_) => return Some(sum),
        Err(attestation::AttestationError::TooFew(_)) => return None,
        Err(_) => {}
    }
    // One of them is wrong: those that hold by themselves are added up.
    let holds = |share: &Share| match attestation::verify_share(bundle, share) {
        Ok(_) => true,
        Err(error) => {
            tracing::warn!(channel = %bundle.channel(), %error, "a share of an attestation does not count");
            false
        }
    };
    let shares: Vec<Share> = shares.into_iter().filter(holds).collect();
    let sum = attestation::aggregate(&shares).ok()?;
    checked(&sum).ok().map(|_| sum)
}

fn keep_last<T>(by_height: &mut BTreeMap<u64, T>) {
    while by_height.len() > HEIGHTS_MAX {
        by_height.pop_first();
    }
}

fn sign(channel: &ChannelHandle, signer: &SigningIdentity, height: u64) -> Option<Share> {
    let (attester, secret) = attester(channel, signer)?;
    let state = match books_at(channel.ledger(), &channel.bundle(), height) {
        Ok(state) => state?,
        Err(error) => {
            tracing::error!(channel = %channel.id(), height, %error, "the books cannot be attested");
            return None;
        }
    };
    Some(attestation::share(state, attester, secret))
}

/// This peer as an attester: by the BLS key in its certificate, or by the one that it is registered with.
fn attester<'s>(channel: &ChannelHandle, signer: &'s SigningIdentity) -> Option<(Attester, &'s SecretKey)> {
    let secret_of =
        |public: &[u8]| signer.bls_keys().iter().find(|secret| secret.public_key().as_bytes()[..] == *public);
    let identity = signer.serialized().clone();
    if let Ok(Some(certified)) = signer.certificate().bls_key()
        && let Some(secret) = secret_of(certified.public_key.as_bytes())
    {
        return Some((Attester { identity, bls: None }, secret));
    }
    let known = signer.identity(channel.bundle().msps()).ok()?;
    let registered = entry_of(&channel.ledger().snapshot(), &known).ok()??.bls?;
    let secret = secret_of(&registered.public_key)?;
    Some((Attester { identity, bls: Some(registered) }, secret))
}
