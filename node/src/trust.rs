//! Whose TLS certificates clients may show: what the listeners of a node are told whenever that changes.
//!
//! The roots are those in configured files, those of the node's own organisation, and those of the organisations of every channel
//! (Fabric `orderer/common/server` and `internal/peer/node`, which renew client roots with each configuration block). What an
//! MSP of a channel or the node's own MSP revoked is refused at every listener, whatever its roots.

use std::{
    collections::BTreeSet,
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use consort_channel_config::ChannelBundle;
use consort_msp::MspManager;
use tracing::warn;

use crate::{
    dial::with_causes,
    renewal::Current,
    tls::{ClientRoots, ServerTls},
};

/// The configurations in force of all channels of a node.
type Channels = Box<dyn Fn() -> Vec<Arc<ChannelBundle>> + Send + Sync>;

/// A listener whose clients are judged.
struct Door {
    roots: ClientRoots,
    files: Vec<RootFile>,
    opens_to_members: bool,
}

/// A file with roots, and what it held when it could last be read: one that is just being replaced shuts nobody out.
struct RootFile {
    path: PathBuf,
    last: Mutex<Option<Bytes>>,
}

impl RootFile {
    fn read(&self) -> Option<Bytes> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match std::fs::read(&self.path) {
            Ok(pem) => *last = Some(Bytes::from(pem)),
            Err(error) => warn!(path = %self.path.display(), %error, "TLS client roots cannot be read"),
        }
        last.clone()
    }
}

/// The listeners of a node, and what their clients' certificates are judged by.
pub struct ClientTrust {
    own: Current<MspManager>,
    channels: Channels,
    doors: Vec<Door>,
}

impl fmt::Debug for ClientTrust {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ClientTrust").field("doors", &self.doors.len()).finish_non_exhaustive()
    }
}

impl ClientTrust {
    /// Of no listener yet. `own` is the node's own MSP; `channels` answers the configurations in force.
    pub fn new(
        own: Current<MspManager>,
        channels: impl Fn() -> Vec<Arc<ChannelBundle>> + Send + Sync + 'static,
    ) -> Self {
        Self { own, channels: Box::new(channels), doors: Vec::new() }
    }

    /// A listener that members of the channels and of the node's own organisation may use, and those of the roots in `files`.
    #[must_use]
    pub fn of_members(self, tls: &ServerTls, files: &[PathBuf]) -> Self {
        self.with(tls, files, true)
    }

    /// A listener for those of the roots in `files` alone.
    #[must_use]
    pub fn of_files(self, tls: &ServerTls, files: &[PathBuf]) -> Self {
        self.with(tls, files, false)
    }

    fn with(mut self, tls: &ServerTls, files: &[PathBuf], opens_to_members: bool) -> Self {
        let roots = tls.client_roots().clone();
        let files =
            files.iter().map(|path| RootFile { path: path.clone(), last: Mutex::default() }).collect();
        self.doors.push(Door { roots, files, opens_to_members });
        self
    }

    /// Puts the roots of this moment into force. To be called after each change of a channel's configuration, of the set of
    /// channels, and of the node's own MSP.
    pub fn renew(&self) {
        let mut judges = vec![self.own.get()];
        judges.extend((self.channels)().iter().map(|bundle| Arc::clone(bundle.msps())));
        let of_members: BTreeSet<Bytes> = judges.iter().flat_map(|msps| msps.tls_roots()).collect();
        for door in &self.doors {
            let mut roots = if door.opens_to_members { of_members.clone() } else { BTreeSet::new() };
            roots.extend(door.files.iter().filter_map(RootFile::read));
            let roots: Vec<Bytes> = roots.into_iter().collect();
            if let Err(error) = door.roots.replace_with_members(&roots, judges.clone()) {
                warn!(reason = %with_causes(&error), "TLS client roots were not replaced");
            }
        }
    }
}
