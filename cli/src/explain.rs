//! `consort tx explain`: why a transaction ended as it did, from the blocks that everybody has.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use consort_channel_config::ChannelBundle;
use consort_client_sdk::blocks::{BlockPosition, BlockServer, fetch_block};
use consort_client_sdk::decode::{DecodedBlock, DecodedInvocation, DecodedTransaction, Kind, Signer};
use consort_client_sdk::peer_admin::PeerAdmin;
use consort_client_sdk::registered::EntryStatus;
use consort_client_sdk::{ClientIdentity, Endpoint, Error, explain};
use consort_crypto::bls::{self, HashedMessage, PublicKey};
use consort_crypto::preimage;
use consort_msp::policy::SignedData;
use consort_protos::consort::endorsement::AggregateEndorsement;
use consort_protos::entry::EntryNumber;
use consort_protos::fabric::common::Block;
use consort_protos::fabric::lifecycle::{QueryChaincodeDefinitionArgs, QueryChaincodeDefinitionResult};
use consort_protos::fabric::msp::SerializedIdentity;
use consort_protos::fabric::protos::TxValidationCode;
use consort_protos::ids::Height;
use consort_protos::rwset::{HashedCollection, NamespaceReadWriteSet, RangeReads};
use consort_protos::signers;
use consort_protos::transaction::{Body, EndorserTransaction};
use prost::Message;
use serde_json::json;

use crate::access::{Access, AccessOptions};
use crate::block::{key, transaction_words};
use crate::output::Output;
use crate::registered;

/// Blocks that are searched for whoever changed a key. A conflict is nearly always with a recent transaction.
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
    endpoint: Endpoint,
    identity: ClientIdentity,
    admin: PeerAdmin,
    raw: Block,
    block: DecodedBlock,
    transaction: DecodedTransaction,
}

/// A place in the ledger that a transaction has read.
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

impl Case {
    async fn open(access: &Access, tx_id: &str) -> anyhow::Result<Self> {
        let (member, peer) = access.peer()?;
        let endpoint = access.peer_endpoint(member, peer)?;
        let identity = access.reader()?;
        let admin = access.peer_admin(&endpoint, identity.clone())?;
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
        Ok(Self { channel, endpoint, identity, admin, raw, block, transaction })
    }

    async fn fetch(&self, position: BlockPosition) -> Result<Block, Error> {
        fetch_block(&self.endpoint, BlockServer::Peer, &self.identity, &self.channel, position).await
    }

    async fn reasons(&self, code: TxValidationCode) -> anyhow::Result<Vec<String>> {
        let Kind::Invocation(invocation) = &self.transaction.kind else { return Ok(Vec::new()) };
        match code {
            TxValidationCode::MvccReadConflict | TxValidationCode::PhantomReadConflict => {
                self.conflicts(invocation).await
            }
            TxValidationCode::EndorsementPolicyFailure => self.endorsement(invocation).await,
            TxValidationCode::BadCreatorSignature => Ok(vec![self.creator().await?]),
            TxValidationCode::DuplicateTxid => {
                Ok(vec![format!("an earlier transaction of this id is in block {}", self.block.number)])
            }
            _ => Ok(Vec::new()),
        }
    }

    /// Which key was changed by which transaction.
    async fn conflicts(&self, invocation: &DecodedInvocation) -> anyhow::Result<Vec<String>> {
        let mut reads = reads(invocation);
        let ranges = &invocation.rwset.namespaces;
        let (mut reasons, mut in_ranges) = (Vec::new(), BTreeSet::new());
        let lowest = self.block.number.saturating_sub(BLOCKS_SEARCHED_MAX);
        let mut number = self.block.number;
        while number > lowest && (!reads.is_empty() || has_ranges(ranges)) {
            let block = if number == self.block.number {
                self.block.clone()
            } else {
                match self.fetch(BlockPosition::Number(number)).await {
                    Ok(block) => DecodedBlock::new(&block)?,
                    // The ledger may begin with a snapshot.
                    Err(Error::Delivery { .. }) => break,
                    Err(error) => return Err(error.into()),
                }
            };
            for transaction in block.transactions.iter().rev() {
                let before = number < self.block.number || transaction.index < self.transaction.index;
                let valid = transaction.code == Some(TxValidationCode::Valid);
                let Kind::Invocation(other) = &transaction.kind else { continue };
                if !before || !valid {
                    continue;
                }
                let at = (number, transaction.index as u64);
                for place in writes(other) {
                    if let Some(version) = reads.remove(&place)
                        && version != Some(at)
                    {
                        reasons.push(conflict(&place, version, number, transaction, other));
                    }
                    if in_ranges.insert(place.clone()) && entered(ranges, &place, at) {
                        reasons.push(format!(
                            "{place} is in a range that it read, and was changed by {}",
                            who(number, transaction, other)
                        ));
                    }
                }
            }
            number -= 1;
        }
        if reasons.is_empty() {
            reasons.push(format!(
                "the change is older than the last {BLOCKS_SEARCHED_MAX} blocks, which were searched"
            ));
        }
        Ok(reasons)
    }

    /// Which signature did not count, and why.
    async fn endorsement(&self, invocation: &DecodedInvocation) -> anyhow::Result<Vec<String>> {
        let bundle = self.configuration().await?;
        let opened = self.transaction.opened.as_ref().context("the transaction does not open")?;
        let Ok(Body::Endorser(body)) = &opened.body else { bail!("the transaction is no invocation") };
        let mut signatures: Vec<SignedData> = Vec::new();
        let mut notes = Vec::new();
        for endorsement in &body.endorsements {
            let (identity, note) = self.certificate_of(&endorsement.endorser).await?;
            notes.extend(note);
            signatures.push(SignedData {
                message: preimage::endorsement(&body.proposal_response_payload, &identity).into(),
                identity,
                signature: endorsement.signature.clone(),
            });
        }
        if let Some(aggregate) = &body.aggregate {
            let (together, wrong) = self.together(&bundle, body, aggregate).await?;
            if !wrong.is_empty() {
                return Ok(wrong);
            }
            notes.push(format!("note: {together} endorsed together, with a signature that holds"));
        }
        let arguments = QueryChaincodeDefinitionArgs { name: invocation.chaincode.clone() };
        let arguments = vec![Bytes::from(arguments.encode_to_vec())];
        let answer =
            self.admin.query(&self.channel, "_lifecycle", "QueryChaincodeDefinition", arguments).await?;
        let definition = QueryChaincodeDefinitionResult::decode(answer)?;
        let policy = bundle
            .endorsement_policy(&definition.validation_parameter)
            .with_context(|| format!("the policy of chaincode {} cannot be read", invocation.chaincode))?;
        let mut reasons = match policy.evaluate(&signatures) {
            Err(refusal) => {
                vec![format!("the policy of chaincode {} is not met\n{refusal:#}", invocation.chaincode)]
            }
            Ok(()) => vec![format!(
                "the policy of chaincode {} itself is met; that of a collection or of a single key that it writes is not",
                invocation.chaincode
            )],
        };
        reasons.extend(notes);
        if definition.version != invocation.version {
            reasons.push(format!(
                "note: the chaincode is at version {} now, and the transaction was endorsed for {}",
                definition.version, invocation.version
            ));
        }
        Ok(reasons)
    }

    /// Those who endorsed together, in words; or what is wrong with their aggregate.
    async fn together(
        &self,
        bundle: &ChannelBundle,
        body: &EndorserTransaction,
        aggregate: &AggregateEndorsement,
    ) -> anyhow::Result<(String, Vec<String>)> {
        let wrong = |reason: String| {
            Ok((String::new(), vec![format!("the aggregated endorsement does not count: {reason}")]))
        };
        let Some(numbers) = signers::decode(&aggregate.signers) else {
            return wrong("the set of its signers is not in its only form".to_owned());
        };
        let (mut names, mut keys) = (Vec::new(), Vec::new());
        for number in numbers.into_iter().filter_map(EntryNumber::new) {
            let entry = match registered::entry(&self.admin, &self.channel, number).await {
                Ok(entry) => entry,
                Err(error) => return wrong(format!("entry {number} is not known: {error}")),
            };
            if entry.status != EntryStatus::Active as i32 {
                return wrong(format!("entry {number} is retired"));
            }
            let Some(key) = entry.bls.as_ref().and_then(|key| PublicKey::from_bytes(&key.public_key).ok())
            else {
                return wrong(format!("entry {number} has no BLS key"));
            };
            keys.push(key);
            names.push(Signer::of_entry(&entry).to_string());
        }
        let message = bls::endorsement(bundle.channel().as_str(), &body.proposal_response_payload);
        let keys: Vec<&PublicKey> = keys.iter().collect();
        let holds = bls::Signature::from_bytes(&aggregate.signature)
            .is_ok_and(|sum| bls::verify_aggregate(&keys, &HashedMessage::new(&message), &sum));
        if !holds {
            return wrong(format!("it is not the sum of the signatures of {}", names.join(", ")));
        }
        Ok((names.join(", "), Vec::new()))
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

type At = (u64, u64);

fn at(height: Height) -> At {
    (height.block.get(), height.tx.get().into())
}

/// Everything that was read by name, with the version found.
fn reads(invocation: &DecodedInvocation) -> BTreeMap<Place, Option<At>> {
    let mut reads = BTreeMap::new();
    for set in &invocation.rwset.namespaces {
        let namespace = || set.namespace.clone();
        for read in &set.reads {
            let place = Place::Public { namespace: namespace(), key: read.key.clone() };
            reads.insert(place, read.version.map(at));
        }
        for collection in &set.collections {
            for read in &collection.hashed_reads {
                let place = private(set, collection, &read.key_hash);
                reads.insert(place, read.version.map(at));
            }
        }
    }
    reads
}

fn writes(invocation: &DecodedInvocation) -> Vec<Place> {
    let mut places = Vec::new();
    for set in &invocation.rwset.namespaces {
        let names = set.writes.iter().map(|write| &write.key);
        let names = names.chain(set.metadata_writes.iter().map(|write| &write.key));
        places.extend(names.map(|key| Place::Public { namespace: set.namespace.clone(), key: key.clone() }));
        for collection in &set.collections {
            places.extend(
                collection.hashed_writes.iter().map(|write| private(set, collection, &write.key_hash)),
            );
        }
    }
    places
}

fn private(set: &NamespaceReadWriteSet, collection: &HashedCollection, key_hash: &Bytes) -> Place {
    Place::Private {
        namespace: set.namespace.clone(),
        collection: collection.name.clone(),
        key_hash: key_hash.clone(),
    }
}

fn has_ranges(sets: &[NamespaceReadWriteSet]) -> bool {
    sets.iter().any(|set| !set.range_queries.is_empty())
}

/// Whether the newest write of a key lies in a range that was read, and is not what was found there.
fn entered(sets: &[NamespaceReadWriteSet], place: &Place, written: At) -> bool {
    let Place::Public { namespace, key } = place else { return false };
    sets.iter().filter(|set| set.namespace == *namespace).flat_map(|set| &set.range_queries).any(|range| {
        let beyond =
            !range.end_key.is_empty() && (*key > range.end_key || (range.exhausted && *key == range.end_key));
        if *key < range.start_key || beyond {
            return false;
        }
        match &range.reads {
            RangeReads::Raw(found) => {
                !found.iter().any(|read| read.key == *key && read.version.map(at) == Some(written))
            }
            RangeReads::Empty => true,
            // Only hashes are there: whether this key was found cannot be told.
            RangeReads::Merkle(_) => false,
        }
    })
}

fn conflict(
    place: &Place,
    version: Option<At>,
    number: u64,
    transaction: &DecodedTransaction,
    other: &DecodedInvocation,
) -> String {
    let read = version.map_or_else(
        || "when it did not exist".to_owned(),
        |(block, index)| format!("as transaction {index} of block {block} left it"),
    );
    format!(
        "{place} was read {read}, and changed before this transaction's turn by {}",
        who(number, transaction, other)
    )
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
