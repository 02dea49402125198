//! The consenters of a channel with their Raft ids.
//!
//! Source: Fabric `orderer/consensus/etcdraft/membership.go`: ids follow the order of the configured list; a consenter keeps its id
//! as long as its client certificate stays, and hands it on when exactly that certificate is replaced.

use std::collections::BTreeMap;

use bytes::Bytes;
use consort_channel_config::{Consenter, ConsenterChange};
use consort_crypto::certificate::Certificate;
use consort_protos::fabric::etcdraft::BlockMetadata;

/// The consenters in force.
#[derive(Debug, Clone)]
pub(crate) struct Membership {
    /// Ids in the order of the configured list.
    ids: Vec<u64>,
    next_id: u64,
    members: BTreeMap<u64, Member>,
    /// Consenters that a configuration removed and that Raft still counts.
    leaving: BTreeMap<u64, Member>,
}

/// One consenter.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) consenter: Consenter,
    client: Certificate,
    server: Certificate,
}

impl Membership {
    /// From the configured list and, unless no block was ordered yet, what the last block says about ids.
    pub(crate) fn new(consenters: &[Consenter], noted: Option<&BlockMetadata>) -> Result<Self, String> {
        let count = consenters.len() as u64;
        let (ids, next_id) = match noted {
            Some(noted) => (noted.consenter_ids.clone(), noted.next_consenter_id),
            None => ((1..=count).collect(), count + 1),
        };
        if ids.len() != consenters.len() {
            return Err(format!("the last block names {} consenters, the configuration {count}", ids.len()));
        }
        Self::with(consenters, ids, next_id)
    }

    fn with(consenters: &[Consenter], ids: Vec<u64>, next_id: u64) -> Result<Self, String> {
        let mut members = BTreeMap::new();
        for (consenter, id) in consenters.iter().zip(&ids) {
            let read = |pem: &Bytes| {
                Certificate::from_pem(pem).map_err(|error| {
                    format!("consenter {} has an unreadable certificate: {error}", consenter.endpoint())
                })
            };
            let member = Member {
                client: read(&consenter.client_tls_cert)?,
                server: read(&consenter.server_tls_cert)?,
                consenter: consenter.clone(),
            };
            if members.insert(*id, member).is_some() {
                return Err(format!("consenter id {id} occurs twice"));
            }
        }
        if members.is_empty() {
            return Err("empty consenter set".to_owned());
        }
        Ok(Self { ids, next_id, members, leaving: BTreeMap::new() })
    }

    /// The same consenters under other ids.
    pub(crate) fn with_ids(&self, ids: &[u64], next_id: u64) -> Result<Self, String> {
        if ids.len() != self.ids.len() {
            return Err(format!("{} ids do not fit {} consenters", ids.len(), self.ids.len()));
        }
        let mut next = Self::with(&self.consenters(), ids.to_vec(), next_id)?;
        next.leaving = self.leaving.clone();
        Ok(next)
    }

    fn consenters(&self) -> Vec<Consenter> {
        let members = self.ids.iter().filter_map(|id| self.members.get(id));
        members.map(|member| member.consenter.clone()).collect()
    }

    /// Ids in the order of the configured list, and the next free one.
    pub(crate) fn ids(&self) -> (Vec<u64>, u64) {
        (self.ids.clone(), self.next_id)
    }

    /// The membership under a new list. Members may be reordered, move to other addresses and replace certificates; one may come, under the
    /// next free id, and one may go.
    pub(crate) fn after(&self, consenters: &[Consenter]) -> Result<Self, String> {
        let (handed_on, next_id) = match ConsenterChange::between(&self.consenters(), consenters)? {
            ConsenterChange::None | ConsenterChange::Removed(_) => (None, self.next_id),
            ConsenterChange::Rotated { from, .. } => (self.id_of(&from), self.next_id),
            ConsenterChange::Added(_) => (Some(self.next_id), self.next_id + 1),
        };
        let ids = consenters.iter().map(|one| self.id_of(one).or(handed_on)).collect::<Option<Vec<u64>>>();
        let mut next = Self::with(consenters, ids.ok_or("a consenter has no id")?, next_id)?;
        next.leaving = self.leaving.clone();
        let gone = self.members.iter().filter(|(id, _)| !next.ids.contains(id));
        next.leaving.extend(gone.map(|(id, member)| (*id, member.clone())));
        Ok(next)
    }

    /// Former consenters that Raft still counts: those of an earlier membership.
    pub(crate) fn keep_leaving(&mut self, earlier: &Self, counted: &[u64]) {
        let gone = earlier.members.iter().filter(|(id, _)| counted.contains(id) && !self.ids.contains(id));
        self.leaving.extend(gone.map(|(id, member)| (*id, member.clone())));
    }

    /// Lets go of the former consenters that Raft does not count any more; whether there were any.
    pub(crate) fn let_go(&mut self, counted: &[u64]) -> bool {
        let before = self.leaving.len();
        self.leaving.retain(|id, _| counted.contains(id));
        self.leaving.len() != before
    }

    /// Whether former consenters are still counted.
    pub(crate) fn has_leaving(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// The id of a consenter, which is known by its client certificate.
    pub(crate) fn id_of(&self, consenter: &Consenter) -> Option<u64> {
        let same = |member: &Member| member.consenter.client_tls_cert == consenter.client_tls_cert;
        self.members.iter().find_map(|(id, member)| same(member).then_some(*id))
    }

    /// The id of the consenter that connects with this certificate (DER).
    pub(crate) fn id_by_certificate(&self, der: &[u8]) -> Option<u64> {
        find(&self.members, der)
    }

    /// The same, of a consenter or of a former one that Raft still counts.
    pub(crate) fn partner_by_certificate(&self, der: &[u8]) -> Option<u64> {
        self.id_by_certificate(der).or_else(|| find(&self.leaving, der))
    }

    /// The id of the consenter whose server certificate has this one's key.
    pub(crate) fn id_by_key(&self, own: &Certificate) -> Option<u64> {
        let same = |member: &Member| member.server.public_key() == own.public_key();
        self.members.iter().find_map(|(id, member)| same(member).then_some(*id))
    }

    /// Id and consenter, by id.
    pub(crate) fn members(&self) -> impl Iterator<Item = (u64, &Consenter)> {
        self.members.iter().map(|(id, member)| (*id, &member.consenter))
    }

    /// The same, with former consenters that Raft still counts.
    pub(crate) fn partners(&self) -> impl Iterator<Item = (u64, &Consenter)> {
        self.members.iter().chain(&self.leaving).map(|(id, member)| (*id, &member.consenter))
    }

    /// What a block says about it.
    pub(crate) fn block_metadata(&self, raft_index: u64) -> BlockMetadata {
        BlockMetadata { consenter_ids: self.ids.clone(), next_consenter_id: self.next_id, raft_index }
    }
}

fn find(members: &BTreeMap<u64, Member>, der: &[u8]) -> Option<u64> {
    let with =
        |der: &[u8]| members.iter().find_map(|(id, member)| (member.client.der() == der).then_some(*id));
    // A certificate whose signature has the higher S is compared in the form that the configuration's have.
    with(der).or_else(|| with(Certificate::from_der(der).ok()?.der()))
}
