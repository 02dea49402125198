//! Granting: splitting the right to read, putting the grant on the ledger, handing the shares over.

use bytes::Bytes;
use consort_crypto::hash::sha256;
use consort_crypto::pre::{self, PublicKey, SecretKey, Suite};
use consort_protos::consort::sealed::{
    Commitment, Description, Filter, NewGrant, Party, ProxyOf, Receipt, Terms, Validity,
};
use consort_protos::sealed::{PROXIES_MAX, share_context};
use futures::future::join_all;
use prost::Message;

use super::{Error, Missing, ProxyPeer, SealedData, SealedShare, bytes, suite_number};
use crate::transaction::Committed;

/// What an owner grants.
#[derive(Debug, Clone)]
pub struct Offer {
    /// Id of the grant, new on the channel: 1 to 64 of A-Z a-z 0-9 . _ -.
    pub grant: String,
    /// The owner's domain.
    pub domain: String,
    /// Who may read.
    pub reader: Party,
    /// The reader's key, which the reader has made known.
    pub reader_key: PublicKey,
    /// How many proxies must answer.
    pub threshold: u16,
    /// Which records: all of the domain when empty.
    pub filter: Filter,
    /// When requests count.
    pub validity: Validity,
    /// How many requests may be made; 0 for any number.
    pub uses_max: u64,
    /// Addresses of the proxies that get shares, all of which must be able to serve. When empty, all that can serve do.
    pub proxies: Vec<String>,
}

impl Offer {
    /// All records of a domain for one reader, without bounds; `threshold` proxies must answer.
    #[must_use]
    pub fn new(
        grant: impl Into<String>,
        domain: impl Into<String>,
        reader: Party,
        reader_key: PublicKey,
        threshold: u16,
    ) -> Self {
        Self {
            grant: grant.into(),
            domain: domain.into(),
            reader,
            reader_key,
            threshold,
            filter: Filter::default(),
            validity: Validity::default(),
            uses_max: 0,
            proxies: Vec::new(),
        }
    }
}

/// A grant that is split, and not on the ledger yet. Whoever keeps its shares until their proxies have signed for them loses none when
/// this process or a proxy ends in between.
#[derive(Debug)]
pub struct PreparedGrant {
    message: NewGrant,
    /// The shares, each sealed to its proxy.
    pub shares: Vec<SealedShare>,
    /// Peers that get no share, and why.
    pub left_out: Vec<Missing>,
}

/// A grant that is on the ledger.
#[derive(Debug)]
pub struct Granted {
    /// Its transaction.
    pub committed: Committed,
    /// What became of the shares.
    pub delivery: Delivery,
    /// Peers that were no proxies of the grant because they could not serve, and never will be, and why.
    pub left_out: Vec<Missing>,
}

/// What became of shares.
#[derive(Debug, Default)]
pub struct Delivery {
    /// Those that their proxies have checked, kept and signed for.
    pub delivered: Vec<(SealedShare, Receipt)>,
    /// The others: [`SealedData::deliver`] tries again.
    pub undelivered: Vec<(SealedShare, Missing)>,
}

impl SealedData {
    /// Who of the peers can serve as a proxy now.
    pub async fn describe_proxies(&self) -> Vec<(ProxyPeer, Result<Description, Missing>)> {
        let describe = async |peer: &ProxyPeer| {
            let description = peer.describe(self.channel()).await;
            (peer.clone(), description.map_err(|reason| missing(peer, reason)))
        };
        join_all(self.proxies.iter().map(describe)).await
    }

    /// Grants records to a reader: asks all peers for their keys, splits the right to read among those that answer, puts the grant on
    /// the ledger, and hands each proxy its share. Peers that do not answer are left out as long as the threshold is met and the offer
    /// does not name them.
    ///
    /// # Errors
    /// As [`prepare_grant`](Self::prepare_grant) and [`put_grant`](Self::put_grant). A share that a proxy does not take is no error: see
    /// [`Delivery::undelivered`].
    pub async fn grant(&self, owner_key: &SecretKey, offer: &Offer) -> Result<Granted, Error> {
        self.put_grant(self.prepare_grant(owner_key, offer).await?).await
    }

    /// Asks the peers for their keys and splits the right to read; the ledger and the proxies learn nothing yet.
    ///
    /// # Errors
    /// [`Error::TooFewProxies`]; [`Error::AbsentProxies`] when one that the offer names cannot serve; [`Error::OtherKey`] for a key that is
    /// not the domain's; those of an evaluation.
    pub async fn prepare_grant(&self, owner_key: &SecretKey, offer: &Offer) -> Result<PreparedGrant, Error> {
        if self.domain_key(&offer.domain).await? != owner_key.public_key() {
            return Err(Error::OtherKey { whose: "domain" });
        }
        let (proxies, left_out) = self.able_proxies(owner_key.suite(), offer).await?;
        let (threshold, able) = (offer.threshold, proxies.len());
        if usize::from(threshold) > able {
            return Err(Error::TooFewProxies { threshold, able, missing: left_out });
        }
        let (message, shares) = self.split(owner_key, offer, proxies)?;
        Ok(PreparedGrant { message, shares, left_out })
    }

    /// Puts a prepared grant on the ledger, and hands each proxy its share.
    ///
    /// # Errors
    /// Those of a transaction.
    pub async fn put_grant(&self, grant: PreparedGrant) -> Result<Granted, Error> {
        let PreparedGrant { message, shares, left_out } = grant;
        let committed = self.submit("Grant", &message).await?;
        Ok(Granted { committed, delivery: self.deliver(shares).await, left_out })
    }

    /// The proxies that an offer means, and the peers that cannot be among them.
    async fn able_proxies(
        &self,
        suite: Suite,
        offer: &Offer,
    ) -> Result<(Vec<(ProxyOf, PublicKey)>, Vec<Missing>), Error> {
        let mut proxies: Vec<(ProxyOf, PublicKey)> = Vec::new();
        let mut absent = Vec::new();
        let named = |address: &str| offer.proxies.iter().any(|named| named == address);
        let known: Vec<_> = self.describe_proxies().await;
        for unknown in
            offer.proxies.iter().filter(|named| !known.iter().any(|(peer, _)| peer.address() == *named))
        {
            let reason = "no way to reach it is known here".to_owned();
            absent.push(Missing { proxy: unknown.clone(), msp_id: "unknown".to_owned(), reason });
        }
        for (peer, description) in known {
            if !offer.proxies.is_empty() && !named(peer.address()) {
                continue;
            }
            match description.and_then(|description| usable(&peer, suite, description)) {
                Ok((party, encryption_key, parsed)) if proxies.len() < PROXIES_MAX => {
                    let index = u32::try_from(proxies.len() + 1).expect("invariant: PROXIES_MAX is small");
                    let endpoint = peer.address().to_owned();
                    proxies.push((ProxyOf { index, peer: party, encryption_key, endpoint }, parsed));
                }
                Ok(_) => absent.push(missing(&peer, format!("a grant has at most {PROXIES_MAX} proxies"))),
                Err(reason) => absent.push(reason),
            }
        }
        if !offer.proxies.is_empty() && !absent.is_empty() {
            return Err(Error::AbsentProxies { missing: absent });
        }
        Ok((proxies, absent))
    }

    fn split(
        &self,
        owner_key: &SecretKey,
        offer: &Offer,
        proxies: Vec<(ProxyOf, PublicKey)>,
    ) -> Result<(NewGrant, Vec<SealedShare>), Error> {
        let count = u16::try_from(proxies.len()).expect("invariant: PROXIES_MAX is small");
        let (proxies, keys): (Vec<ProxyOf>, Vec<PublicKey>) = proxies.into_iter().unzip();
        let terms = self.terms(offer, proxies);
        let terms_bytes = Bytes::from(terms.encode_to_vec());
        let split = pre::split(owner_key, &offer.reader_key, offer.threshold, count, &terms_bytes)?;
        let mut commitments = Vec::with_capacity(keys.len());
        let mut shares = Vec::with_capacity(keys.len());
        for (((proxy, key), share), point) in
            terms.proxies.into_iter().zip(keys).zip(&split.shares).zip(&split.commitments)
        {
            let context = share_context(self.channel(), &offer.grant, proxy.index);
            let sealed = Bytes::from(pre::seal_to(&key, &context, share.to_bytes().as_ref())?);
            let sealed_share_sha256 = bytes(&sha256(&sealed));
            commitments.push(Commitment { point: bytes(&point.to_bytes()), sealed_share_sha256 });
            shares.push(SealedShare {
                address: proxy.endpoint,
                proxy: proxy.peer.unwrap_or_default(),
                channel: self.channel().to_owned(),
                grant: offer.grant.clone(),
                index: proxy.index,
                sealed,
            });
        }
        let ephemeral = bytes(&split.ephemeral.to_bytes());
        Ok((NewGrant { terms: terms_bytes, ephemeral, commitments }, shares))
    }

    fn terms(&self, offer: &Offer, proxies: Vec<ProxyOf>) -> Terms {
        Terms {
            channel: self.channel().to_owned(),
            grant: offer.grant.clone(),
            domain: offer.domain.clone(),
            owner: Some(self.party.clone()),
            reader: Some(offer.reader.clone()),
            reader_key: bytes(&offer.reader_key.to_bytes()),
            filter: Some(offer.filter.clone()).filter(|filter| *filter != Filter::default()),
            threshold: offer.threshold.into(),
            proxies,
            validity: Some(offer.validity).filter(|validity| *validity != Validity::default()),
            uses_max: offer.uses_max,
        }
    }

    /// Hands shares over to their proxies; it may be repeated.
    pub async fn deliver(&self, shares: Vec<SealedShare>) -> Delivery {
        let hand_over = async |share: SealedShare| {
            let Some(peer) = self.proxies.iter().find(|peer| peer.address() == share.address) else {
                let (proxy, msp_id) = (share.address.clone(), share.proxy.msp_id.clone());
                let reason = "no way to reach it is known here".to_owned();
                return Err((share, Missing { proxy, msp_id, reason }));
            };
            match peer.deposit(&share.deposit(), &share.proxy, &share.sha256()).await {
                Ok(receipt) => Ok((share, receipt)),
                Err(reason) => Err((share, missing(peer, reason))),
            }
        };
        let mut delivery = Delivery::default();
        for result in join_all(shares.into_iter().map(hand_over)).await {
            match result {
                Ok(delivered) => delivery.delivered.push(delivered),
                Err(undelivered) => delivery.undelivered.push(undelivered),
            }
        }
        delivery
    }
}

/// Who a peer is and its key of a suite, if it has one.
fn usable(
    peer: &ProxyPeer,
    suite: Suite,
    description: Description,
) -> Result<(Option<Party>, Bytes, PublicKey), Missing> {
    let number: i32 = suite_number(suite).into();
    let key = description.keys.into_iter().find(|key| key.suite == number);
    let key = key.ok_or_else(|| missing(peer, "it has no key of the domain's suite".to_owned()))?;
    let parsed = PublicKey::from_bytes(suite, &key.public_key)
        .map_err(|error| missing(peer, format!("its key is unusable: {error}")))?;
    Ok((description.peer, key.public_key, parsed))
}

pub(super) fn missing(peer: &ProxyPeer, reason: String) -> Missing {
    Missing { proxy: peer.address().to_owned(), msp_id: peer.msp_id().to_owned(), reason }
}
