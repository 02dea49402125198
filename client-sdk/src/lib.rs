//! For applications and administration tools: submit and evaluate transactions, follow events, run a network's channels.
//!
//! An application connects to one peer's gateway and works through types that mark a transaction's progress:
//! [`Gateway`] → [`Network`] → [`Contract`] → [`Proposal`] → [`Endorsed`] → [`Submitted`] → [`Committed`]. At each step the bytes to
//! sign can be taken out and signed elsewhere. [`Gateways`] fails over between several peers and repeats what is safe to repeat;
//! [`checkpoint`] remembers where a reader of events left off; [`decode`] opens blocks for people.
//! An administrator uses [`peer_admin`] (join, install), [`lifecycle`] (approve, commit), [`registered`] (a channel's table of
//! identities), [`participation`] (an orderer's channels), [`blocks`] (fetch), [`configuration`] (update) and [`ca`] (enrol,
//! register). Records whose readers are chosen later are the matter of [`sealed`].
//!
//! Owns no keys: a [`ClientIdentity`] holds a signer, which may be a file, or a device elsewhere. Knows no server's code:
//! everything goes through Hyperledger Fabric's public protocols, so it works against a Fabric network as well.
//!
//! Always: every connection is TLS and the node's certificate must carry the configured host name; an error carries what
//! the network said, endorser by endorser; an invalid transaction is told apart from a failed call.
//!
//! ```no_run
//! # async fn example(identity: consort_client_sdk::ClientIdentity) -> Result<(), Box<dyn std::error::Error>> {
//! use consort_client_sdk::{Endpoint, Gateway};
//!
//! let roots = std::fs::read("organizations/peerOrganizations/org1.example.com/peers/peer0.org1.example.com/tls/ca.crt")?;
//! let endpoint = Endpoint::new("peer0.org1.example.com:7051", roots).connect_to("127.0.0.1:7051".parse()?);
//! let contract = Gateway::connect(&endpoint, identity).await?.network("mychannel").contract("basic");
//! contract.submit("CreateAsset", ["asset1", "blue", "5", "Tomoko", "300"]).await?;
//! let asset = contract.evaluate("ReadAsset", ["asset1"]).await?;
//! # Ok(())
//! # }
//! ```

pub mod blocks;
pub mod ca;
pub mod checkpoint;
pub mod configuration;
mod connection;
mod contract;
pub mod decode;
mod error;
mod events;
mod failover;
mod gateway;
mod identity;
pub mod lifecycle;
pub mod participation;
pub mod peer_admin;
mod profile;
pub mod registered;
pub mod sealed;
mod transaction;

pub use connection::{ClientTlsIdentity, Endpoint};
pub use contract::{Call, Contract, UnsignedProposal};
pub use error::{Error, Refusal, explain};
pub use events::{ChaincodeEvent, EventStream};
pub use failover::{Gateways, Retries};
pub use gateway::{Deadlines, Gateway, Network};
pub use identity::ClientIdentity;
pub use profile::ConnectionProfile;
pub use transaction::{Committed, Endorsed, Proposal, Signed, StatusRequest, Submitted};
