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
        Ok(Self { ids, next_id, members })
    }

    /// The membership under a new list. Members may be reordered, move to other addresses and replace certificates.
    pub(crate) fn after(&self, consenters: &[Consenter]) -> Result<Self, String> {
        let old: Vec<Consenter> = self
            .ids
            .iter()
            .filter_map(|id| self.members.get(id))
            .map(|member| member.consenter.clone())
            .collect();
        let handed_on = match ConsenterChange::between(&old, consenters)? {
            ConsenterChange::None => None,
            ConsenterChange::Rotated { from, .. } => self.id_of(&from),
            ConsenterChange::Added(_) | ConsenterChange::Removed(_) => {
                return Err("the number of consenters cannot change while the channel runs".to_owned());
            }
        };
        let ids = consenters.iter().map(|one| self.id_of(one).or(handed_on)).collect::<Option<Vec<u64>>>();
        Self::with(consenters, ids.ok_or("a consenter has no id")?, self.next_id)
    }

    fn id_of(&self, consenter: &Consenter) -> Option<u64> {
        let same = |member: &Member| member.consenter.client_tls_cert == consenter.client_tls_cert;
        self.members.iter().find_map(|(id, member)| same(member).then_some(*id))
    }

    /// The id of the consenter that connects with this certificate (DER).
    pub(crate) fn id_by_certificate(&self, der: &[u8]) -> Option<u64> {
        let with = |der: &[u8]| {
            self.members.iter().find_map(|(id, member)| (member.client.der() == der).then_some(*id))
        };
        // A certificate whose signature has the higher S is compared in the form that the configuration's have.
        with(der).or_else(|| with(Certificate::from_der(der).ok()?.der()))
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

    /// What a block says about it.
    pub(crate) fn block_metadata(&self, raft_index: u64) -> BlockMetadata {
        BlockMetadata { consenter_ids: self.ids.clone(), next_consenter_id: self.next_id, raft_index }
    }
}
