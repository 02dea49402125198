//! Endorser transactions, every layer of which can be broken before it is sealed.

use std::sync::Arc;

use bytes::Bytes;
use consort_crypto::preimage;
use consort_msp::SigningIdentity;
use consort_protos::fabric::common::{ChannelHeader, Envelope, Header, HeaderType, Payload, SignatureHeader};
use consort_protos::fabric::protos::{
    ChaincodeAction, ChaincodeActionPayload, ChaincodeEndorsedAction, ChaincodeEvent,
    ChaincodeHeaderExtension, ChaincodeId, ChaincodeInput, ChaincodeInvocationSpec, ChaincodeSpec,
    Endorsement, ProposalResponsePayload, Response, Transaction as TransactionMessage, TransactionAction,
};
use consort_protos::proposal::chaincode_proposal_payload_without_transient;
use consort_protos::rwset::{NamespaceReadWriteSet, TxReadWriteSet, Write};
use prost::Message;

use super::CHANNEL;

/// A public write.
pub(crate) fn write(key: &str, value: &[u8]) -> Write {
    Write { key: key.to_owned(), is_delete: value.is_empty(), value: Bytes::copy_from_slice(value) }
}

/// A read-write set with public writes to one namespace.
pub(crate) fn writes(namespace: &str, writes: Vec<Write>) -> TxReadWriteSet {
    TxReadWriteSet {
        namespaces: vec![NamespaceReadWriteSet {
            namespace: namespace.to_owned(),
            writes,
            ..NamespaceReadWriteSet::default()
        }],
    }
}

/// A change of one opened layer, before the layers around it are signed.
pub(crate) type Change<T> = Option<Box<dyn Fn(&mut T)>>;

/// Builds an endorser transaction. Each layer can be changed before it is sealed, so that everything outside of the change
/// is right.
pub(crate) struct TransactionBuilder {
    pub(crate) creator: Arc<SigningIdentity>,
    pub(crate) nonce: Bytes,
    pub(crate) channel: String,
    pub(crate) chaincode: String,
    pub(crate) version: String,
    pub(crate) arguments: Vec<Bytes>,
    pub(crate) set: TxReadWriteSet,
    pub(crate) endorsers: Vec<Arc<SigningIdentity>>,
    pub(crate) change_channel_header: Change<ChannelHeader>,
    pub(crate) change_signature_header: Change<SignatureHeader>,
    pub(crate) change_action: Change<ChaincodeAction>,
    pub(crate) change_response: Change<ProposalResponsePayload>,
    pub(crate) change_endorsements: Change<Vec<Endorsement>>,
    pub(crate) change_action_payload: Change<ChaincodeActionPayload>,
    pub(crate) change_transaction: Change<TransactionMessage>,
    pub(crate) change_payload: Change<Payload>,
    pub(crate) change_envelope: Change<Envelope>,
}

impl TransactionBuilder {
    pub(crate) fn new(creator: Arc<SigningIdentity>, chaincode: &str) -> Self {
        let nonce: [u8; 24] = rand::random();
        Self {
            creator,
            nonce: Bytes::copy_from_slice(&nonce),
            channel: CHANNEL.to_owned(),
            chaincode: chaincode.to_owned(),
            version: "1".to_owned(),
            arguments: Vec::new(),
            set: writes(chaincode, vec![write("key", b"value")]),
            endorsers: Vec::new(),
            change_channel_header: None,
            change_signature_header: None,
            change_action: None,
            change_response: None,
            change_endorsements: None,
            change_action_payload: None,
            change_transaction: None,
            change_payload: None,
            change_envelope: None,
        }
    }

    pub(crate) fn set(mut self, set: TxReadWriteSet) -> Self {
        self.set = set;
        self
    }

    pub(crate) fn endorsed_by(mut self, endorsers: &[&Arc<SigningIdentity>]) -> Self {
        self.endorsers = endorsers.iter().map(|endorser| Arc::clone(endorser)).collect();
        self
    }

    pub(crate) fn event(mut self, name: &str, payload: &[u8]) -> Self {
        let event = ChaincodeEvent {
            chaincode_id: self.chaincode.clone(),
            tx_id: self.tx_id(),
            event_name: name.to_owned(),
            payload: Bytes::copy_from_slice(payload),
        };
        let bytes = Bytes::from(event.encode_to_vec());
        self.change_action = Some(Box::new(move |action| action.events = bytes.clone()));
        self
    }

    pub(crate) fn tx_id(&self) -> String {
        preimage::tx_id(&self.nonce, self.creator.serialized())
    }

    pub(crate) fn build(&self) -> Bytes {
        let (channel_header, signature_header) = self.headers();
        let proposal_payload = self.proposal_payload();
        let mut action = ChaincodeAction {
            results: self.set.encode(),
            events: Bytes::new(),
            response: Some(Response { status: 200, ..Response::default() }),
            chaincode_id: Some(ChaincodeId {
                name: self.chaincode.clone(),
                version: self.version.clone(),
                ..ChaincodeId::default()
            }),
        };
        apply(&self.change_action, &mut action);
        let hash = preimage::proposal_hash(&channel_header, &signature_header, &proposal_payload);
        let mut response = ProposalResponsePayload {
            proposal_hash: Bytes::copy_from_slice(&hash),
            extension: action.encode_to_vec().into(),
        };
        apply(&self.change_response, &mut response);
        let response = Bytes::from(response.encode_to_vec());
        let mut endorsements = self.endorsements(&response);
        apply(&self.change_endorsements, &mut endorsements);
        let mut action_payload = ChaincodeActionPayload {
            chaincode_proposal_payload: proposal_payload,
            action: Some(ChaincodeEndorsedAction {
                proposal_response_payload: response,
                endorsements,
                aggregate: None,
            }),
        };
        apply(&self.change_action_payload, &mut action_payload);
        let mut transaction = TransactionMessage {
            actions: vec![TransactionAction {
                header: signature_header.clone(),
                payload: action_payload.encode_to_vec().into(),
            }],
        };
        apply(&self.change_transaction, &mut transaction);
        let mut payload = Payload {
            header: Some(Header { channel_header, signature_header }),
            data: transaction.encode_to_vec().into(),
        };
        apply(&self.change_payload, &mut payload);
        self.seal(&payload)
    }

    fn proposal_payload(&self) -> Bytes {
        if self.arguments.is_empty() {
            return Bytes::from_static(b"\x0a\x00");
        }
        let input = ChaincodeInput { args: self.arguments.clone(), ..ChaincodeInput::default() };
        let spec = ChaincodeSpec { input: Some(input), ..ChaincodeSpec::default() };
        let invocation = ChaincodeInvocationSpec { chaincode_spec: Some(spec) };
        chaincode_proposal_payload_without_transient(invocation.encode_to_vec().into())
    }

    fn headers(&self) -> (Bytes, Bytes) {
        let mut signature_header =
            SignatureHeader { creator: self.creator.serialized().clone(), nonce: self.nonce.clone() };
        apply(&self.change_signature_header, &mut signature_header);
        let extension = ChaincodeHeaderExtension {
            chaincode_id: Some(ChaincodeId { name: self.chaincode.clone(), ..ChaincodeId::default() }),
        };
        let mut channel_header = ChannelHeader {
            r#type: HeaderType::EndorserTransaction as i32,
            channel_id: self.channel.clone(),
            tx_id: preimage::tx_id(&signature_header.nonce, &signature_header.creator),
            extension: extension.encode_to_vec().into(),
            ..ChannelHeader::default()
        };
        apply(&self.change_channel_header, &mut channel_header);
        (channel_header.encode_to_vec().into(), signature_header.encode_to_vec().into())
    }

    fn endorsements(&self, response: &Bytes) -> Vec<Endorsement> {
        self.endorsers
            .iter()
            .map(|endorser| Endorsement {
                endorser: endorser.serialized().clone(),
                signature: endorser
                    .sign(&preimage::endorsement(response, endorser.serialized()))
                    .expect("a signature")
                    .into(),
            })
            .collect()
    }

    fn seal(&self, payload: &Payload) -> Bytes {
        let payload = Bytes::from(payload.encode_to_vec());
        let signature = self.creator.sign(&payload).expect("a signature").into();
        let mut envelope = Envelope { payload, signature, ..Envelope::default() };
        apply(&self.change_envelope, &mut envelope);
        envelope.encode_to_vec().into()
    }
}

fn apply<T>(change: &Change<T>, value: &mut T) {
    if let Some(change) = change {
        change(value);
    }
}
