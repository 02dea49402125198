//! `consort tx explain`: why a transaction ended as it did, from the blocks that everybody has.

mod conflicts;
mod endorsement;
mod in_force;
mod ranges;

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use consort_channel_config::ChannelBundle;
use consort_client_sdk::blocks::{BlockPosition, BlockReader, BlockServer};
use consort_client_sdk::decode::{DecodedBlock, DecodedInvocation, DecodedTransaction, Kind};
use consort_client_sdk::peer_admin::PeerAdmin;
use consort_client_sdk::registered::EntryStatus;
use consort_client_sdk::{Error, explain};
use consort_protos::entry::EntryNumber;
use consort_protos::fabric::common::Block;
use consort_protos::fabric::msp::SerializedIdentity;
use consort_protos::fabric::protos::TxValidationCode;
use consort_protos::rwset::{HashedCollection, NamespaceReadWriteSet};
use prost::Message;
use serde_json::json;

use crate::access::{Access, AccessOptions};
use crate::block::{key, transaction_words};
use crate::output::Output;
use crate::registered;

/// Blocks that are searched for whoever changed a key or a policy. A conflict is nearly always with a recent transaction.
const BLOCKS_SEARCHED_MAX: u64 = 1_000;

#[derive(Debug, Args)]
pub(crate) struct ExplainOptions {
    #[command(flatten)]
    access: AccessOptions,

    /// Transaction id
    tx_id: String,

    #[command(flatten)]
    output: Output,
}

/// Explains a transaction.
///
/// # Errors
/// The peer does not know it, or may not tell.
pub(crate) async fn run(options: &ExplainOptions) -> anyhow::Result<()> {
    let case = Case::open(&options.access.open()?, &options.tx_id).await?;
    let code = case.transaction.code.unwrap_or(TxValidationCode::NotValidated);
    let reasons = case.reasons(code).await?;
    let json = json!({
        "transaction": options.tx_id,
        "block": case.block.number,
        "index": case.transaction.index,
        "code": code.as_str_name(),
        "meaning": explain(code),
        "reasons": reasons,
    });
    options.output.print(&json, || {
        let mut lines = vec![format!("in block {}:", case.block.number)];
        lines.extend(transaction_words(&case.transaction));
        if !reasons.is_empty() {
            lines.push("Why:".to_owned());
            lines.extend(reasons.iter().flat_map(|reason| reason.lines()).map(|line| format!("  {line}")));
        }
        lines.join("\n")
    })
}

/// The transaction with its block, and where to ask further.
struct Case {
    channel: String,
    blocks: BlockReader,
    admin: PeerAdmin,
    raw: Block,
    block: DecodedBlock,
    transaction: DecodedTransaction,
}

/// A place in the ledger that a transaction reads or writes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Public { namespace: String, key: String },
    Private { namespace: String, collection: String, key_hash: Bytes },
}

impl std::fmt::Display for Place {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Public { namespace, key: name } => write!(formatter, "key {} of {namespace}", key(name)),
            Self::Private { namespace, collection, key_hash } => write!(
                formatter,
                "the key with hash {} in collection {collection} of {namespace}",
                hex::encode(key_hash)
            ),
        }
    }
}

impl Place {
    fn private(set: &NamespaceReadWriteSet, collection: &HashedCollection, key_hash: &Bytes) -> Self {
        Self::Private {
            namespace: set.namespace.clone(),
            collection: collection.name.clone(),
            key_hash: key_hash.clone(),
        }
    }

    fn collection(&self) -> Option<&str> {
        match self {
            Self::Public { .. } => None,
            Self::Private { collection, .. } => Some(collection),
        }
    }
}

impl Case {
    async fn open(access: &Access, tx_id: &str) -> anyhow::Result<Self> {
        let (member, peer) = access.peer()?;
        let endpoint = access.peer_endpoint(member, peer)?;
        let identity = access.reader()?;
        let blocks = BlockReader::new(&endpoint, BlockServer::Peer, &identity, access.channel())?;
        let admin = access.peer_admin(&endpoint, identity)?;
        let channel = access.channel().to_owned();
        let arguments =
            [channel.as_str(), tx_id].map(|text| Bytes::copy_from_slice(text.as_bytes())).to_vec();
        let answer = admin.query(&channel, "qscc", "GetBlockByTxID", arguments).await;
        let answer = answer.with_context(|| {
            format!(
                "peer {} knows no transaction {tx_id} in channel {channel}.\nRemedy: check the id and the channel; a transaction \
                 that was refused before it was ordered is in no block",
                peer.host
            )
        })?;
        let raw = Block::decode(answer).context("the peer's answer is no block")?;
        let mut block = DecodedBlock::new(&raw)?;
        registered::name_entries(&mut block, &admin, &channel).await;
        let found = block.transactions.iter().find(|transaction| transaction.tx_id == tx_id);
        let transaction =
            found.context("the block that the peer names does not hold the transaction")?.clone();
        Ok(Self { channel, blocks, admin, raw, block, transaction })
    }

    async fn fetch(&self, position: BlockPosition) -> Result<Block, Error> {
        self.blocks.fetch(position).await
    }

    /// A block by its number.
    async fn block_at(&self, number: u64) -> anyhow::Result<DecodedBlock> {
        if number == self.block.number {
            return Ok(self.block.clone());
        }
        Ok(DecodedBlock::new(&self.fetch(BlockPosition::Number(number)).await?)?)
    }

    async fn reasons(&self, code: TxValidationCode) -> anyhow::Result<Vec<String>> {
        let Kind::Invocation(invocation) = &self.transaction.kind else { return Ok(Vec::new()) };
        match code {
            TxValidationCode::MvccReadConflict | TxValidationCode::PhantomReadConflict => {
                self.conflicts(invocation).await
            }
            TxValidationCode::EndorsementPolicyFailure => self.endorsement(invocation).await,
            TxValidationCode::ExpiredChaincode | TxValidationCode::InvalidChaincode => {
                self.version(invocation).await
            }
            TxValidationCode::BadCreatorSignature => Ok(vec![self.creator().await?]),
            TxValidationCode::DuplicateTxid => {
                Ok(vec![format!("an earlier transaction of this id is in block {}", self.block.number)])
            }
            _ => Ok(Vec::new()),
        }
    }

    /// A signer's identity with its certificate, also when the transaction names it by an entry of the channel's table; and
    /// what keeps the entry from counting, or kept it if it was so then.
    async fn certificate_of(&self, signer: &Bytes) -> anyhow::Result<(Bytes, Option<String>)> {
        let Some(number) = EntryNumber::of_serialized(signer) else { return Ok((signer.clone(), None)) };
        match registered::entry(&self.admin, &self.channel, number).await {
            Ok(entry) => {
                let retired = entry.status != EntryStatus::Active as i32;
                let note = retired.then(|| format!("entry {number} is retired"));
                let identity =
                    SerializedIdentity { mspid: entry.msp_id, id_bytes: entry.certificate, entry: 0 };
                Ok((identity.encode_to_vec().into(), note))
            }
            Err(error) => Ok((signer.clone(), Some(format!("entry {number} is not known: {error}")))),
        }
    }

    async fn creator(&self) -> anyhow::Result<String> {
        let bundle = self.configuration().await?;
        let opened = self.transaction.opened.as_ref().context("the transaction does not open")?;
        let (creator, note) = self.certificate_of(&opened.creator).await?;
        if let Some(note) = note {
            return Ok(format!("the submitter is not known: {note}"));
        }
        let identity = match bundle.msps().deserialize(&creator) {
            Ok(identity) => identity,
            Err(error) => return Ok(format!("the submitter's identity does not count: {error}")),
        };
        if let Err(error) = bundle.msps().validate(&identity) {
            return Ok(format!("the submitter's certificate does not count: {error}"));
        }
        Ok(match identity.verify(&opened.payload, &opened.signature) {
            Err(error) => format!("the submitter's signature does not hold: {error}"),
            Ok(()) => {
                "the signature holds now; the certificate did not count when the block was judged".to_owned()
            }
        })
    }

    /// The configuration under which the block was judged.
    async fn configuration(&self) -> anyhow::Result<ChannelBundle> {
        let number = consort_protos::block::last_config_index(&self.raw)?;
        Ok(ChannelBundle::from_block(&self.fetch(BlockPosition::Number(number.get())).await?)?)
    }
}

/// The blocks of a channel from one on towards the beginning, as far as they are there and worth a search.
struct Backwards<'a> {
    case: &'a Case,
    /// The block to come; `None` after the last one.
    next: Option<u64>,
    lowest: u64,
}

impl<'a> Backwards<'a> {
    fn from(case: &'a Case, number: u64) -> Self {
        Self { case, next: Some(number), lowest: number.saturating_sub(BLOCKS_SEARCHED_MAX) }
    }

    async fn next(&mut self) -> anyhow::Result<Option<DecodedBlock>> {
        let Some(number) = self.next.filter(|number| *number >= self.lowest) else { return Ok(None) };
        let block = if number == self.case.block.number {
            self.case.block.clone()
        } else {
            match self.case.fetch(BlockPosition::Number(number)).await {
                Ok(block) => DecodedBlock::new(&block)?,
                // The ledger may begin with a snapshot.
                Err(Error::Delivery { .. }) => {
                    self.lowest = number + 1;
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            }
        };
        self.next = number.checked_sub(1);
        Ok(Some(block))
    }

    /// The oldest block that was looked at.
    fn oldest(&self) -> u64 {
        self.next.map_or(0, |next| next + 1)
    }
}

fn who(number: u64, transaction: &DecodedTransaction, other: &DecodedInvocation) -> String {
    let creator = transaction.creator.as_ref().map(|creator| format!(" of {creator}")).unwrap_or_default();
    format!(
        "transaction {} ({} {}{creator}, block {number})",
        transaction.tx_id,
        other.chaincode,
        other.function()
    )
}
