//! The certificate authority of one organisation, spoken to over Fabric CA's REST API.
//!
//! Owns the authority's key, the registry of identities and affiliations, and the list of what was issued and
//! revoked. Does not know channels, MSP folders or nodes: a node enrols here like any other client.
//!
//! ```text
//!  api (HTTP, JSON, tokens)  ->  authority (rules over values)  ->  registry (SQLite)
//!                                        |
//!                                        +->  issuer (certificates, lists of revoked certificates)
//! ```
//!
//! Always: a certificate is in the registry before anybody receives it; a change is on disk before it is answered;
//! a wrong secret is counted before the next one is judged; a refused request changes nothing else.
//! Secrets are kept as Argon2id hashes and appear in no log.

pub mod affiliation;
mod api;
pub mod attributes;
pub mod authority;
pub mod chain;
pub mod config;
pub mod error;
pub mod folder;
pub mod issuer;
mod opening;
mod own_tls;
pub mod parent;
pub mod password;
pub mod rate;
pub mod registry;
pub mod request;
pub mod revocation_reason;
pub mod server;
pub mod token;
