//! Connections to orderers and other peers, shared by everything that calls them.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use consort_node::dial::{DialError, Dialer};
use tonic::Status;
use tonic::transport::Channel;

/// Connections that are kept. A channel of 20 organisations has fewer nodes; what is beyond the bound is dialled anew.
const CONNECTIONS_MAX: usize = 1_024;

/// A connection is told by where it goes, whom it trusts there, and which certificate of this node it shows.
type Key = (String, Vec<Bytes>, Bytes);

/// Dials each node once per set of TLS roots and shares the connection.
#[derive(Debug)]
pub struct Connections {
    dialer: Dialer,
    open: Mutex<HashMap<Key, Channel>>,
}

impl Connections {
    /// Connections that are made by this dialer.
    #[must_use]
    pub fn new(dialer: Dialer) -> Self {
        Self { dialer, open: Mutex::default() }
    }

    /// The connection to an endpoint; it is opened with the first call and opened again when it broke.
    ///
    /// # Errors
    /// When endpoint or roots cannot be used at all.
    pub fn to(&self, endpoint: &str, roots: &[Bytes]) -> Result<Channel, DialError> {
        let key = (endpoint.to_owned(), roots.to_vec(), self.certificate_hash());
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = open.get(&key) {
            return Ok(channel.clone());
        }
        let channel = self.dialer.connect(endpoint, roots)?;
        if open.len() >= CONNECTIONS_MAX {
            open.clear();
        }
        open.insert(key, channel.clone());
        Ok(channel)
    }

    /// SHA-256 of the certificate (DER) that connections show now; empty without one.
    #[must_use]
    pub fn certificate_hash(&self) -> Bytes {
        self.dialer.identity().map(|identity| identity.certificate_hash()).unwrap_or_default()
    }
}

/// Why a call failed, in one line: what the other node said, or what kept the call from reaching it.
pub(crate) fn call_text(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = status.source();
    while let Some(error) = cause {
        let inner = error.to_string();
        if !text.contains(&inner) {
            text = if text.is_empty() { inner } else { format!("{text}: {inner}") };
        }
        cause = error.source();
    }
    text
}
