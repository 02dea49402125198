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

/// Dials each node once per set of TLS roots and shares the connection.
#[derive(Debug)]
pub struct Connections {
    dialer: Dialer,
    /// By endpoint; there is more than one after a change of roots or of the own certificate.
    open: Mutex<HashMap<String, Vec<Open>>>,
}

/// A connection, whom it trusts, and the hash of the certificate of this node that it shows.
#[derive(Debug)]
struct Open {
    roots: Vec<Bytes>,
    shown: Bytes,
    channel: Channel,
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
        let shown = self.certificate_hash();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let known = open.get(endpoint).into_iter().flatten();
        if let Some(same) = known.filter(|one| one.roots == roots && one.shown == shown).last() {
            return Ok(same.channel.clone());
        }
        let channel = self.dialer.connect(endpoint, roots)?;
        if open.values().map(Vec::len).sum::<usize>() >= CONNECTIONS_MAX {
            open.clear();
        }
        let one = Open { roots: roots.to_vec(), shown, channel: channel.clone() };
        open.entry(endpoint.to_owned()).or_default().push(one);
        Ok(channel)
    }

    /// SHA-256 of the certificate (DER) that connections show now; empty without one.
    #[must_use]
    pub fn certificate_hash(&self) -> Bytes {
        self.dialer.certificate_hash()
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
