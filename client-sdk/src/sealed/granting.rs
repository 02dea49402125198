//! Granting: splitting the right to read, putting the grant on the ledger, handing the shares over.

use bytes::Bytes;
use consort_crypto::hash::sha256;
use consort_crypto::pre::{self, PublicKey, SecretKey};
use consort_protos::consort::sealed::{
    Commitment, DepositRequest, Description, Filter, NewGrant, Party, ProxyOf, Receipt, Terms, Validity,
};
use consort_protos::sealed::{PROXIES_MAX, share_context};
use futures::future::join_all;
use prost::Message;

use super::{Error, Missing, ProxyPeer, SealedData, bytes, suite_number};
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
        }
    }
}

/// A share on its way to its proxy: sealed, so that it may be kept and sent again.
#[derive(Debug, Clone)]
pub struct SealedShare {
    /// The proxy's address.
    pub address: String,
    /// Who the proxy is.
    pub proxy: Party,
    deposit: DepositRequest,
}

/// A grant that is on the ledger.
#[derive(Debug)]
pub struct Granted {
    /// Its transaction.
    pub committed: Committed,
    /// The proxies that have checked and kept their shares.
    pub receipts: Vec<Receipt>,
    /// The others, with their shares: [`SealedData::deliver`] tries again.
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
    /// the ledger, and hands each proxy its share. Peers that do not answer are left out as long as the threshold is met.
    ///
    /// # Errors
    /// [`Error::TooFewProxies`] before anything is granted; [`Error::OtherKey`] for a key that is not the domain's; those of a
    /// transaction. A share that a proxy does not take is no error: see [`Granted::undelivered`].
    pub async fn grant(&self, owner_key: &SecretKey, offer: &Offer) -> Result<Granted, Error> {
        if self.domain_key(&offer.domain).await? != owner_key.public_key() {
            return Err(Error::OtherKey { whose: "domain" });
        }
        let number: i32 = suite_number(owner_key.suite()).into();
        let mut proxies: Vec<(ProxyOf, PublicKey)> = Vec::new();
        let mut absent = Vec::new();
        for (peer, description) in self.describe_proxies().await {
            let offered = description.and_then(|description| {
                let key = description.keys.into_iter().find(|key| key.suite == number);
                let key =
                    key.ok_or_else(|| missing(&peer, "it has no key of the domain's suite".to_owned()))?;
                let parsed = PublicKey::from_bytes(owner_key.suite(), &key.public_key)
                    .map_err(|error| missing(&peer, format!("its key is unusable: {error}")))?;
                Ok((description.peer, key.public_key, parsed))
            });
            match offered {
                Ok((party, encryption_key, parsed)) if proxies.len() < PROXIES_MAX => {
                    let index = u32::try_from(proxies.len() + 1).expect("invariant: PROXIES_MAX is small");
                    let endpoint = peer.address().to_owned();
                    proxies.push((ProxyOf { index, peer: party, encryption_key, endpoint }, parsed));
                }
                Ok(_) => absent.push(missing(&peer, format!("a grant has at most {PROXIES_MAX} proxies"))),
                Err(reason) => absent.push(reason),
            }
        }
        let (threshold, able) = (offer.threshold, proxies.len());
        if usize::from(threshold) > able {
            return Err(Error::TooFewProxies { threshold, able, missing: absent });
        }
        self.grant_through(owner_key, offer, proxies).await
    }

    async fn grant_through(
        &self,
        owner_key: &SecretKey,
        offer: &Offer,
        proxies: Vec<(ProxyOf, PublicKey)>,
    ) -> Result<Granted, Error> {
        let count = u16::try_from(proxies.len()).expect("invariant: PROXIES_MAX is small");
        let (proxies, keys): (Vec<ProxyOf>, Vec<PublicKey>) = proxies.into_iter().unzip();
        let terms = Terms {
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
        };
        let terms_bytes = Bytes::from(terms.encode_to_vec());
        let split = pre::split(owner_key, &offer.reader_key, offer.threshold, count, &terms_bytes)?;
        let mut commitments = Vec::with_capacity(keys.len());
        let mut shares = Vec::with_capacity(keys.len());
        for (((proxy, key), share), point) in
            terms.proxies.into_iter().zip(keys).zip(&split.shares).zip(&split.commitments)
        {
            let context = share_context(self.channel(), &offer.grant, proxy.index);
            let sealed_share = Bytes::from(pre::seal_to(&key, &context, share.to_bytes().as_ref())?);
            let sealed_share_sha256 = bytes(&sha256(&sealed_share));
            commitments.push(Commitment { point: bytes(&point.to_bytes()), sealed_share_sha256 });
            let deposit = DepositRequest {
                channel: self.channel().to_owned(),
                grant: offer.grant.clone(),
                index: proxy.index,
                sealed_share,
            };
            shares.push(SealedShare {
                address: proxy.endpoint,
                proxy: proxy.peer.unwrap_or_default(),
                deposit,
            });
        }
        let ephemeral = bytes(&split.ephemeral.to_bytes());
        let message = NewGrant { terms: terms_bytes, ephemeral, commitments };
        let committed = self.submit("Grant", &message).await?;
        let (receipts, undelivered) = self.deliver(shares).await;
        Ok(Granted { committed, receipts, undelivered })
    }

    /// Hands shares over to their proxies; it may be repeated. Returns the receipts, and what was not taken, with the reasons.
    pub async fn deliver(&self, shares: Vec<SealedShare>) -> (Vec<Receipt>, Vec<(SealedShare, Missing)>) {
        let hand_over = async |share: SealedShare| {
            let Some(peer) = self.proxies.iter().find(|peer| peer.address() == share.address) else {
                let (proxy, msp_id) = (share.address.clone(), share.proxy.msp_id.clone());
                let reason = "no way to reach it is known here".to_owned();
                return Err((share, Missing { proxy, msp_id, reason }));
            };
            let sha256 = sha256(&share.deposit.sealed_share);
            let receipt = peer.deposit(&share.deposit, &share.proxy, &sha256).await;
            receipt.map_err(|reason| (share, missing(peer, reason)))
        };
        let mut receipts = Vec::new();
        let mut undelivered = Vec::new();
        for result in join_all(shares.into_iter().map(hand_over)).await {
            match result {
                Ok(receipt) => receipts.push(receipt),
                Err(share) => undelivered.push(share),
            }
        }
        (receipts, undelivered)
    }
}

pub(super) fn missing(peer: &ProxyPeer, reason: String) -> Missing {
    Missing { proxy: peer.address().to_owned(), msp_id: peer.msp_id().to_owned(), reason }
}
