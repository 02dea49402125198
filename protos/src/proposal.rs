//! Proposals: opened by endorsers and gateways, built by clients.
//!
//! The texts of the errors are Fabric's (`core/endorser/msgvalidation.go`), since clients show them to people.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use prost::Message;
use prost_types::Timestamp;

use crate::consort::endorsement::AggregateEndorsement;
use crate::fabric::common::{ChannelHeader, Envelope, Header, HeaderType, Payload, SignatureHeader};
use crate::fabric::protos::{
    self, ChaincodeActionPayload, ChaincodeEndorsedAction, ChaincodeHeaderExtension, ChaincodeId,
    ChaincodeInput, ChaincodeInvocationSpec, ChaincodeProposalPayload, ChaincodeSpec, Endorsement,
    SignedProposal, TransactionAction, chaincode_spec,
};

/// A proposal whose layers have all been opened.
#[derive(Clone)]
pub struct Proposal {
    /// What the client's signature covers.
    pub bytes: Bytes,
    /// The client's signature.
    pub signature: Bytes,
    /// Bytes of the header as received.
    pub header_bytes: Bytes,
    /// Bytes of the channel header as received.
    pub channel_header_bytes: Bytes,
    /// Bytes of the signature header as received.
    pub signature_header_bytes: Bytes,
    /// The channel header.
    pub channel_header: ChannelHeader,
    /// The serialized identity of the client.
    pub creator: Bytes,
    /// A number used once.
    pub nonce: Bytes,
    /// Name of the channel; empty for system chaincodes that belong to no channel.
    pub channel: String,
    /// Transaction id, as the header claims it.
    pub tx_id: String,
    /// When the client made the proposal, as it claims.
    pub timestamp: Option<Timestamp>,
    /// The chaincode, as the channel header's extension names it; its name is not empty.
    pub chaincode: ChaincodeId,
    /// Function and arguments.
    pub input: ChaincodeInput,
    /// Bytes of the chaincode invocation spec as received.
    pub input_bytes: Bytes,
    /// Data for the chaincode alone; never part of a hash, a transaction or a log.
    pub transient: BTreeMap<String, Bytes>,
}

impl fmt::Debug for Proposal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Proposal")
            .field("channel", &self.channel)
            .field("tx_id", &self.tx_id)
            .field("chaincode", &self.chaincode.name)
            .field("arguments", &self.input.args.len())
            .field("transient_keys", &self.transient.len())
            .finish_non_exhaustive()
    }
}

fn opened<M: Message + Default>(kind: &str, bytes: &Bytes) -> Result<M, String> {
    M::decode(bytes.clone()).map_err(|cause| format!("error unmarshalling {kind}: {cause}"))
}

impl Proposal {
    /// Opens all layers of a signed proposal.
    ///
    /// # Errors
    ///
    /// Says which layer is missing or does not parse.
    pub fn open(signed: &SignedProposal) -> Result<Self, String> {
        let proposal: protos::Proposal = opened("Proposal", &signed.proposal_bytes)?;
        let header: Header = opened("Header", &proposal.header)?;
        let channel_header: ChannelHeader = opened("ChannelHeader", &header.channel_header)?;
        let signature_header: SignatureHeader = opened("SignatureHeader", &header.signature_header)?;
        let extension: ChaincodeHeaderExtension =
            opened("ChaincodeHeaderExtension", &channel_header.extension)?;
        let chaincode = extension.chaincode_id.ok_or("ChaincodeHeaderExtension.ChaincodeId is nil")?;
        if chaincode.name.is_empty() {
            return Err("ChaincodeHeaderExtension.ChaincodeId.Name is empty".to_owned());
        }
        let payload: ChaincodeProposalPayload = opened("ChaincodeProposalPayload", &proposal.payload)?;
        let invocation: ChaincodeInvocationSpec = opened("ChaincodeInvocationSpec", &payload.input)?;
        let spec =
            invocation.chaincode_spec.ok_or("chaincode invocation spec did not contain chaincode spec")?;
        let input = spec.input.ok_or("chaincode input did not contain any input")?;
        Ok(Self {
            bytes: signed.proposal_bytes.clone(),
            signature: signed.signature.clone(),
            header_bytes: proposal.header,
            channel_header_bytes: header.channel_header,
            signature_header_bytes: header.signature_header,
            creator: signature_header.creator,
            nonce: signature_header.nonce,
            channel: channel_header.channel_id.clone(),
            tx_id: channel_header.tx_id.clone(),
            timestamp: channel_header.timestamp,
            channel_header,
            chaincode,
            input,
            input_bytes: payload.input,
            transient: payload.transient_map,
        })
    }

    /// What must hold of the headers, apart from the transaction id and the signature, which need a hash and a key.
    ///
    /// # Errors
    ///
    /// Says what does not hold.
    pub fn check_headers(&self) -> Result<(), String> {
        match HeaderType::try_from(self.channel_header.r#type) {
            // `peer channel join` sends its proposal as CONFIG.
            Ok(HeaderType::EndorserTransaction | HeaderType::Config) => {}
            Ok(kind) => return Err(format!("invalid header type {}", kind.as_str_name())),
            Err(_) => return Err(format!("invalid header type {}", self.channel_header.r#type)),
        }
        if self.channel_header.epoch != 0 {
            return Err("epoch is non-zero".to_owned());
        }
        if self.nonce.is_empty() {
            return Err("nonce is empty".to_owned());
        }
        if self.creator.is_empty() {
            return Err("creator is empty".to_owned());
        }
        if self.signature.is_empty() {
            return Err("signature bytes are nil".to_owned());
        }
        Ok(())
    }

    /// The payload that the proposal hash covers and that becomes part of the transaction.
    #[must_use]
    pub fn payload_without_transient(&self) -> Bytes {
        chaincode_proposal_payload_without_transient(self.input_bytes.clone())
    }
}

/// The chaincode proposal payload around the bytes of an invocation spec, without transient data.
#[must_use]
pub fn chaincode_proposal_payload_without_transient(input_bytes: Bytes) -> Bytes {
    ChaincodeProposalPayload { input: input_bytes, transient_map: BTreeMap::new() }.encode_to_vec().into()
}

/// What a client puts into a proposal.
#[derive(Clone)]
pub struct ProposalParts {
    /// Name of the channel; empty for system chaincodes that belong to no channel.
    pub channel: String,
    /// The serialized identity of the client.
    pub creator: Bytes,
    /// A number used once: 24 random bytes.
    pub nonce: Bytes,
    /// Lower-case hex of SHA-256(nonce, creator).
    pub tx_id: String,
    /// Now.
    pub timestamp: Timestamp,
    /// Name of the chaincode.
    pub chaincode: String,
    /// The function's name and its arguments.
    pub args: Vec<Bytes>,
    /// Data for the chaincode alone.
    pub transient: BTreeMap<String, Bytes>,
    /// Asks for the chaincode's once-only initialisation.
    pub is_init: bool,
}

impl fmt::Debug for ProposalParts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ProposalParts")
            .field("channel", &self.channel)
            .field("tx_id", &self.tx_id)
            .field("chaincode", &self.chaincode)
            .field("transient_keys", &self.transient.len())
            .finish_non_exhaustive()
    }
}

/// Builds a proposal; the client signs its encoding.
#[must_use]
pub fn new_proposal(parts: ProposalParts) -> protos::Proposal {
    let chaincode_id = ChaincodeId { name: parts.chaincode, ..ChaincodeId::default() };
    let channel_header = ChannelHeader {
        r#type: HeaderType::EndorserTransaction.into(),
        timestamp: Some(parts.timestamp),
        channel_id: parts.channel,
        tx_id: parts.tx_id,
        extension: ChaincodeHeaderExtension { chaincode_id: Some(chaincode_id.clone()) }
            .encode_to_vec()
            .into(),
        ..ChannelHeader::default()
    };
    let signature_header = SignatureHeader { creator: parts.creator, nonce: parts.nonce };
    let header = Header {
        channel_header: channel_header.encode_to_vec().into(),
        signature_header: signature_header.encode_to_vec().into(),
    };
    let spec = ChaincodeSpec {
        // What the published client sends whatever the chaincode is written in; nobody decides by it.
        r#type: chaincode_spec::Type::Node.into(),
        chaincode_id: Some(chaincode_id),
        input: Some(ChaincodeInput {
            args: parts.args,
            decorations: BTreeMap::new(),
            is_init: parts.is_init,
        }),
        timeout: 0,
    };
    let payload = ChaincodeProposalPayload {
        input: ChaincodeInvocationSpec { chaincode_spec: Some(spec) }.encode_to_vec().into(),
        transient_map: parts.transient,
    };
    protos::Proposal {
        header: header.encode_to_vec().into(),
        payload: payload.encode_to_vec().into(),
        extension: Bytes::new(),
    }
}

/// Joins a proposal and its endorsements to the envelope that the client signs; the envelope's signature is empty.
/// `response_payload` is the proposal response payload that all endorsers agree on;
/// `aggregate` is what those signed together that are not among `endorsements`.
#[must_use]
pub fn prepared_envelope(
    proposal: &Proposal,
    response_payload: Bytes,
    endorsements: Vec<Endorsement>,
    aggregate: Option<AggregateEndorsement>,
) -> Envelope {
    let payload = ChaincodeActionPayload {
        chaincode_proposal_payload: proposal.payload_without_transient(),
        action: Some(ChaincodeEndorsedAction {
            proposal_response_payload: response_payload,
            endorsements,
            aggregate,
        }),
    };
    let action = TransactionAction {
        header: proposal.signature_header_bytes.clone(),
        payload: payload.encode_to_vec().into(),
    };
    let header = Header {
        channel_header: proposal.channel_header_bytes.clone(),
        signature_header: proposal.signature_header_bytes.clone(),
    };
    let data = protos::Transaction { actions: vec![action] }.encode_to_vec().into();
    let payload = Payload { header: Some(header), data };
    Envelope { payload: payload.encode_to_vec().into(), signature: Bytes::new(), ..Envelope::default() }
}
