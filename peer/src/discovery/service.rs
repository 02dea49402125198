//! The service: who asks, what may be answered.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use consort_crypto::hash::sha256;
use consort_msp::policy::SignedData;
use consort_msp::principal::Role;
use consort_node::Clock;
use consort_node::server::PeerCertificate;
use consort_protos::fabric::discovery::discovery_server::Discovery as DiscoveryRpc;
use consort_protos::fabric::discovery::{
    ChaincodeQuery, ChaincodeQueryResult, Error as ErrorResult, PeerMembershipQuery, Query, QueryResult,
    Request as DiscoveryRequest, Response as DiscoveryResponse, SignedRequest, query, query_result,
};
use consort_protos::fabric::protos::ChaincodeInterest;
use prost::Message;
use tonic::{Request, Response, Status};

use super::answers;
use crate::channel::ChannelHandle;
use crate::endorser::Access;
use crate::gateway::{Directory, Member, plan};
use crate::registry::Channels;

/// The policy that a channel's members satisfy to ask about it. It is no entry of the access control list (Fabric
/// `discovery/support/acl`).
const CHANNEL_POLICY: &str = "/Channel/Application/Writers";
/// What anybody gets who may not ask, or asks about what does not exist.
const DENIED: &str = "access denied";
/// Most queries in one request. Fabric's clients ask three; each costs an evaluation of a policy at most.
const QUERIES_MAX: usize = 32;

/// What the service is made of.
pub struct DiscoverySetup {
    /// The joined channels.
    pub channels: Arc<Channels>,
    /// The known peers.
    pub directory: Arc<dyn Directory>,
    /// Roles in the own organisation: its administrators may ask about peers without naming a channel.
    pub access: Arc<Access>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The listener requires client certificates, so that each request must name the one it came with.
    pub tls_binding: bool,
}

/// The discovery service. Cheap to clone.
#[derive(Clone)]
pub struct Discovery {
    setup: Arc<DiscoverySetup>,
}

impl std::fmt::Debug for Discovery {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Discovery")
            .field("tls_binding", &self.setup.tls_binding)
            .finish_non_exhaustive()
    }
}

/// A request whose form is right: who signed what, and the queries.
struct Asked {
    signed: SignedData,
    queries: Vec<Query>,
}

impl Discovery {
    /// Makes the service.
    #[must_use]
    pub fn new(setup: DiscoverySetup) -> Self {
        Self { setup: Arc::new(setup) }
    }

    fn open(&self, request: SignedRequest, peer: Option<&PeerCertificate>) -> Result<Asked, String> {
        let opened = DiscoveryRequest::decode(request.payload.clone())
            .map_err(|error| format!("failed parsing request: {error}"))?;
        let authentication =
            opened.authentication.ok_or("access denied, no authentication info in request")?;
        if authentication.client_identity.is_empty() {
            return Err("access denied, client identity wasn't supplied".to_owned());
        }
        if self.setup.tls_binding {
            let certificate = peer.and_then(|peer| peer.0.as_ref());
            let certificate = certificate.ok_or("client didn't send a TLS certificate")?;
            if authentication.client_tls_cert_hash != sha256(certificate).as_slice() {
                return Err(
                    "client claimed TLS hash doesn't match computed TLS hash from gRPC stream".to_owned()
                );
            }
        }
        if opened.queries.len() > QUERIES_MAX {
            return Err(format!("a request holds at most {QUERIES_MAX} queries"));
        }
        let identity = authentication.client_identity;
        let signed = SignedData { identity, message: request.payload, signature: request.signature };
        Ok(Asked { signed, queries: opened.queries })
    }

    async fn answer(&self, signed: &SignedData, query: Query) -> QueryResult {
        let Some(content) = query.query else { return error("unknown or missing request type".to_owned()) };
        if let query::Query::LocalPeers(_) = content {
            return self.local_peers(signed);
        }
        let channel = match self.permitted(&query.channel, signed) {
            Ok(channel) => channel,
            Err(reason) => {
                tracing::info!(channel = %query.channel, %reason, "a discovery request was denied");
                return error(DENIED.to_owned());
            }
        };
        match content {
            query::Query::ConfigQuery(_) => {
                result(query_result::Result::ConfigResult(answers::config(&channel.bundle())))
            }
            query::Query::PeerQuery(peers) => self.peers(&channel, peers).await,
            query::Query::CcQuery(chaincodes) => self.endorsers(&channel, chaincodes).await,
            query::Query::LocalPeers(_) => unreachable!("answered above"),
        }
    }

    /// The channel, when the caller satisfies its policy.
    fn permitted(&self, channel: &str, signed: &SignedData) -> Result<Arc<ChannelHandle>, String> {
        let handle = self.setup.channels.get(channel).ok_or("this peer has not joined the channel")?;
        let bundle = handle.bundle();
        let identity = bundle.msps().deserialize(&signed.identity).map_err(|error| error.to_string())?;
        if identity.expires_at() <= self.setup.clock.now() {
            return Err(format!("the certificate of {identity} has expired"));
        }
        let policy = bundle
            .policies()
            .policy(CHANNEL_POLICY)
            .ok_or_else(|| format!("there is no policy {CHANNEL_POLICY}"))?;
        policy.evaluate(std::slice::from_ref(signed)).map_err(|error| error.to_string())?;
        Ok(handle)
    }

    async fn peers(&self, channel: &ChannelHandle, query: PeerMembershipQuery) -> QueryResult {
        let mut members = self.setup.directory.members(channel);
        if let Some(filter) = query.filter.filter(|filter| !filter.chaincodes.is_empty()) {
            match self.eligible(channel, &filter, &members) {
                Ok(eligible) => members = eligible,
                Err(reason) => return error(reason),
            }
        }
        result(query_result::Result::Members(answers::members(&members, channel.id().as_str())))
    }

    /// Peers that can serve an interest, whether they suffice for its policies or not.
    fn eligible(
        &self,
        channel: &ChannelHandle,
        filter: &ChaincodeInterest,
        members: &[Member],
    ) -> Result<Vec<Member>, String> {
        answers::check_interest(filter)?;
        plan::eligible(channel, filter, members)
    }

    async fn endorsers(&self, channel: &ChannelHandle, query: ChaincodeQuery) -> QueryResult {
        if query.interests.is_empty() {
            return error("chaincode query must have at least one chaincode interest".to_owned());
        }
        if query.interests.len() > QUERIES_MAX {
            return error(format!("a chaincode query holds at most {QUERIES_MAX} interests"));
        }
        let mut content = Vec::with_capacity(query.interests.len());
        for interest in &query.interests {
            if let Err(reason) = answers::check_interest(interest) {
                return error(reason);
            }
            match self.descriptor(channel, interest).await {
                Ok(descriptor) => content.push(descriptor),
                Err(cause) => {
                    let what = answers::text(interest);
                    tracing::info!(channel = %channel.id(), %cause, "no endorsement descriptor");
                    return error(format!("failed constructing descriptor for {what}: {cause}"));
                }
            }
        }
        result(query_result::Result::CcQueryRes(ChaincodeQueryResult { content }))
    }

    /// Makes a descriptor; asks the other peers for news once when the known ones are not enough.
    async fn descriptor(
        &self,
        channel: &ChannelHandle,
        interest: &ChaincodeInterest,
    ) -> Result<consort_protos::fabric::discovery::EndorsementDescriptor, String> {
        let attempt = || {
            let members = self.setup.directory.members(channel);
            answers::descriptor(channel, interest, &members)
        };
        if let Ok(descriptor) = attempt() {
            return Ok(descriptor);
        }
        self.setup.directory.refresh(channel).await;
        attempt()
    }

    /// The peers that this one knows of, in whatever channel; for administrators of its own organisation.
    fn local_peers(&self, signed: &SignedData) -> QueryResult {
        if let Err(reason) = self.administrator(signed) {
            tracing::info!(%reason, "a discovery request about local peers was denied");
            return error(DENIED.to_owned());
        }
        let mut known: BTreeMap<Bytes, Member> = BTreeMap::new();
        for channel in self.setup.channels.list() {
            for member in self.setup.directory.members(&channel) {
                known.entry(member.identity.clone()).or_insert(member);
            }
        }
        let members: Vec<Member> = known.into_values().collect();
        result(query_result::Result::Members(answers::processes(&members)))
    }

    fn administrator(&self, signed: &SignedData) -> Result<(), String> {
        let access = &self.setup.access;
        let identity =
            access.local_msps().deserialize(&signed.identity).map_err(|error| error.to_string())?;
        if identity.expires_at() <= self.setup.clock.now() {
            return Err(format!("the certificate of {identity} has expired"));
        }
        identity.verify(&signed.message, &signed.signature).map_err(|error| error.to_string())?;
        access.local(Role::Admin, &identity)
    }
}

fn result(content: query_result::Result) -> QueryResult {
    QueryResult { result: Some(content) }
}

fn error(content: String) -> QueryResult {
    result(query_result::Result::Error(ErrorResult { content }))
}

#[tonic::async_trait]
impl DiscoveryRpc for Discovery {
    async fn discover(&self, request: Request<SignedRequest>) -> Result<Response<DiscoveryResponse>, Status> {
        let peer = request.extensions().get::<PeerCertificate>().cloned();
        // Fabric answers every malformed request with code UNKNOWN and a text.
        let asked = self.open(request.into_inner(), peer.as_ref()).map_err(Status::unknown)?;
        let mut results = Vec::with_capacity(asked.queries.len());
        for query in asked.queries {
            results.push(self.answer(&asked.signed, query).await);
        }
        Ok(Response::new(DiscoveryResponse { results }))
    }
}
