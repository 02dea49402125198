//! What clients and operators ask of the orderers of a test.

use bytes::Bytes;
use consort_crypto::{issue::CertificateAuthority, key::PrivateKey, name::DistinguishedName};
use consort_msp::SigningIdentity;
use consort_node::dial::{ClientIdentity, Dialer};
use consort_protos::{
    envelope,
    fabric::{
        common::{Block, ChannelHeader, Envelope, HeaderType, SignatureHeader, Status},
        orderer::{
            BroadcastResponse, DeliverResponse, SeekInfo, SeekNewest, SeekPosition, SeekSpecified,
            atomic_broadcast_client::AtomicBroadcastClient, deliver_response::Type, seek_position,
        },
    },
};
use prost::Message as _;
use tokio_stream::StreamExt as _;

use super::{CHANNEL, Network, PATIENCE, Running, eventually, host, now, validity};

impl Network {
    /// Status and body of the description of one channel, or of another path below the channels.
    pub(crate) async fn describe(&self, index: usize, path: &str) -> (u16, serde_json::Value) {
        let (client, base) = self.admin(index);
        let url = format!("{base}/{path}");
        let response = client.get(url.trim_end_matches('/')).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    /// Status and body of the removal of a channel.
    pub(crate) async fn remove(&self, index: usize, channel: &str) -> (u16, String) {
        let (client, base) = self.admin(index);
        let response = client.delete(format!("{base}/{channel}")).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// Waits until the description of a channel has this relation, status and height.
    pub(crate) async fn until(&self, index: usize, channel: &str, wanted: (&str, &str, u64)) {
        eventually(async || {
            let (_, is) = self.describe(index, channel).await;
            let matches =
                is["consensusRelation"] == wanted.0 && is["status"] == wanted.1 && is["height"] == wanted.2;
            matches.then_some(())
        })
        .await;
    }

    /// The admin API of one orderer, as seen by a client with a certificate of the orderers' TLS authority.
    pub(crate) fn admin(&self, index: usize) -> (reqwest::Client, String) {
        consort_crypto::tls::install_default_provider();
        let (certificate, key) = self.orderers.tls("admin.example.com");
        let pem = format!("{}{}", certificate.pem(), key.to_pem().as_str());
        let address = self.configs[index].admin.address.parse().unwrap();
        let client = reqwest::Client::builder()
            .use_rustls_tls()
            .identity(reqwest::Identity::from_pem(pem.as_bytes()).unwrap())
            .add_root_certificate(
                reqwest::Certificate::from_pem(self.orderers.tls_ca.certificate().pem().as_bytes()).unwrap(),
            )
            .resolve(&host(index), address)
            .build()
            .unwrap();
        let base = format!("https://{}:{}/participation/v1/channels", host(index), address.port());
        (client, base)
    }

    /// Status and body of one of the operations' paths.
    pub(crate) async fn operations(&self, index: usize, path: &str) -> (u16, String) {
        consort_crypto::tls::install_default_provider();
        let address = self.operations_address(index);
        let response = reqwest::get(format!("http://{address}{path}")).await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    pub(crate) async fn join(&self, index: usize, block: Vec<u8>) -> (u16, String) {
        let (client, base) = self.admin(index);
        let part = reqwest::multipart::Part::bytes(block).file_name("genesis.block");
        let form = reqwest::multipart::Form::new().part("config-block", part);
        let response = client.post(base).multipart(form).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// Status and body of an operator's word that the channel goes on with this orderer alone.
    pub(crate) async fn recover(&self, index: usize) -> (u16, String) {
        let (client, base) = self.admin(index);
        let url = base.replace("/participation/v1/channels", "/consort/v1/channels");
        let response = client.post(format!("{url}/{CHANNEL}/recover")).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// A client's connection to one orderer.
    pub(crate) fn client(&self, index: usize) -> AtomicBroadcastClient<tonic::transport::Channel> {
        let overrides = self.configs[index].host_overrides.clone();
        let port = self.configs[index].listen.address.rsplit_once(':').unwrap().1;
        let roots = [self.orderers.tls_ca.certificate().pem()];
        let channel =
            Dialer::new(overrides, None).connect(&format!("{}:{port}", host(index)), &roots).unwrap();
        AtomicBroadcastClient::new(channel).max_decoding_message_size(100 * 1024 * 1024)
    }

    /// A connection to one orderer with the TLS certificate of another organisation's node.
    pub(crate) fn channel_of_stranger(&self, index: usize) -> tonic::transport::Channel {
        let (certificate, key) = self.members.tls("stranger.example.com");
        let identity = ClientIdentity::from_pem(certificate.pem().as_bytes(), key.to_pem().as_bytes());
        self.channel_as(index, identity)
    }

    /// A connection to one orderer with the TLS certificate of another one.
    pub(crate) fn channel_of(&self, index: usize, other: usize) -> tonic::transport::Channel {
        let tls = &self.configs[other].tls;
        let read = |path: &std::path::Path| std::fs::read(path).unwrap();
        self.channel_as(index, ClientIdentity::from_pem(&read(&tls.cert), &read(&tls.key)))
    }

    /// A connection to one orderer with a certificate that holds the key of another one and is signed by nobody else.
    pub(crate) fn channel_of_key(&self, index: usize, other: usize) -> tonic::transport::Channel {
        let text = std::fs::read_to_string(&self.configs[other].tls.key).unwrap();
        let name = DistinguishedName::common_name("self-made");
        let key = PrivateKey::from_pem(&text).unwrap();
        let made = CertificateAuthority::new_root(&name, key, validity()).unwrap();
        let certificate = made.certificate().pem();
        self.channel_as(index, ClientIdentity::from_pem(certificate.as_bytes(), text.as_bytes()))
    }

    fn channel_as(&self, index: usize, identity: ClientIdentity) -> tonic::transport::Channel {
        let overrides = self.configs[index].host_overrides.clone();
        let port = self.configs[index].listen.address.rsplit_once(':').unwrap().1;
        let roots = [self.orderers.tls_ca.certificate().pem()];
        Dialer::new(overrides, Some(identity)).connect(&format!("{}:{port}", host(index)), &roots).unwrap()
    }

    /// Sends one envelope and returns the answer.
    pub(crate) async fn broadcast(&self, index: usize, envelope: Envelope) -> BroadcastResponse {
        let mut client = self.client(index);
        let mut responses = client.broadcast(tokio_stream::once(envelope)).await.unwrap().into_inner();
        responses.message().await.unwrap().unwrap()
    }

    /// Sends an envelope until it is ordered: there may be no leader yet, or it may go before it has answered. What it took has an effect all the
    /// same, and an update of the configuration that is sent again then does not fit its own effect.
    pub(crate) async fn order(&self, index: usize, envelope: &Envelope) {
        let mut may_be_ordered = false;
        eventually(async || {
            let response = self.broadcast(index, envelope.clone()).await;
            let is_ordered_already = may_be_ordered && response.info.contains("attempt to set key");
            match response.status() {
                Status::Success => Some(()),
                Status::BadRequest if is_ordered_already => Some(()),
                Status::ServiceUnavailable => {
                    may_be_ordered = true;
                    None
                }
                _ => panic!("{response:?}"),
            }
        })
        .await;
    }

    /// A block from one orderer; waits until it is there.
    pub(crate) async fn block(&self, index: usize, number: u64) -> Block {
        let at = SeekPosition { r#type: Some(seek_position::Type::Specified(SeekSpecified { number })) };
        eventually(async || self.seek(index, at).await.ok()).await
    }

    pub(crate) async fn height(&self, index: usize) -> u64 {
        let at = SeekPosition { r#type: Some(seek_position::Type::Newest(SeekNewest {})) };
        let newest = eventually(async || self.seek(index, at).await.ok()).await;
        newest.header.unwrap().number + 1
    }

    /// All blocks that one orderer has now.
    pub(crate) async fn blocks(&self, index: usize) -> Vec<Block> {
        let at = |position| Some(SeekPosition { r#type: Some(position) });
        let height = self.height(index).await;
        let seek = SeekInfo {
            start: at(seek_position::Type::Specified(SeekSpecified { number: 0 })),
            stop: at(seek_position::Type::Specified(SeekSpecified { number: height - 1 })),
            ..SeekInfo::default()
        };
        let client = self.members.identity("client");
        let request = sign(&client, CHANNEL, HeaderType::DeliverSeekInfo, seek.encode_to_vec());
        let mut responses =
            self.client(index).deliver(tokio_stream::once(request)).await.unwrap().into_inner();
        let mut blocks = Vec::new();
        while blocks.len() as u64 != height {
            let next = tokio::time::timeout(PATIENCE, responses.message()).await.expect("no block in time");
            match next.unwrap().unwrap().r#type.unwrap() {
                Type::Block(block) => blocks.push(block),
                Type::Status(status) => panic!("the range ended with status {status}"),
            }
        }
        blocks
    }

    /// Whoever leads the channel, as soon as somebody does.
    pub(crate) async fn leader(&self) -> usize {
        let leads = format!("orderer_is_leader{{channel=\"{CHANNEL}\"}} 1");
        eventually(async || {
            for (index, running) in self.running.iter().enumerate() {
                if !matches!(running, Running::Not)
                    && self.operations(index, "/metrics").await.1.contains(&leads)
                {
                    return Some(index);
                }
            }
            None
        })
        .await
    }

    async fn seek(&self, index: usize, at: SeekPosition) -> Result<Block, Status> {
        let seek = SeekInfo { start: Some(at), stop: Some(at), ..SeekInfo::default() };
        let request = sign(
            &self.members.identity("client"),
            CHANNEL,
            HeaderType::DeliverSeekInfo,
            seek.encode_to_vec(),
        );
        self.deliver(index, request).await
    }

    /// Sends one deliver request; the block or the status that comes first.
    pub(crate) async fn deliver(&self, index: usize, request: Envelope) -> Result<Block, Status> {
        let mut responses =
            self.client(index).deliver(tokio_stream::once(request)).await.unwrap().into_inner();
        let first = tokio::time::timeout(PATIENCE, responses.message()).await.expect("no block in time");
        match first.unwrap().unwrap().r#type.unwrap() {
            Type::Block(block) => Ok(block),
            Type::Status(status) => Err(Status::try_from(status).unwrap()),
        }
    }

    /// The numbers of the blocks and the status that answer one request.
    pub(crate) async fn range(&self, index: usize, request: Envelope) -> (Vec<u64>, Status) {
        let mut responses =
            self.client(index).deliver(tokio_stream::once(request)).await.unwrap().into_inner();
        let mut numbers = Vec::new();
        loop {
            let next = tokio::time::timeout(PATIENCE, responses.message()).await.expect("no answer in time");
            match next.unwrap().unwrap().r#type.unwrap() {
                Type::Block(block) => numbers.push(block.header.unwrap().number),
                Type::Status(status) => return (numbers, Status::try_from(status).unwrap()),
            }
        }
    }

    /// A reader of all blocks from one on, for ever.
    pub(crate) async fn read_from(&self, index: usize, number: u64) -> tonic::Streaming<DeliverResponse> {
        let at = |number| {
            Some(SeekPosition { r#type: Some(seek_position::Type::Specified(SeekSpecified { number })) })
        };
        let seek = SeekInfo { start: at(number), stop: at(u64::MAX), ..SeekInfo::default() };
        let client = self.members.identity("client");
        let request = sign(&client, CHANNEL, HeaderType::DeliverSeekInfo, seek.encode_to_vec());
        let requests = tokio_stream::once(request).chain(tokio_stream::pending());
        self.client(index).deliver(requests).await.unwrap().into_inner()
    }

    pub(crate) fn message(&self, data: &str) -> Envelope {
        sign(&self.members.identity("client"), CHANNEL, HeaderType::EndorserTransaction, data.into())
    }
}

/// An envelope signed by its creator.
pub(crate) fn sign(creator: &SigningIdentity, channel: &str, kind: HeaderType, data: Vec<u8>) -> Envelope {
    let header = ChannelHeader {
        r#type: kind as i32,
        channel_id: channel.to_owned(),
        timestamp: Some(prost_types::Timestamp { seconds: now().unix_timestamp(), nanos: 0 }),
        ..ChannelHeader::default()
    };
    sign_named(creator, creator.serialized().clone(), &header, data)
}

/// An envelope signed by an identity that stands in it in the given form.
pub(crate) fn sign_named(
    creator: &SigningIdentity,
    named: Bytes,
    header: &ChannelHeader,
    data: Vec<u8>,
) -> Envelope {
    let nonce = Bytes::copy_from_slice(&[3; 24]);
    let signature_header = SignatureHeader { creator: named, nonce };
    let payload = envelope::payload(header, &signature_header, data.into());
    let signature = creator.sign(&payload).unwrap();
    Envelope { payload, signature: signature.into(), ..Envelope::default() }
}
