//! The form in which a block is stored.
//!
//! The envelopes of a block repeat the same few certificates, so that LZ4 makes a tenth of it. It is done here and not by the
//! database, because then the log and the write buffers hold the small form, too: most of what a commit costs beside the
//! signature checks is moving and checking bytes.

use bytes::Bytes;
use consort_protos::fabric::common::Block;
use prost::Message as _;

use crate::error::Error;

/// Begins a compressed block: this byte, the length of the encoded block (four bytes, big-endian), the LZ4 block. No encoded
/// block begins so: the tag of its header is 0x0a.
const COMPRESSED: u8 = 0;

/// Bytes before the LZ4 block.
const PREFIX_BYTES: usize = 5;

/// LZ4 makes no more than 255 bytes of one (LZ4 block format, lengths).
const EXPANSION_MAX: usize = 255;

/// Encodes a block as it is stored.
#[must_use]
pub fn encode(block: &Block) -> Vec<u8> {
    let plain = block.encode_to_vec();
    let Ok(length) = u32::try_from(plain.len()) else { return plain };
    let mut stored = vec![0; PREFIX_BYTES + lz4_flex::block::get_maximum_output_size(plain.len())];
    stored[0] = COMPRESSED;
    stored[1..PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
    match lz4_flex::block::compress_into(&plain, &mut stored[PREFIX_BYTES..]) {
        Ok(compressed) if PREFIX_BYTES + compressed < plain.len() => {
            stored.truncate(PREFIX_BYTES + compressed);
            stored
        }
        _ => plain,
    }
}

/// Reads a stored block; its envelopes share the memory of what is returned. Older books hold blocks as they are.
pub(crate) fn decode(stored: Bytes) -> Result<Block, Error> {
    decode_at_most(stored, usize::MAX)
}

/// Reads a block in the form of [`encode`], or as it is, that somebody else sent: it may take no more than so many bytes.
///
/// # Errors
/// [`Error::Damaged`] when it is no block, or a larger one.
pub fn decode_at_most(stored: Bytes, bytes_max: usize) -> Result<Block, Error> {
    let plain = if stored.first() == Some(&COMPRESSED) { expand(&stored, bytes_max)?.into() } else { stored };
    Block::decode(plain).map_err(|cause| Error::damaged("block", cause.to_string()))
}

fn expand(stored: &[u8], bytes_max: usize) -> Result<Vec<u8>, Error> {
    let damaged = |detail: String| Error::damaged("block", detail);
    let (prefix, compressed) = stored
        .split_first_chunk::<PREFIX_BYTES>()
        .ok_or_else(|| damaged(format!("{} bytes", stored.len())))?;
    let [_, length @ ..] = *prefix;
    let length = u32::from_be_bytes(length) as usize;
    if length > bytes_max {
        return Err(damaged(format!("{length} bytes are more than {bytes_max}")));
    }
    if length > compressed.len().saturating_mul(EXPANSION_MAX) {
        return Err(damaged(format!("{} bytes cannot stand for {length}", compressed.len())));
    }
    let mut plain = vec![0; length];
    match lz4_flex::block::decompress_into(compressed, &mut plain) {
        Ok(found) if found == length => Ok(plain),
        Ok(found) => Err(damaged(format!("{found} bytes instead of {length}"))),
        Err(cause) => Err(damaged(cause.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use consort_protos::fabric::common::{BlockData, BlockHeader};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_block_of_somebody_else_takes_no_more_room_than_it_may() {
        let data = vec![Bytes::from(vec![7; 10_000])];
        let block = Block { data: Some(BlockData { data }), ..Block::default() };
        let stored = Bytes::from(encode(&block));
        assert!(stored.len() < 100);
        assert!(decode_at_most(stored.clone(), 9_999).is_err());
        assert_eq!(decode_at_most(stored, 20_000).unwrap(), block);
    }

    proptest! {
        #[test]
        fn blocks_read_back_as_stored(number: u64, envelopes: Vec<Vec<u8>>, repeats in 1..40_usize) {
            let data = envelopes.iter().cycle().take(envelopes.len() * repeats).cloned().map(Bytes::from).collect();
            let header = BlockHeader { number, ..BlockHeader::default() };
            let block = Block { header: Some(header), data: Some(BlockData { data }), metadata: None };
            let again = decode(encode(&block).into()).unwrap();
            prop_assert_eq!(&again, &block);
            prop_assert_eq!(&decode(block.encode_to_vec().into()).unwrap(), &again);
        }

        #[test]
        fn foreign_bytes_are_an_error_not_a_panic(mut bytes: Vec<u8>) {
            let _ = decode(bytes.clone().into());
            bytes.insert(0, COMPRESSED);
            let _ = decode(bytes.into());
        }
    }
}
