//! Consenters whose TLS certificates were revoked: they take no part until the configuration names other certificates.

use std::sync::Arc;

use consort_channel_config::{ChannelBundle, Consenter};
use consort_crypto::certificate::Certificate;
use consort_msp::{IdentityError, MspManager};

use crate::submission::Refusal;

/// Whether an MSP revoked a certificate by which the configuration names a consenter. Ends play no part: a renewed certificate
/// with the same key counts for the one in the configuration.
pub(crate) fn is_revoked(msps: &MspManager, consenter: &Consenter) -> bool {
    let of = |pem: &[u8]| {
        let Ok(certificate) = Certificate::from_pem(pem) else { return false };
        let begin = certificate.not_before();
        matches!(msps.judge_tls(&Arc::new(certificate), begin), Err(IdentityError::Revoked))
    };
    msps.revokes() && (of(&consenter.client_tls_cert) || of(&consenter.server_tls_cert))
}

/// Whether a configuration names a consenter that has this key and is revoked.
pub(crate) fn is_key_revoked(bundle: &ChannelBundle, shown: &Certificate) -> bool {
    let has_key = |consenter: &&Consenter| {
        Certificate::from_pem(&consenter.client_tls_cert)
            .is_ok_and(|named| named.public_key() == shown.public_key())
    };
    let mut named = bundle.orderer().consenters.iter().filter(has_key);
    bundle.msps().revokes() && named.any(|consenter| is_revoked(bundle.msps(), consenter))
}

/// Refuses a configuration whose lists would leave less than a majority of the consenters: no configuration could follow it.
pub(crate) fn check_majority(current: &ChannelBundle, next: &ChannelBundle) -> Result<(), Refusal> {
    let left = |bundle: &ChannelBundle| {
        let consenters = bundle.orderer().consenters.iter();
        consenters.filter(|consenter| !is_revoked(bundle.msps(), consenter)).count()
    };
    let (all, left_then) = (next.orderer().consenters.len(), left(next));
    // A consenter alone needs nobody's certificate; and what is no worse than before may lead out of it.
    if all == 1 || left_then > all / 2 || left_then >= left(current) {
        return Ok(());
    }
    Err(Refusal::bad_request(format!(
        "error applying config update to existing channel '{}': it revokes the TLS certificates of consenters, and only {left_then} of \
         {all} would be left, which is no majority: put new certificates of the others into the configuration first",
        current.channel()
    )))
}
