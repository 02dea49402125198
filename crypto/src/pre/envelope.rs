//! Bytes for one recipient, shares on their way to a proxy above all.

use zeroize::Zeroizing;

use super::cipher::{MessageKey, TAG_BYTES};
use super::element::{POINT_BYTES, Point};
use super::random::{Random, System};
use super::{Error, PublicKey, SecretKey};

/// Seals bytes for a recipient and a context, with an ephemeral key (the integrated scheme of SEC 1 section 5.1, with the suite's
/// key derivation and cipher). The result is 49 bytes longer.
///
/// # Errors
///
/// When the operating system gives no random numbers, or there are more than 64 GiB.
pub fn seal_to(recipient: &PublicKey, context: &[u8], bytes: &[u8]) -> Result<Vec<u8>, Error> {
    seal_to_with(&mut System, recipient, context, bytes)
}

pub(super) fn seal_to_with(
    random: &mut dyn Random,
    recipient: &PublicKey,
    context: &[u8],
    bytes: &[u8],
) -> Result<Vec<u8>, Error> {
    let ephemeral = SecretKey::generate_with(random, recipient.suite())?;
    let point = *ephemeral.public_key().point();
    let key = message_key(&*ephemeral.shared(recipient.point())?, &point, recipient, context);
    let mut sealed = point.to_bytes().to_vec();
    sealed.extend(key.seal(context, bytes)?);
    Ok(sealed)
}

/// Opens what was sealed for a recipient and a context.
///
/// # Errors
///
/// Too few bytes, or a point that is not canonical; [`Error::Closed`] for another key or context, or altered bytes.
pub fn open_sealed(
    recipient: &SecretKey,
    context: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let expected = POINT_BYTES + TAG_BYTES;
    let Some((point, ciphertext)) = sealed.split_at_checked(POINT_BYTES).filter(|_| sealed.len() >= expected)
    else {
        return Err(Error::Length { kind: "a sealed message", length: sealed.len(), expected });
    };
    let point = Point::from_bytes(recipient.suite(), point)?;
    let key = message_key(&*recipient.shared(&point)?, &point, &recipient.public_key(), context);
    key.open(context, ciphertext)
}

fn message_key(
    secret: &[u8; POINT_BYTES],
    point: &Point,
    recipient: &PublicKey,
    context: &[u8],
) -> MessageKey {
    let parts = [point.as_bytes(), recipient.point().as_bytes(), context];
    MessageKey::derive(recipient.suite(), "message", secret, &parts)
}
