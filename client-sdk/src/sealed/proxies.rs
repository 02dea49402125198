//! The peers that serve as proxies, and what is checked before one is believed.

use std::error::Error as _;
use std::time::Duration;

use bytes::Bytes;
use consort_crypto::certificate::Certificate;
use consort_protos::consort::sealed::{
    DepositRequest, DescribeRequest, Description, Party, Question, Receipt, SignedFragment, SignedQuestion,
    proxy_client::ProxyClient,
};
use consort_protos::fabric::msp::SerializedIdentity;
use consort_protos::sealed::{DESCRIPTION_TAG, FRAGMENT_TAG, QUESTION_TAG, RECEIPT_TAG, signed_message};
use prost::Message;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::connection::Endpoint;
use crate::error::Error;
use crate::identity::ClientIdentity;

/// How long a proxy may take: it waits up to two seconds for the block of a request itself.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// A peer that may serve as a proxy, and the organisation that it must belong to. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ProxyPeer {
    address: String,
    msp_id: String,
    client: ProxyClient<Channel>,
}

impl ProxyPeer {
    /// A peer of an organisation; the connection opens with the first call.
    ///
    /// # Errors
    /// [`Error::Address`], or TLS roots that cannot be read.
    pub fn new(msp_id: impl Into<String>, endpoint: &Endpoint) -> Result<Self, Error> {
        let client = ProxyClient::new(endpoint.connect_lazily()?);
        Ok(Self { address: endpoint.address.clone(), msp_id: msp_id.into(), client })
    }

    /// `host:port`, by which grants name it.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The organisation.
    #[must_use]
    pub fn msp_id(&self) -> &str {
        &self.msp_id
    }

    /// Who the peer is, and which keys shares for it are sealed to: its signature and organisation are checked.
    ///
    /// # Errors
    /// In words, why the peer cannot serve.
    pub async fn describe(&self, channel: &str) -> Result<Description, String> {
        let request = timed(DescribeRequest { channel: channel.to_owned() });
        let answer = self.client.clone().describe(request).await.map_err(|status| in_words(&status))?;
        let signed = answer.into_inner();
        let peer = checked_signer(DESCRIPTION_TAG, &signed.description, &signed.identity, &signed.signature)?;
        let description = Description::decode(signed.description)
            .map_err(|error| format!("its description cannot be read: {error}"))?;
        if description.channel != channel || description.peer.as_ref() != Some(&peer) {
            return Err("its description is about another channel or peer".to_owned());
        }
        if peer.msp_id != self.msp_id {
            return Err(format!("it is of {}, not of {}", peer.msp_id, self.msp_id));
        }
        Ok(description)
    }

    /// Hands over a share, and returns the receipt after checking it.
    pub(super) async fn deposit(
        &self,
        deposit: &DepositRequest,
        proxy: &Party,
        sha256: &[u8],
    ) -> Result<Receipt, String> {
        let answer = self.client.clone().deposit(timed(deposit.clone())).await;
        let signed = answer.map_err(|status| in_words(&status))?.into_inner();
        let peer = checked_signer(RECEIPT_TAG, &signed.receipt, &signed.identity, &signed.signature)?;
        let receipt = Receipt::decode(signed.receipt)
            .map_err(|error| format!("its receipt cannot be read: {error}"))?;
        let same = receipt.channel == deposit.channel
            && receipt.grant == deposit.grant
            && receipt.index == deposit.index
            && receipt.sealed_share_sha256[..] == *sha256;
        if peer != *proxy || !same {
            return Err("its receipt is for another share or by another peer".to_owned());
        }
        Ok(receipt)
    }

    /// Asks for the fragment of a request. The signature of the answer is checked, so that a wrong fragment convicts the proxy; the
    /// fragment is not.
    pub(super) async fn answer(
        &self,
        identity: &ClientIdentity,
        question: &Question,
        proxy: &Party,
    ) -> Result<SignedFragment, String> {
        let question = Bytes::from(question.encode_to_vec());
        let signature = identity
            .sign(&signed_message(QUESTION_TAG, &question))
            .map_err(|error| format!("the question cannot be signed: {error}"))?;
        let signed = SignedQuestion { question, identity: identity.serialized().clone(), signature };
        let answer = self.client.clone().answer(timed(signed)).await;
        let signed = answer.map_err(|status| in_words(&status))?.into_inner();
        let peer = checked_signer(FRAGMENT_TAG, &signed.answer, &signed.identity, &signed.signature)?;
        if peer == *proxy { Ok(signed) } else { Err("its answer is signed by another peer".to_owned()) }
    }
}

fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    request
}

/// A refusal without gRPC's vocabulary, as far as it needs none.
fn in_words(status: &Status) -> String {
    match status.code() {
        Code::Unimplemented => "it does not have the role of a proxy (sealed.proxy)".to_owned(),
        // What this side found out itself has a cause; the proxy's own words have none.
        Code::Unavailable if status.source().is_some() || status.message().is_empty() => {
            "it does not answer".to_owned()
        }
        Code::DeadlineExceeded | Code::Cancelled => {
            format!("it does not answer within {} s", CALL_TIMEOUT.as_secs())
        }
        _ => status.message().to_owned(),
    }
}

/// Verifies a signature with the certificate that came with it, and says who that is.
fn checked_signer(tag: &str, bytes: &[u8], identity: &[u8], signature: &[u8]) -> Result<Party, String> {
    let (party, certificate) = certified(identity)?;
    certificate
        .public_key()
        .verify(&signed_message(tag, bytes), signature)
        .map_err(|error| format!("its signature does not hold: {error}"))?;
    Ok(party)
}

/// How grants name the holder of a serialised identity.
pub(super) fn party_of(identity: &[u8]) -> Result<Party, String> {
    certified(identity).map(|(party, _)| party)
}

fn certified(identity: &[u8]) -> Result<(Party, Certificate), String> {
    let identity = SerializedIdentity::decode(identity).map_err(|error| format!("no identity: {error}"))?;
    let certificate = Certificate::from_pem(&identity.id_bytes)
        .map_err(|error| format!("an identity without a certificate: {error}"))?;
    let id = format!("x509::{}::{}", certificate.subject(), certificate.issuer());
    Ok((Party { msp_id: identity.mspid, id }, certificate))
}
