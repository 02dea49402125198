//! Administering one peer: channels, installed chaincodes, what its ledger says.
//!
//! Every call is a signed proposal to a system chaincode of that peer, as Fabric's `peer` command line sends it.

use bytes::Bytes;
use consort_crypto::hash::HashAlgorithm;
use consort_protos::consort::privatedata::Status;
use consort_protos::fabric::common::{Block, BlockchainInfo};
use consort_protos::fabric::lifecycle::{
    InstallChaincodeArgs, InstallChaincodeResult, QueryInstalledChaincodesArgs,
    QueryInstalledChaincodesResult, query_installed_chaincodes_result::InstalledChaincode,
};
use consort_protos::fabric::protos::ChannelQueryResponse;
use consort_protos::fabric::protos::endorser_client::EndorserClient;
use prost::Message;
use tonic::Request;
use tonic::transport::Channel;

use crate::connection::{Endpoint, MESSAGE_BYTES_MAX};
use crate::contract::sign_proposal;
use crate::error::Error;
use crate::identity::ClientIdentity;

/// How long a call may take; installing compiles the chaincode.
const CALL_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(120);

/// Smallest status that means failure.
const ERROR_STATUS: i32 = 400;

/// What a peer answers when a package is there already (Fabric `core/chaincode/lifecycle`).
const ALREADY_INSTALLED: &str = "chaincode already successfully installed";

/// A peer as its organisation's administrator sees it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PeerAdmin {
    client: EndorserClient<Channel>,
    identity: ClientIdentity,
    hash: HashAlgorithm,
}

/// The outcome of installing a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// `<label>:<hex SHA-256 of the package>`.
    pub package_id: String,
    /// Whether the peer had it before.
    pub already: bool,
}

impl PeerAdmin {
    /// Prepares calls to a peer; the connection opens with the first one.
    ///
    /// # Errors
    /// [`Error::Address`], or TLS roots that cannot be read.
    pub fn new(endpoint: &Endpoint, identity: ClientIdentity) -> Result<Self, Error> {
        Ok(Self::with_connection(endpoint.connect_lazily()?, identity))
    }

    /// Uses a connection that exists already.
    #[must_use]
    pub fn with_connection(connection: Channel, identity: ClientIdentity) -> Self {
        let client = EndorserClient::new(connection).max_decoding_message_size(MESSAGE_BYTES_MAX);
        Self { client, identity, hash: HashAlgorithm::Sha256 }
    }

    /// The same peer, for calls that concern a channel with this hash (SHA-256 unless said).
    #[must_use]
    pub fn with_hash(mut self, hash: HashAlgorithm) -> Self {
        self.hash = hash;
        self
    }

    /// Calls a chaincode on this peer only and returns its answer; `channel` is empty for calls that concern no channel.
    ///
    /// # Errors
    /// [`Error::Refused`] when the peer refuses the proposal, [`Error::Chaincode`] for an error answer.
    pub async fn query(
        &self,
        channel: &str,
        chaincode: &str,
        function: &str,
        arguments: Vec<Bytes>,
    ) -> Result<Bytes, Error> {
        let mut all = vec![Bytes::copy_from_slice(function.as_bytes())];
        all.extend(arguments);
        // Calls without a channel have Fabric's hash.
        let hash = if channel.is_empty() { HashAlgorithm::Sha256 } else { self.hash };
        let (_, signed) = sign_proposal(
            &self.identity,
            channel,
            hash,
            chaincode,
            all,
            std::collections::BTreeMap::new(),
            false,
        )?;
        let mut request = Request::new(signed);
        request.set_timeout(CALL_TIMEOUT);
        let answer = self.client.clone().process_proposal(request).await;
        let answer = answer.map_err(|status| Error::refused("proposal", &status))?.into_inner();
        let response = answer.response.ok_or_else(|| Error::malformed("proposal", "no response"))?;
        if response.status >= ERROR_STATUS {
            return Err(Error::Chaincode {
                chaincode: chaincode.to_owned(),
                function: function.to_owned(),
                status: response.status,
                message: response.message,
            });
        }
        Ok(response.payload)
    }

    /// Joins a channel by its genesis block.
    ///
    /// # Errors
    /// As [`PeerAdmin::query`]; the peer refuses a block that is no genesis block and a channel that it has joined already.
    pub async fn join(&self, genesis: &Block) -> Result<(), Error> {
        self.query("", "cscc", "JoinChain", vec![genesis.encode_to_vec().into()]).await.map(|_| ())
    }

    /// Names of the channels that the peer has joined.
    ///
    /// # Errors
    /// As [`PeerAdmin::query`].
    pub async fn channels(&self) -> Result<Vec<String>, Error> {
        let answer = self.query("", "cscc", "GetChannels", Vec::new()).await?;
        let response = decode::<ChannelQueryResponse>("GetChannels", answer)?;
        Ok(response.channels.into_iter().map(|channel| channel.channel_id).collect())
    }

    /// Height and last hashes of a channel's ledger on this peer.
    ///
    /// # Errors
    /// As [`PeerAdmin::query`].
    pub async fn chain_info(&self, channel: &str) -> Result<BlockchainInfo, Error> {
        let arguments = vec![Bytes::copy_from_slice(channel.as_bytes())];
        decode("GetChainInfo", self.query("", "qscc", "GetChainInfo", arguments).await?)
    }

    /// What the peer lacks of a channel's private data, and how its search for it goes. A Consort peer answers; others know no such
    /// function.
    ///
    /// # Errors
    /// As [`PeerAdmin::query`]; the peer refuses who is no administrator of its organisation.
    pub async fn private_data_status(&self, channel: &str) -> Result<Status, Error> {
        let arguments = vec![Bytes::copy_from_slice(channel.as_bytes())];
        let answer = self.query("", "cscc", "GetPrivateDataStatus", arguments).await?;
        decode("GetPrivateDataStatus", answer)
    }

    /// Installs a chaincode package; a package that is there already is no error.
    ///
    /// # Errors
    /// As [`PeerAdmin::query`]; the peer refuses a package that it cannot read or compile.
    pub async fn install(&self, package: Bytes) -> Result<Installed, Error> {
        let arguments = InstallChaincodeArgs { chaincode_install_package: package };
        let answer =
            self.query("", "_lifecycle", "InstallChaincode", vec![arguments.encode_to_vec().into()]).await;
        match answer {
            Ok(answer) => {
                let result = decode::<InstallChaincodeResult>("InstallChaincode", answer)?;
                Ok(Installed { package_id: result.package_id, already: false })
            }
            Err(Error::Chaincode { message, .. }) if message.contains(ALREADY_INSTALLED) => {
                let package_id = package_id_in(&message)
                    .ok_or_else(|| Error::malformed("InstallChaincode", "no package id in the answer"))?;
                Ok(Installed { package_id, already: true })
            }
            Err(error) => Err(error),
        }
    }

    /// The packages installed on the peer.
    ///
    /// # Errors
    /// As [`PeerAdmin::query`].
    pub async fn installed(&self) -> Result<Vec<InstalledChaincode>, Error> {
        let arguments = QueryInstalledChaincodesArgs {}.encode_to_vec();
        let answer = self.query("", "_lifecycle", "QueryInstalledChaincodes", vec![arguments.into()]).await?;
        let result = decode::<QueryInstalledChaincodesResult>("QueryInstalledChaincodes", answer)?;
        Ok(result.installed_chaincodes)
    }
}

/// The id in `... (package ID 'basic_1.0:ab12')`.
fn package_id_in(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("package ID '")?;
    let (id, _) = rest.split_once('\'')?;
    Some(id.to_owned())
}

pub(crate) fn decode<M: Message + Default>(call: &'static str, bytes: Bytes) -> Result<M, Error> {
    M::decode(bytes).map_err(|error| Error::malformed(call, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_package_that_is_installed_already_is_read_from_the_answer() {
        let message = "failed to invoke backing implementation of 'InstallChaincode': \
                       chaincode already successfully installed (package ID 'basic_1.0:ab12')";
        assert_eq!(package_id_in(message).as_deref(), Some("basic_1.0:ab12"));
        assert_eq!(package_id_in("something else"), None);
    }
}
