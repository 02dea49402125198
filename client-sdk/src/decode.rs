//! Blocks and transactions in a form to look at: who did what, and what became of it.
//!
//! Only the network's own openers are used, so what is shown here is what the peers judged.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use bytes::Bytes;
use consort_crypto::certificate::Certificate;
use consort_protos::consort::identities::Entry;
use consort_protos::entry::EntryNumber;
use consort_protos::fabric::common::{Block, HeaderType};
use consort_protos::fabric::msp::SerializedIdentity;
use consort_protos::fabric::protos::ChaincodeInvocationSpec;
use consort_protos::fabric::protos::{ChaincodeEvent, ChaincodeProposalPayload, Response, TxValidationCode};
use consort_protos::rwset::TxReadWriteSet;
use consort_protos::signers;
use consort_protos::transaction::{Body, EndorserTransaction, Transaction};
use prost::Message;

use crate::error::Error;

/// A block with its transactions opened.
#[derive(Debug, Clone)]
pub struct DecodedBlock {
    /// Its number.
    pub number: u64,
    /// Hash of the header of the block before; empty for block 0.
    pub previous_hash: Bytes,
    /// Hash of its transactions.
    pub data_hash: Bytes,
    /// Its transactions in order.
    pub transactions: Vec<DecodedTransaction>,
}

/// A transaction in a block.
#[derive(Debug, Clone)]
pub struct DecodedTransaction {
    /// Position in the block, from 0.
    pub index: usize,
    /// Transaction id; empty for a configuration.
    pub tx_id: String,
    /// What became of it; `None` before a peer has judged the block.
    pub code: Option<TxValidationCode>,
    /// What it is.
    pub kind: Kind,
    /// Who submitted it; `None` when it cannot be opened that far.
    pub creator: Option<Signer>,
    /// When, by the submitter's clock.
    pub time: Option<SystemTime>,
    /// The opened envelope, for whoever needs more; `None` when it cannot be opened.
    pub opened: Option<Transaction>,
}

/// What a transaction is.
#[derive(Debug, Clone)]
pub enum Kind {
    /// An endorsed call of a chaincode.
    Invocation(Box<DecodedInvocation>),
    /// A new configuration of the channel.
    Configuration {
        /// Its sequence number.
        sequence: u64,
    },
    /// Bytes that do not open, and why.
    Malformed(String),
}

/// An endorsed call of a chaincode.
#[derive(Debug, Clone)]
pub struct DecodedInvocation {
    /// Chaincode name.
    pub chaincode: String,
    /// Version of its definition when it was endorsed.
    pub version: String,
    /// Function and arguments as the client sent them.
    pub arguments: Vec<Bytes>,
    /// What the chaincode answered.
    pub response: Response,
    /// Who endorsed it.
    pub endorsers: Vec<Signer>,
    /// What it read and wrote.
    pub rwset: TxReadWriteSet,
    /// Its event, if it set one.
    pub event: Option<ChaincodeEvent>,
}

/// An identity as people know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    /// Its organisation.
    pub msp_id: String,
    /// Common name in the certificate; the beginning of its bytes when it is none.
    pub name: String,
    /// The entry of the channel's table of identities that stands for it in the transaction. Then organisation and name are
    /// empty until [`DecodedBlock::name_entries`] says them.
    pub entry: Option<EntryNumber>,
}

impl std::fmt::Display for Signer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(entry) = self.entry {
            write!(formatter, "entry {entry}")?;
            if self.msp_id.is_empty() {
                return Ok(());
            }
            write!(formatter, ": ")?;
        }
        write!(formatter, "{} ({})", self.name, self.msp_id)
    }
}

impl Signer {
    /// Reads a `msp.SerializedIdentity`.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the bytes are none.
    pub fn decode(identity: &Bytes) -> Result<Self, Error> {
        if let Some(entry) = EntryNumber::of_serialized(identity) {
            return Ok(Self { msp_id: String::new(), name: String::new(), entry: Some(entry) });
        }
        let identity = SerializedIdentity::decode(identity.clone())
            .map_err(|error| Error::malformed("identity", error))?;
        let name = Certificate::from_pem(&identity.id_bytes)
            .ok()
            .and_then(|certificate| certificate.subject_common_name().map(str::to_owned))
            .unwrap_or_else(|| {
                String::from_utf8_lossy(&identity.id_bytes[..identity.id_bytes.len().min(16)]).into()
            });
        Ok(Self { msp_id: identity.mspid, name, entry: None })
    }

    /// Who an entry of the table of identities is.
    #[must_use]
    pub fn of_entry(entry: &Entry) -> Self {
        let certificate = Certificate::from_pem(&entry.certificate).ok();
        let name = certificate.and_then(|certificate| certificate.subject_common_name().map(str::to_owned));
        Self {
            msp_id: entry.msp_id.clone(),
            name: name.unwrap_or_default(),
            entry: EntryNumber::new(entry.number),
        }
    }
}

impl DecodedInvocation {
    /// The function's name, which is the first argument.
    #[must_use]
    pub fn function(&self) -> String {
        self.arguments.first().map(|name| String::from_utf8_lossy(name).into_owned()).unwrap_or_default()
    }
}

impl DecodedBlock {
    /// Opens a block. What a transaction holds does not make this fail: one that does not open says so.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the block has no header.
    pub fn new(block: &Block) -> Result<Self, Error> {
        let header = block.header.as_ref().ok_or_else(|| Error::malformed("block", "it has no header"))?;
        let flags = consort_protos::block::flags(block).unwrap_or_default();
        let envelopes = consort_protos::block::envelopes(block);
        let code = |index: usize| {
            flags.get(index).and_then(|flag| TxValidationCode::try_from(i32::from(*flag)).ok())
        };
        let transactions = envelopes
            .iter()
            .enumerate()
            .map(|(index, raw)| {
                // The envelope of a genesis block has no creator, and is no transaction to the opener.
                let configuration = (envelopes.len() == 1 && consort_protos::block::is_config(block))
                    .then(|| consort_protos::block::config_envelope(block).ok())
                    .flatten();
                let mut decoded = DecodedTransaction::new(index, raw, code(index));
                if let Some(configuration) = configuration {
                    let sequence = configuration.config.map_or(0, |config| config.sequence);
                    decoded.kind = Kind::Configuration { sequence };
                }
                decoded
            })
            .collect();
        Ok(Self {
            number: header.number,
            previous_hash: header.previous_hash.clone(),
            data_hash: header.data_hash.clone(),
            transactions,
        })
    }
}

impl DecodedBlock {
    /// The entries of the channel's table of identities that its transactions name.
    #[must_use]
    pub fn entries(&self) -> BTreeSet<EntryNumber> {
        self.transactions
            .iter()
            .flat_map(DecodedTransaction::signers)
            .filter_map(|signer| signer.entry)
            .collect()
    }

    /// Says who the entries are that its transactions name.
    pub fn name_entries(&mut self, entries: &[Entry]) {
        let known: BTreeMap<_, _> =
            entries.iter().map(Signer::of_entry).map(|known| (known.entry, known)).collect();
        for transaction in &mut self.transactions {
            let endorsers = match &mut transaction.kind {
                Kind::Invocation(invocation) => invocation.endorsers.as_mut_slice(),
                _ => &mut [],
            };
            for signer in transaction.creator.iter_mut().chain(endorsers) {
                if let Some(found) = known.get(&signer.entry).filter(|_| signer.entry.is_some()) {
                    found.clone_into(signer);
                }
            }
        }
    }
}

impl DecodedTransaction {
    /// Creator and endorsers.
    fn signers(&self) -> impl Iterator<Item = &Signer> {
        let endorsers = match &self.kind {
            Kind::Invocation(invocation) => invocation.endorsers.as_slice(),
            _ => &[],
        };
        self.creator.iter().chain(endorsers)
    }

    fn new(index: usize, raw: &Bytes, code: Option<TxValidationCode>) -> Self {
        let opened = match Transaction::open(raw.clone()) {
            Ok(opened) => opened,
            Err(rejection) => {
                let kind = Kind::Malformed(rejection.reason);
                let tx_id = String::new();
                return Self { index, tx_id, code, kind, creator: None, time: None, opened: None };
            }
        };
        Self {
            index,
            tx_id: opened.tx_id.clone(),
            code,
            kind: kind(&opened),
            creator: Signer::decode(&opened.creator).ok(),
            time: opened.channel_header.timestamp.and_then(|time| SystemTime::try_from(time).ok()),
            opened: Some(opened),
        }
    }
}

fn kind(opened: &Transaction) -> Kind {
    match &opened.body {
        Err(rejection) => Kind::Malformed(rejection.reason.clone()),
        Ok(Body::Config(configuration)) => Kind::Configuration {
            sequence: configuration.envelope.config.as_ref().map_or(0, |config| config.sequence),
        },
        Ok(Body::ConfigUpdate(_)) => {
            Kind::Malformed(format!("a block holds no {}", HeaderType::ConfigUpdate.as_str_name()))
        }
        Ok(Body::Endorser(body)) => match &body.invocation {
            Err(rejection) => Kind::Malformed(rejection.reason.clone()),
            Ok(invocation) => Kind::Invocation(Box::new(DecodedInvocation {
                chaincode: invocation.chaincode_id.name.clone(),
                version: invocation.chaincode_id.version.clone(),
                arguments: arguments(&body.chaincode_proposal_payload),
                response: invocation.action.response.clone().unwrap_or_default(),
                endorsers: endorsers(body),
                rwset: invocation.rwset.clone(),
                event: invocation.event.clone(),
            })),
        },
    }
}

/// Those who endorsed alone, then those who did it together. Whether the channel knows aggregates is not asked.
fn endorsers(body: &EndorserTransaction) -> Vec<Signer> {
    let alone = body.endorsements.iter().filter_map(|endorsement| Signer::decode(&endorsement.endorser).ok());
    let aggregate = body.aggregate.as_ref().and_then(|aggregate| signers::decode(&aggregate.signers));
    let together = aggregate.unwrap_or_default().into_iter().filter_map(EntryNumber::new);
    let entry = |number| Signer { msp_id: String::new(), name: String::new(), entry: Some(number) };
    alone.chain(together.map(entry)).collect()
}

fn arguments(payload: &Bytes) -> Vec<Bytes> {
    ChaincodeProposalPayload::decode(payload.clone())
        .ok()
        .and_then(|payload| ChaincodeInvocationSpec::decode(payload.input).ok())
        .and_then(|invocation| invocation.chaincode_spec?.input)
        .map(|input| input.args)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden(number: u32) -> DecodedBlock {
        let path = format!("../protos/tests/golden/fabric-channel/blocks/{number:04}.pb");
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        let block = Block::decode(std::fs::read(file).unwrap().as_slice()).unwrap();
        DecodedBlock::new(&block).unwrap()
    }

    #[test]
    fn a_real_channels_blocks_open() {
        let genesis = golden(0);
        assert!(
            matches!(genesis.transactions[0].kind, Kind::Configuration { .. }),
            "{:?}",
            genesis.transactions[0].kind
        );
        let mut invocations = 0;
        for number in 1..15 {
            for transaction in golden(number).transactions {
                assert!(transaction.creator.is_some());
                if let Kind::Invocation(invocation) = transaction.kind {
                    assert!(!invocation.function().is_empty());
                    assert!(invocation.endorsers.iter().all(|endorser| endorser.msp_id.ends_with("MSP")));
                    invocations += 1;
                }
            }
        }
        assert!(invocations > 3, "{invocations}");
    }
}
