//! All MSPs of a channel (or the one of a node), and the door through which identities enter.

use std::{
    collections::BTreeMap,
    fmt,
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use bytes::Bytes;
use consort_crypto::certificate::Certificate;
use consort_protos::{
    fabric::{common::MspPrincipal, msp::SerializedIdentity},
    ids::MspId,
};
use prost::Message;
use time::OffsetDateTime;

use crate::{
    Identity, IdentityError, IdentityId, Msp, PrincipalError, cache::Cache, identity::Holder, msp, principal,
};

/// Identities remembered per manager: more than the distinct signers that a busy channel sees within minutes, and at about
/// 4 kB each a few megabytes at most.
const CACHED_IDENTITIES: usize = 1024;

/// Serialised identities longer than this are refused before they are parsed or remembered: certificates have about one
/// kilobyte, and nothing legitimate comes near this.
const MAX_SERIALIZED_IDENTITY_BYTES: usize = 64 * 1024;

/// How many bytes at the end of a serialised identity decide where it lies in the cache: the end of a PEM certificate is its
/// signature, so that different certificates differ there, and hashing a whole kilobyte would cost more than the evaluation of a
/// policy. Equality is always that of all bytes.
const HASHED_BYTES: usize = 96;

/// The MSPs that a channel knows, or the local one of a node. Immutable; share it as `Arc`.
///
/// Identities are cached by their serialised bytes and by the hash of their certificate, with the parsed key, the verdict and the
/// roles, for as long as the manager lives; a new channel configuration makes a new manager, so that nothing stale survives it.
pub struct MspManager {
    msps: BTreeMap<MspId, Arc<Msp>>,
    forms: Cache<u64, Arc<Identity>>,
    holders: Cache<IdentityId, Arc<Holder>>,
    hasher: RandomState,
}

impl MspManager {
    /// A manager of these MSPs. Of two with one id the later counts; a channel configuration refuses that before.
    #[must_use]
    pub fn new(msps: Vec<Msp>) -> Self {
        let msps = msps.into_iter().map(|msp| (msp.id().clone(), Arc::new(msp))).collect();
        Self {
            msps,
            forms: Cache::new(CACHED_IDENTITIES),
            holders: Cache::new(CACHED_IDENTITIES),
            hasher: RandomState::new(),
        }
    }

    /// The MSP with an id.
    #[must_use]
    pub fn msp(&self, id: &MspId) -> Option<&Msp> {
        self.msps.get(id).map(AsRef::as_ref)
    }

    /// All MSPs, by id.
    pub fn msps(&self) -> impl Iterator<Item = &Msp> {
        self.msps.values().map(AsRef::as_ref)
    }

    /// Whether any MSP has a list of revoked certificates.
    #[must_use]
    pub fn revokes(&self) -> bool {
        self.msps.values().any(|msp| !msp.revocation_lists().is_empty())
    }

    /// Judges a TLS certificate at a door that knows its holder already, by its chain or because it was named: every MSP whose
    /// authorities issued it must admit it. Answers whether there is such an MSP.
    ///
    /// # Errors
    /// The rule that it breaks, see [`Msp::admit_tls`].
    pub fn judge_tls(
        &self,
        certificate: &Arc<Certificate>,
        now: OffsetDateTime,
    ) -> Result<bool, IdentityError> {
        let mut is_known = false;
        for msp in self.msps.values() {
            match msp.admit_tls(certificate, now) {
                Ok(()) => is_known = true,
                Err(IdentityError::Chain(_)) => {}
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(is_known)
    }

    /// The TLS root and intermediate certificates of all MSPs, in PEM.
    #[must_use]
    pub fn tls_roots(&self) -> Vec<Bytes> {
        let of = |msp: &Arc<Msp>| [msp.tls_roots(), msp.tls_intermediates()].concat();
        self.msps.values().flat_map(of).collect()
    }

    /// Reads a `SerializedIdentity`. Its certificate must chain to the roots of its MSP; whether it is valid there is another
    /// question, see [`MspManager::validate`].
    ///
    /// # Errors
    /// [`IdentityError`] when the bytes, the MSP id or the certificate are not acceptable.
    pub fn deserialize(&self, serialized: &[u8]) -> Result<Arc<Identity>, IdentityError> {
        if serialized.len() > MAX_SERIALIZED_IDENTITY_BYTES {
            return Err(IdentityError::Malformed(format!("{} bytes are too many", serialized.len())));
        }
        let place = self.hasher.hash_one(&serialized[serialized.len().saturating_sub(HASHED_BYTES)..]);
        if let Some(identity) = self.forms.find(&place).filter(|found| found.serialized() == serialized) {
            return Ok(identity);
        }
        let message = SerializedIdentity::decode(serialized)
            .map_err(|error| IdentityError::Malformed(error.to_string()))?;
        let msp = MspId::parse(&message.mspid)
            .ok()
            .and_then(|id| self.msps.get(&id))
            .ok_or_else(|| IdentityError::UnknownMsp(message.mspid.clone()))?;
        let holder = self.holder(msp, &message.id_bytes)?;
        let identity = Arc::new(Identity::new(holder, Bytes::copy_from_slice(serialized)));
        // Only what chains to a root is remembered, so that garbage cannot push good entries out.
        self.forms.insert(place, Arc::clone(&identity));
        Ok(identity)
    }

    /// The holder of a certificate, which chains to its MSP's roots.
    fn holder(&self, msp: &Arc<Msp>, pem: &[u8]) -> Result<Arc<Holder>, IdentityError> {
        let certificate = msp::open_certificate(pem)?;
        let holder = Holder::new(Arc::clone(msp), Arc::clone(&certificate));
        if let Some(known) = self.holders.find(holder.id()) {
            return Ok(known);
        }
        msp.check_chain(&certificate)?;
        let holder = Arc::new(holder);
        self.holders.insert(holder.id().clone(), Arc::clone(&holder));
        Ok(holder)
    }

    /// Whether an identity is valid under its MSP here. The wall clock plays no part; see [`Identity::expires_at`].
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn validate(&self, identity: &Identity) -> Result<(), IdentityError> {
        self.own(identity)?.validate()
    }

    /// Whether an identity is what a principal demands.
    ///
    /// # Errors
    /// Why not.
    pub fn satisfies(&self, identity: &Identity, principal: &MspPrincipal) -> Result<(), PrincipalError> {
        let own = self.own(identity).map_err(|error| PrincipalError::new(error.to_string()))?;
        principal::satisfies(&own, principal)
    }

    /// Whether an identity is what an opened principal demands.
    pub(crate) fn meets(&self, identity: &Identity, demand: &principal::Demand) -> bool {
        // Most signers are of another organisation: cheap to see before the manager is asked.
        if let principal::Demand::Role { msp_id, .. } = demand
            && identity.msp_id().as_str() != msp_id
        {
            return false;
        }
        self.own(identity).is_ok_and(|own| demand.is_met_by(&own))
    }

    /// The identity under this manager's MSP: itself, unless it was read by another manager.
    fn own<'a>(&self, identity: &'a Identity) -> Result<Own<'a>, IdentityError> {
        match self.msps.get(identity.msp_id()) {
            Some(msp) if Arc::ptr_eq(msp, identity.msp()) => Ok(Own::Same(identity)),
            _ => self.deserialize(identity.serialized()).map(Own::Again),
        }
    }
}

/// An identity of this manager.
enum Own<'a> {
    Same(&'a Identity),
    Again(Arc<Identity>),
}

impl std::ops::Deref for Own<'_> {
    type Target = Identity;

    fn deref(&self) -> &Identity {
        match self {
            Self::Same(identity) => identity,
            Self::Again(identity) => identity,
        }
    }
}

impl fmt::Debug for MspManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.msps.keys()).finish()
    }
}
