//! The only opener of transactions.
//!
//! [`Transaction::open`] opens every nested layer once. Failures carry the code that the validating peer must note down,
//! and stand where Fabric's order of checks meets them: the outer layers fail the opening, the body fails later (after the
//! creator's signature), the invocation inside the body later still (after the search for duplicates). See
//! Fabric `core/common/validation/msgvalidation.go` and `core/committer/txvalidator/v20`.

use bytes::Bytes;
use prost::Message;

use crate::consort::endorsement::AggregateEndorsement;
use crate::envelope::{MalformedEnvelope, OpenEnvelope};
pub use crate::envelope::{canonical_parts, is_canonical};
use crate::fabric::common::{
    ChannelHeader, ConfigEnvelope, ConfigUpdateEnvelope, HeaderType, SignatureHeader,
};
use crate::fabric::protos::{
    self, ChaincodeAction, ChaincodeActionPayload, ChaincodeEvent, ChaincodeHeaderExtension, ChaincodeId,
    ChaincodeInvocationSpec, ChaincodeProposalPayload, Endorsement, ProposalResponsePayload,
    TxValidationCode,
};
use crate::rwset::TxReadWriteSet;

/// Why a transaction is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", code.as_str_name())]
pub struct Rejection {
    /// The code that goes into the block's metadata; `NotValidated` where there is none, and a peer has to stop at the block.
    pub code: TxValidationCode,
    /// An explanation for people; not part of any decision.
    pub reason: String,
}

impl Rejection {
    /// A code and its explanation.
    #[must_use]
    pub fn new(code: TxValidationCode, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }
}

/// A transaction whose outer layers are well formed.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// The envelope as it lies in the block.
    pub raw: Bytes,
    /// What the creator's signature covers.
    pub payload: Bytes,
    /// The creator's signature.
    pub signature: Bytes,
    /// The channel header.
    pub channel_header: ChannelHeader,
    /// Bytes of the channel header as received.
    pub channel_header_bytes: Bytes,
    /// Bytes of the signature header as received.
    pub signature_header_bytes: Bytes,
    /// The serialized identity that signs; not empty.
    pub creator: Bytes,
    /// A number used once; not empty.
    pub nonce: Bytes,
    /// Name of the channel, as the header claims it.
    pub channel: String,
    /// Transaction id, as the header claims it.
    pub tx_id: String,
    /// `Config`, `ConfigUpdate` or `EndorserTransaction`.
    pub kind: HeaderType,
    /// What the transaction carries; to be looked at after the creator's signature and the transaction id.
    pub body: Result<Body, Rejection>,
}

/// What a transaction carries.
#[derive(Clone, Debug)]
pub enum Body {
    /// An endorsed chaincode invocation.
    Endorser(Box<EndorserTransaction>),
    /// The channel's new configuration.
    Config(ConfigTransaction),
    /// The wish to change the configuration: orderers take it, blocks never hold it.
    ConfigUpdate(ConfigUpdateEnvelope),
}

/// The channel's new configuration.
#[derive(Clone, Debug)]
pub struct ConfigTransaction {
    /// Bytes of the envelope as received.
    pub bytes: Bytes,
    /// The configuration and the update that led to it.
    pub envelope: ConfigEnvelope,
}

/// An endorsed chaincode invocation.
#[derive(Clone, Debug)]
pub struct EndorserTransaction {
    /// Bytes of the action's own signature header.
    pub action_header: Bytes,
    /// Bytes of the chaincode proposal payload, without transient data.
    pub chaincode_proposal_payload: Bytes,
    /// Bytes of the proposal response payload: what endorsers sign, followed by their identity.
    pub proposal_response_payload: Bytes,
    /// Must be SHA-256(channel header, action header, chaincode proposal payload); the validator compares.
    pub proposal_hash: Bytes,
    /// The endorsers and their signatures.
    pub endorsements: Vec<Endorsement>,
    /// What further endorsers signed together; counts only in a channel with aggregated endorsements.
    pub aggregate: Option<AggregateEndorsement>,
    /// What the chaincode did; to be looked at after the search for duplicates.
    pub invocation: Result<Invocation, Rejection>,
}

/// What the chaincode did.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// The chaincode, as the action names it; equal in name to the one in the header.
    pub chaincode_id: ChaincodeId,
    /// The chaincode, as the channel header's extension names it.
    pub extension_chaincode: ChaincodeId,
    /// The action; its results and events are opened below.
    pub action: ChaincodeAction,
    /// What was read and written; no namespace occurs twice.
    pub rwset: TxReadWriteSet,
    /// The chaincode event, if the chaincode set one.
    pub event: Option<ChaincodeEvent>,
}

impl EndorserTransaction {
    /// Function and arguments of the call.
    ///
    /// # Errors
    /// Says which layer of the chaincode proposal payload is missing or does not parse.
    pub fn arguments(&self) -> Result<Vec<Bytes>, String> {
        let payload = ChaincodeProposalPayload::decode(self.chaincode_proposal_payload.clone())
            .map_err(|cause| format!("malformed chaincode proposal payload: {cause}"))?;
        let invocation = ChaincodeInvocationSpec::decode(payload.input)
            .map_err(|cause| format!("malformed chaincode invocation: {cause}"))?;
        let input = invocation.chaincode_spec.and_then(|spec| spec.input);
        input.map(|input| input.args).ok_or_else(|| "the chaincode invocation has no input".to_owned())
    }
}

impl Transaction {
    /// Opens an envelope out of a block, or on its way into one.
    ///
    /// # Errors
    ///
    /// With `InvalidOtherReason`, `BadPayload` or `BadCommonHeader`. Later failures are kept in [`Transaction::body`].
    /// The envelope of a genesis block has no creator and is no transaction: see [`crate::block::config_envelope`].
    pub fn open(raw: Bytes) -> Result<Self, Rejection> {
        let envelope = OpenEnvelope::open(raw.clone()).map_err(|fault| {
            let code = match fault {
                MalformedEnvelope::Envelope(_) => TxValidationCode::InvalidOtherReason,
                MalformedEnvelope::Payload(_) => TxValidationCode::BadPayload,
                _ => TxValidationCode::BadCommonHeader,
            };
            Rejection::new(code, fault.to_string())
        })?;
        let kind = check_headers(&envelope)
            .map_err(|reason| Rejection::new(TxValidationCode::BadCommonHeader, reason))?;
        let body = open_body(kind, &envelope);
        Ok(Self {
            raw,
            payload: envelope.payload,
            signature: envelope.signature,
            channel: envelope.channel_header.channel_id.clone(),
            tx_id: envelope.channel_header.tx_id.clone(),
            channel_header: envelope.channel_header,
            channel_header_bytes: envelope.channel_header_bytes,
            signature_header_bytes: envelope.signature_header_bytes,
            creator: envelope.creator,
            nonce: envelope.nonce,
            kind,
            body,
        })
    }

    /// The endorsed invocation, when the body is one and is well formed.
    #[must_use]
    pub fn endorser(&self) -> Option<&EndorserTransaction> {
        match &self.body {
            Ok(Body::Endorser(endorser)) => Some(endorser),
            _ => None,
        }
    }

    /// What the chaincode did, when all layers down to it are well formed.
    #[must_use]
    pub fn invocation(&self) -> Option<&Invocation> {
        self.endorser()?.invocation.as_ref().ok()
    }

    /// The new configuration, when the body is one and is well formed.
    #[must_use]
    pub fn config(&self) -> Option<&ConfigTransaction> {
        match &self.body {
            Ok(Body::Config(config)) => Some(config),
            _ => None,
        }
    }
}

fn check_headers(envelope: &OpenEnvelope) -> Result<HeaderType, String> {
    let known = HeaderType::try_from(envelope.channel_header.r#type);
    let Ok(kind @ (HeaderType::Config | HeaderType::ConfigUpdate | HeaderType::EndorserTransaction)) = known
    else {
        return Err(format!("invalid header type {}", envelope.channel_header.r#type));
    };
    if envelope.channel_header.epoch != 0 {
        return Err(format!("the epoch is {} instead of 0", envelope.channel_header.epoch));
    }
    if envelope.nonce.is_empty() {
        return Err("the nonce is empty".to_owned());
    }
    if envelope.creator.is_empty() {
        return Err("the creator is empty".to_owned());
    }
    Ok(kind)
}

fn open_body(kind: HeaderType, envelope: &OpenEnvelope) -> Result<Body, Rejection> {
    match kind {
        HeaderType::EndorserTransaction => open_endorser(envelope)
            .map(|endorser| Body::Endorser(Box::new(endorser)))
            .map_err(|reason| Rejection::new(TxValidationCode::InvalidEndorserTransaction, reason)),
        HeaderType::Config => open_config(&envelope.data).map(Body::Config),
        _ => envelope
            .data_as("config update envelope")
            .map(Body::ConfigUpdate)
            .map_err(|fault| Rejection::new(TxValidationCode::UnsupportedTxPayload, fault.to_string())),
    }
}

fn open_config(data: &Bytes) -> Result<ConfigTransaction, Rejection> {
    if data.is_empty() {
        let reason = "the config envelope is missing";
        return Err(Rejection::new(TxValidationCode::InvalidConfigTransaction, reason));
    }
    // Fabric has no code for it: its peers stop at such a block.
    let envelope = ConfigEnvelope::decode(data.clone()).map_err(|cause| {
        Rejection::new(TxValidationCode::NotValidated, format!("malformed config envelope: {cause}"))
    })?;
    Ok(ConfigTransaction { bytes: data.clone(), envelope })
}

fn open_endorser(envelope: &OpenEnvelope) -> Result<EndorserTransaction, String> {
    let transaction = protos::Transaction::decode(envelope.data.clone())
        .map_err(|cause| format!("malformed transaction: {cause}"))?;
    let [action] = <[_; 1]>::try_from(transaction.actions)
        .map_err(|actions| format!("exactly one action is needed, found {}", actions.len()))?;
    let header = SignatureHeader::decode(action.header.clone())
        .map_err(|cause| format!("malformed header of the action: {cause}"))?;
    if header.nonce.is_empty() || header.creator.is_empty() {
        return Err("the header of the action has no nonce or no creator".to_owned());
    }
    let payload = ChaincodeActionPayload::decode(action.payload)
        .map_err(|cause| format!("malformed chaincode action payload: {cause}"))?;
    let endorsed = payload.action.ok_or("the chaincode action payload has no action")?;
    let response = ProposalResponsePayload::decode(endorsed.proposal_response_payload.clone())
        .map_err(|cause| format!("malformed proposal response payload: {cause}"))?;
    Ok(EndorserTransaction {
        action_header: action.header,
        chaincode_proposal_payload: payload.chaincode_proposal_payload,
        proposal_response_payload: endorsed.proposal_response_payload,
        proposal_hash: response.proposal_hash,
        endorsements: endorsed.endorsements,
        aggregate: endorsed.aggregate,
        invocation: open_invocation(&envelope.channel_header.extension, &response.extension),
    })
}

fn open_invocation(header_extension: &Bytes, response_extension: &Bytes) -> Result<Invocation, Rejection> {
    let reject = |code, reason: String| Err(Rejection::new(code, reason));
    let extension = match ChaincodeHeaderExtension::decode(header_extension.clone()) {
        Ok(extension) => extension,
        Err(cause) => {
            return reject(TxValidationCode::BadHeaderExtension, format!("header extension: {cause}"));
        }
    };
    if response_extension.is_empty() {
        return reject(TxValidationCode::BadResponsePayload, "the chaincode action is missing".to_owned());
    }
    let action = match ChaincodeAction::decode(response_extension.clone()) {
        Ok(action) => action,
        Err(cause) => {
            return reject(TxValidationCode::BadResponsePayload, format!("chaincode action: {cause}"));
        }
    };
    let rwset = match TxReadWriteSet::decode(&action.results) {
        Ok(rwset) => rwset,
        Err(fault) => return reject(TxValidationCode::BadRwset, fault.to_string()),
    };
    let (Some(extension_chaincode), Some(chaincode_id)) =
        (extension.chaincode_id, action.chaincode_id.clone())
    else {
        return reject(TxValidationCode::InvalidOtherReason, "a chaincode id is missing".to_owned());
    };
    check_chaincode(&extension_chaincode, &chaincode_id)?;
    let event = open_event(&action.events, &chaincode_id.name)?;
    if let Some(namespace) = repeated_namespace(&rwset) {
        return reject(TxValidationCode::IllegalWriteset, format!("namespace {namespace} occurs twice"));
    }
    Ok(Invocation { chaincode_id, extension_chaincode, action, rwset, event })
}

fn check_chaincode(extension: &ChaincodeId, action: &ChaincodeId) -> Result<(), Rejection> {
    let reason = if extension.name.is_empty() {
        "the chaincode name is empty".to_owned()
    } else if extension.name != action.name {
        format!("the header names chaincode {:?}, the action {:?}", extension.name, action.name)
    } else if action.version.is_empty() {
        "the chaincode version is empty".to_owned()
    } else {
        return Ok(());
    };
    Err(Rejection::new(TxValidationCode::InvalidChaincode, reason))
}

fn open_event(events: &Bytes, chaincode: &str) -> Result<Option<ChaincodeEvent>, Rejection> {
    if events.is_empty() {
        return Ok(None);
    }
    let reject = |reason| Err(Rejection::new(TxValidationCode::InvalidOtherReason, reason));
    match ChaincodeEvent::decode(events.clone()) {
        Ok(event) if event.chaincode_id == chaincode => Ok(Some(event)),
        Ok(event) => {
            reject(format!("the event names chaincode {:?} instead of {chaincode:?}", event.chaincode_id))
        }
        Err(cause) => reject(format!("malformed chaincode event: {cause}")),
    }
}

fn repeated_namespace(rwset: &TxReadWriteSet) -> Option<&str> {
    let mut names: Vec<&str> = rwset.namespaces.iter().map(|set| set.namespace.as_str()).collect();
    names.sort_unstable();
    names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}
