//! An orderer's channels, through its administration endpoint (REST over mutual TLS, Fabric's channel participation API).

use std::time::Duration;

use bytes::Bytes;
use reqwest::multipart::{Form, Part};
use reqwest::{Response, StatusCode};
use serde::{Deserialize, Serialize};

use crate::connection::Endpoint;
use crate::error::Error;

/// Path of the channel list (Fabric `orderer/common/channelparticipation`).
const CHANNELS: &str = "/participation/v1/channels";

/// How long a call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// A channel as the orderer describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChannelStatus {
    /// Channel name.
    pub name: String,
    /// Path of the channel in this API.
    #[serde(default)]
    pub url: String,
    /// `consenter`, `follower`, `config-tracker` or `other`.
    #[serde(default)]
    pub consensus_relation: String,
    /// `active`, `onboarding`, `inactive` or `failed`.
    #[serde(default)]
    pub status: String,
    /// Number of blocks.
    #[serde(default)]
    pub height: u64,
}

#[derive(Deserialize)]
struct ChannelList {
    channels: Option<Vec<ListedChannel>>,
}

#[derive(Deserialize)]
struct ListedChannel {
    name: String,
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
}

/// An orderer as its administrator sees it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct OrdererAdmin {
    address: String,
    http: reqwest::Client,
}

impl OrdererAdmin {
    /// Prepares calls to an orderer's administration endpoint, which demands a TLS client certificate.
    ///
    /// # Errors
    /// [`Error::Address`], or [`Error::Unreachable`] for TLS material that cannot be used.
    pub fn new(endpoint: &Endpoint) -> Result<Self, Error> {
        consort_crypto::tls::install_default_provider();
        let unusable = |source| Error::Unreachable { endpoint: endpoint.address.clone(), source };
        let (host, _) = endpoint.host_and_port()?;
        let mut builder = reqwest::Client::builder()
            .timeout(CALL_TIMEOUT)
            .https_only(true)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        for root in reqwest::Certificate::from_pem_bundle(&endpoint.tls_roots_pem).map_err(unusable)? {
            builder = builder.add_root_certificate(root);
        }
        if let Some(identity) = &endpoint.client_tls {
            let pem = [identity.certificate_pem.as_ref(), b"\n", identity.key_pem.as_ref()].concat();
            builder = builder.identity(reqwest::Identity::from_pem(&pem).map_err(unusable)?);
        }
        if let Some(address) = endpoint.connect_to {
            builder = builder.resolve(host, address);
        }
        Ok(Self { address: endpoint.address.clone(), http: builder.build().map_err(unusable)? })
    }

    /// Joins a channel by its genesis block or a later configuration block (serialised `common.Block`).
    ///
    /// # Errors
    /// [`Error::RestRefused`] with the orderer's reason, 405 when it has joined already.
    pub async fn join(&self, config_block: Bytes) -> Result<ChannelStatus, Error> {
        let part = Part::stream(config_block).file_name("config.block");
        let form = Form::new().part("config-block", part);
        let request = self.http.post(self.url(CHANNELS)).multipart(form);
        self.decode(request.send().await).await
    }

    /// Names of the channels that the orderer has joined.
    ///
    /// # Errors
    /// As [`OrdererAdmin::join`].
    pub async fn channels(&self) -> Result<Vec<String>, Error> {
        let list: ChannelList = self.decode(self.http.get(self.url(CHANNELS)).send().await).await?;
        Ok(list.channels.unwrap_or_default().into_iter().map(|channel| channel.name).collect())
    }

    /// One channel, or `None` when the orderer has not joined it.
    ///
    /// # Errors
    /// As [`OrdererAdmin::join`].
    pub async fn channel(&self, name: &str) -> Result<Option<ChannelStatus>, Error> {
        let answer = self.http.get(self.url(&format!("{CHANNELS}/{name}"))).send().await;
        match self.decode(answer).await {
            Err(Error::RestRefused { status: 404, .. }) => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// Fetches a block (serialised `common.Block`): `newest`, `oldest`, `config` or a number.
    ///
    /// # Errors
    /// As [`OrdererAdmin::join`]; 404 for a block that does not exist.
    pub async fn block(&self, channel: &str, which: &str) -> Result<Bytes, Error> {
        let answer = self.http.get(self.url(&format!("{CHANNELS}/{channel}/blocks/{which}"))).send().await;
        self.accepted(answer).await?.bytes().await.map_err(|source| self.unreachable(source))
    }

    /// Hands in a configuration update (serialised `common.Envelope` of type CONFIG_UPDATE), and waits until it is ordered.
    ///
    /// # Errors
    /// As [`OrdererAdmin::join`], with the status of the broadcast.
    pub async fn update(&self, envelope: Bytes) -> Result<(), Error> {
        let part = Part::stream(envelope).file_name("config_update.pb");
        let form = Form::new().part("config-update-envelope", part);
        let answer = self.http.put(self.url(CHANNELS)).multipart(form).send().await;
        self.accepted(answer).await.map(|_| ())
    }

    /// Leaves a channel and forgets its blocks.
    ///
    /// # Errors
    /// As [`OrdererAdmin::join`]; 404 for a channel that it has not joined.
    pub async fn remove(&self, name: &str) -> Result<(), Error> {
        let answer = self.http.delete(self.url(&format!("{CHANNELS}/{name}"))).send().await;
        self.accepted(answer).await.map(|_| ())
    }

    /// Has a channel go on with this orderer alone, because an operator knows that the majority of its consenters has lost its logs. What only those
    /// held is lost. Consort's orderers only.
    ///
    /// # Errors
    /// As [`OrdererAdmin::join`]; 409 with the reason when the channel has a leader or can still elect one.
    pub async fn recover(&self, name: &str) -> Result<(), Error> {
        let answer = self.http.post(self.url(&format!("/consort/v1/channels/{name}/recover"))).send().await;
        self.accepted(answer).await.map(|_| ())
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    async fn decode<T: serde::de::DeserializeOwned>(
        &self,
        answer: reqwest::Result<Response>,
    ) -> Result<T, Error> {
        let body = self.accepted(answer).await?.bytes().await.map_err(|source| self.unreachable(source))?;
        serde_json::from_slice(&body).map_err(|error| Error::malformed("channel participation", error))
    }

    async fn accepted(&self, answer: reqwest::Result<Response>) -> Result<Response, Error> {
        let response = answer.map_err(|source| self.unreachable(source))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        Err(self.refused(status, &response.bytes().await.unwrap_or_default()))
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> Error {
        let message = serde_json::from_slice::<Refusal>(body)
            .map_or_else(|_| String::from_utf8_lossy(body).into_owned(), |refusal| refusal.error);
        Error::RestRefused { endpoint: self.address.clone(), status: status.as_u16(), message }
    }

    fn unreachable(&self, source: reqwest::Error) -> Error {
        Error::Unreachable { endpoint: self.address.clone(), source }
    }
}
