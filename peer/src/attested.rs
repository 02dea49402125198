//! The newest attestation of a channel's books, kept in a file beside them, so that a peer that starts again has it although
//! nobody else is there to sign.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use consort_channel_config::{ChannelBundle, attestation};
use consort_ledger::Ledger;
use consort_node::dial::with_causes;
use consort_protos::consort::attestations::{Attestation, State};
use consort_protos::ids::BlockNumber;
use prost::Message;

/// The file in the channel's folder: one `consort.attestations.Attestation`.
const FILE: &str = "attestation";

/// Bytes of the file at most: as many attesters as an attestation may have, with certificates of 4 KiB.
const FILE_BYTES_MAX: u64 = attestation::ATTESTERS_MAX as u64 * 4096;

/// What enough peers have signed together last. One writer: the membership.
pub(crate) struct Attested {
    path: PathBuf,
    newest: Mutex<Option<Attestation>>,
}

impl Attested {
    /// Takes up what is kept in a channel's folder. What does not hold any more, or is not about these books (which may have
    /// been restored from a backup), is left behind with a word in the log: the next height brings another.
    pub(crate) fn load(folder: &Path, ledger: &Ledger, bundle: &ChannelBundle) -> Self {
        let path = folder.join(FILE);
        let newest = read(&path, ledger, bundle).unwrap_or_else(|reason| {
            tracing::warn!(
                channel = %bundle.channel(), path = %path.display(), %reason, "the attestation that was kept does not count"
            );
            None
        });
        Self { path, newest: Mutex::new(newest) }
    }

    pub(crate) fn newest(&self) -> Option<Attestation> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps an attestation that was verified. Without a sync: a file that a power failure leaves half written is not taken up.
    pub(crate) fn keep(&self, attestation: Attestation) {
        if let Err(error) = write(&self.path, &attestation) {
            tracing::warn!(
                path = %self.path.display(), %error,
                "an attestation cannot be kept and will be gone when this peer stops; remedy: check the disk's space"
            );
        }
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(attestation);
    }
}

fn write(path: &Path, attestation: &Attestation) -> io::Result<()> {
    let unfinished = path.with_extension("unfinished");
    fs::write(&unfinished, attestation.encode_to_vec())?;
    fs::rename(&unfinished, path)
}

fn read(path: &Path, ledger: &Ledger, bundle: &ChannelBundle) -> Result<Option<Attestation>, String> {
    let size = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    if size > FILE_BYTES_MAX {
        return Err(format!("it has {size} bytes"));
    }
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let kept = attestation::decode(&bytes).map_err(|error| error.to_string())?;
    attestation::verify(bundle, &kept).map_err(|error| error.to_string())?;
    let height = kept.state.as_ref().map_or(0, |state| state.height);
    if kept.state != books_at(ledger, bundle, height)? {
        return Err(format!("it is about other books at height {height}"));
    }
    Ok(Some(kept))
}

/// Where the books stood at a height; none when the block is not here (yet, or the ledger begins later).
///
/// # Errors
/// The books cannot be read.
pub(crate) fn books_at(
    ledger: &Ledger,
    bundle: &ChannelBundle,
    height: u64,
) -> Result<Option<State>, String> {
    let Some(last) = height.checked_sub(1).map(BlockNumber::new) else { return Ok(None) };
    let Some(block) = ledger.block(last).map_err(|error| with_causes(&error))? else { return Ok(None) };
    let Some(commit_hash) = ledger.commit_hash(last).map_err(|error| with_causes(&error))? else {
        return Ok(None);
    };
    let header_hash = crate::committer::block::header_hash(&block, bundle.hash_algorithm());
    Ok(Some(State {
        channel: bundle.channel().to_string(),
        height,
        header_hash: header_hash.to_vec().into(),
        commit_hash,
    }))
}
