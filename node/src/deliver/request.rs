//! One request for blocks: opened, checked, and turned into bounds.

use std::time::Duration;

use consort_crypto::hash::sha256;
use consort_msp::policy::SignedData;
use consort_protos::{
    envelope::OpenEnvelope,
    fabric::{
        common::{Block, Envelope, Status},
        orderer::{
            SeekInfo, SeekPosition,
            seek_info::{SeekBehavior, SeekContentType, SeekErrorResponse},
            seek_position,
        },
    },
};
use time::OffsetDateTime;
use tracing::debug;

use super::Condition;
use crate::server::PeerCertificate;

/// A request whose envelope is well formed, fresh, and bound to its connection.
pub(super) struct Request {
    pub(super) channel: String,
    pub(super) signed: SignedData,
    envelope: OpenEnvelope,
}

impl Request {
    /// Opens an envelope. `binding` is the connection's certificate when the server binds requests to it.
    pub(super) fn open(
        envelope: Envelope,
        now: OffsetDateTime,
        window: Duration,
        binding: Option<Option<&PeerCertificate>>,
    ) -> Result<Self, Status> {
        let bad = |reason: &str| {
            debug!(reason, "request for blocks refused");
            Status::BadRequest
        };
        let envelope = OpenEnvelope::from_message(envelope).map_err(|error| bad(&error.to_string()))?;
        let header = &envelope.channel_header;
        let timestamp = header.timestamp.ok_or_else(|| bad("no timestamp"))?;
        // Seconds are enough here, and a timestamp at the ends of its range must not overflow.
        let difference = i128::from(timestamp.seconds) - i128::from(now.unix_timestamp());
        if difference.unsigned_abs() > u128::from(window.as_secs()) {
            return Err(bad("the timestamp is outside the time window"));
        }
        if let Some(peer) = binding {
            let certificate =
                peer.and_then(|peer| peer.0.as_ref()).ok_or_else(|| bad("no TLS certificate"))?;
            if header.tls_cert_hash != sha256(certificate).as_slice() {
                return Err(bad("the TLS certificate hash is another"));
            }
        }
        let signed = SignedData {
            identity: envelope.creator.clone(),
            message: envelope.payload.clone(),
            signature: envelope.signature.clone(),
        };
        Ok(Self { channel: header.channel_id.clone(), signed, envelope })
    }

    /// What the request asks for.
    pub(super) fn seek(&self) -> Result<Seek, Status> {
        let info: SeekInfo = self.envelope.data_as("seek info").map_err(|error| {
            debug!(%error, "request for blocks refused");
            Status::BadRequest
        })?;
        Ok(Seek {
            fail_if_not_ready: info.behavior() == SeekBehavior::FailIfNotReady,
            best_effort: info.error_response() == SeekErrorResponse::BestEffort,
            headers_only: info.content_type() == SeekContentType::HeaderWithSig,
            start: info.start,
            stop: info.stop,
        })
    }
}

/// A range in words: from where, to where, and what to do when it is not there.
pub(super) struct Seek {
    pub(super) fail_if_not_ready: bool,
    best_effort: bool,
    headers_only: bool,
    start: Option<SeekPosition>,
    stop: Option<SeekPosition>,
}

impl Seek {
    /// A source that brings no new blocks ends a range, unless the client asked for best effort.
    pub(super) fn check_condition(&self, condition: &Condition) -> Result<(), Status> {
        match condition {
            Condition::Serving => Ok(()),
            Condition::Unavailable(_) if self.best_effort => Ok(()),
            Condition::Unavailable(_) | Condition::Closed => Err(Status::ServiceUnavailable),
        }
    }

    /// Who asked for headers and signatures gets no transactions, but every configuration.
    pub(super) fn shorten(&self, mut block: Block) -> Block {
        if self.headers_only && !consort_protos::block::is_config(&block) {
            block.data = None;
        }
        block
    }

    /// First and last number of the range, at a height of `height` blocks.
    pub(super) fn bounds(&self, height: u64) -> Result<(u64, u64), Status> {
        use seek_position::Type::{Newest, NextCommit, Oldest, Specified};

        let position = |seek: &Option<SeekPosition>| seek.as_ref().and_then(|seek| seek.r#type);
        let (Some(start), Some(stop)) = (position(&self.start), position(&self.stop)) else {
            return Err(Status::BadRequest);
        };
        let newest = height.saturating_sub(1);
        let first = match start {
            Oldest(_) => 0,
            Newest(_) => newest,
            NextCommit(_) => height,
            Specified(specified) => specified.number,
        };
        let last = match stop {
            Oldest(_) => first,
            // The newest block may be another by now; who asks for exactly the newest one gets exactly one.
            Newest(_) if matches!(start, Newest(_)) => first,
            Newest(_) => newest,
            NextCommit(_) => height,
            Specified(specified) => specified.number,
        };
        if last < first {
            return Err(Status::BadRequest);
        }
        if first > height {
            return Err(Status::NotFound);
        }
        Ok((first, last))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use consort_protos::envelope;
    use consort_protos::fabric::common::{ChannelHeader, SignatureHeader};
    use consort_protos::fabric::orderer::seek_position::Type;
    use consort_protos::fabric::orderer::{SeekNewest, SeekNextCommit, SeekOldest, SeekSpecified};

    use super::*;

    const OLDEST: Type = Type::Oldest(SeekOldest {});
    const NEWEST: Type = Type::Newest(SeekNewest {});
    const NEXT: Type = Type::NextCommit(SeekNextCommit {});

    fn at(number: u64) -> Type {
        Type::Specified(SeekSpecified { number })
    }

    fn bounds(start: Type, stop: Type, height: u64) -> Result<(u64, u64), Status> {
        let position = |r#type| Some(SeekPosition { r#type: Some(r#type) });
        let (start, stop) = (position(start), position(stop));
        Seek { fail_if_not_ready: false, best_effort: false, headers_only: false, start, stop }.bounds(height)
    }

    /// A request signed by nobody, for the connection with this certificate.
    fn request(certificate: Option<&[u8]>) -> Envelope {
        let header = ChannelHeader {
            timestamp: Some(Default::default()),
            tls_cert_hash: certificate.map(|der| sha256(der).to_vec().into()).unwrap_or_default(),
            ..ChannelHeader::default()
        };
        let payload = envelope::payload(&header, &SignatureHeader::default(), Bytes::new());
        Envelope { payload, ..Envelope::default() }
    }

    #[test]
    fn where_requests_are_bound_to_connections_the_certificate_must_be_that_of_the_connection() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let opens = |certificate: Option<&[u8]>, binding: Option<Option<&PeerCertificate>>| {
            Request::open(request(certificate), now, Duration::from_secs(900), binding).map(|_opened| ())
        };
        let own = PeerCertificate(Some(Bytes::from_static(b"own")));
        assert_eq!(opens(Some(b"own"), Some(Some(&own))), Ok(()));
        assert_eq!(opens(Some(b"another"), Some(Some(&own))), Err(Status::BadRequest));
        assert_eq!(opens(None, Some(Some(&own))), Err(Status::BadRequest));
        assert_eq!(opens(Some(b"own"), Some(Some(&PeerCertificate(None)))), Err(Status::BadRequest));
        assert_eq!(opens(None, None), Ok(()), "they are not bound");
    }

    #[test]
    fn positions_become_block_numbers() {
        assert_eq!(bounds(OLDEST, NEWEST, 5), Ok((0, 4)));
        assert_eq!(bounds(NEWEST, NEWEST, 5), Ok((4, 4)));
        assert_eq!(bounds(OLDEST, OLDEST, 5), Ok((0, 0)));
        assert_eq!(bounds(NEXT, at(u64::MAX), 5), Ok((5, u64::MAX)));
        assert_eq!(bounds(at(5), at(7), 5), Ok((5, 7)));
    }

    #[test]
    fn a_range_that_ends_before_it_starts_is_a_bad_request() {
        assert_eq!(bounds(at(3), at(2), 5), Err(Status::BadRequest));
        let half = Seek {
            fail_if_not_ready: false,
            best_effort: false,
            headers_only: false,
            start: None,
            stop: None,
        };
        assert_eq!(half.bounds(5), Err(Status::BadRequest));
    }

    #[test]
    fn a_start_beyond_the_next_block_is_not_found() {
        assert_eq!(bounds(at(6), at(9), 5), Err(Status::NotFound));
    }

    #[test]
    fn without_new_blocks_only_best_effort_goes_on() {
        let seek = |best_effort| Seek {
            fail_if_not_ready: false,
            best_effort,
            headers_only: false,
            start: None,
            stop: None,
        };
        let leaderless = Condition::Unavailable("no Raft leader".into());
        assert_eq!(seek(false).check_condition(&leaderless), Err(Status::ServiceUnavailable));
        assert_eq!(seek(true).check_condition(&leaderless), Ok(()));
        assert_eq!(seek(true).check_condition(&Condition::Closed), Err(Status::ServiceUnavailable));
    }
}
