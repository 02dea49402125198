//! What orderers are sent: envelopes, and the bodies of the participation API.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use consort_node::ManualClock;
use consort_node::renewal::Current;
use consort_orderer::submission::{self, Judge, Refusal, Submission};
use consort_orderer::{join_block, participation};
use consort_protos::envelope;
use consort_protos::fabric::common::{Block, Envelope, Status};
use futures::FutureExt;
use prost::Message;

use crate::network::{NETWORK, NOW, envelope_by};

/// The judge of what clients send.
static JUDGE: LazyLock<Judge> = LazyLock::new(|| Judge {
    identity: Current::new(Arc::clone(&NETWORK.orderer)),
    clock: Arc::new(ManualClock::new(NOW)),
});

/// What separates the parts of a form here; the client chooses it.
pub(crate) const BOUNDARY: &str = "between";

/// An envelope's verdict at the orderer's door.
pub(crate) fn judged(envelope: &Envelope) -> Result<Submission, Refusal> {
    let open = submission::open(envelope)?;
    JUDGE.judge(&NETWORK.bundle, envelope.clone(), &open)
}

/// A `common.Envelope` that is broadcast: as it is, and signed by a member of the channel.
///
/// # Panics
/// When what was read breaks a rule: a finding.
pub fn broadcast_envelope(bytes: &[u8]) {
    let Ok(sent) = Envelope::decode(bytes) else { return };
    let by_member = envelope_by(&NETWORK.client, &sent);
    for envelope in [Some(sent), by_member].into_iter().flatten() {
        match judged(&envelope) {
            Ok(taken) => {
                assert!(envelope::is_canonical(&taken.ordered), "what goes into a block has one form");
                assert_eq!(taken.sequence, NETWORK.bundle.sequence());
            }
            Err(refusal) => {
                let codes = [Status::BadRequest, Status::Forbidden, Status::ServiceUnavailable];
                assert!(codes.contains(&refusal.status) && !refusal.info.is_empty(), "{refusal}");
            }
        }
    }
}

/// The part of a form, read as the API reads it.
fn part(body: &[u8], name: &str) -> Option<Bytes> {
    let request = http::Request::builder()
        .method("POST")
        .header("content-type", format!("multipart/form-data; boundary={BOUNDARY}"))
        .body(Bytes::copy_from_slice(body).into())
        .expect("invariant: the header is one");
    let read =
        participation::the_part(request, name).now_or_never().expect("a body that is there is read at once");
    match read {
        Ok(part) => Some(part),
        Err(answer) => {
            assert_eq!(answer.status(), http::StatusCode::BAD_REQUEST, "a form is read or refused");
            None
        }
    }
}

/// The body of a request to join a channel (`POST /participation/v1/channels`), or the configuration block alone.
///
/// # Panics
/// When what was read breaks a rule: a finding.
pub fn participation_join(bytes: &[u8]) {
    for block in [part(bytes, "config-block"), Some(Bytes::copy_from_slice(bytes))].into_iter().flatten() {
        let Ok(block) = Block::decode(block) else { continue };
        if let Ok(bundle) = join_block::check(&block) {
            assert!(!bundle.orderer().consenters.is_empty(), "a channel without consenters stands still");
        }
    }
}

/// The body of a request to update a channel (`PUT /participation/v1/channels`).
///
/// # Panics
/// When what was read breaks a rule: a finding.
pub fn participation_update(bytes: &[u8]) {
    if let Some(envelope) = part(bytes, "config-update-envelope") {
        broadcast_envelope(&envelope);
    }
}
