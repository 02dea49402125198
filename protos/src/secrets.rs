//! `Debug` for messages that hold secrets or private data: shapes and lengths, never contents.

use std::fmt;

use crate::consort::privatedata::{Found, Signed};
use crate::fabric::{msp::KeyInfo, protos::ChaincodeProposalPayload, rwset::CollectionPvtReadWriteSet};

impl fmt::Debug for KeyInfo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("KeyInfo")
            .field("key_identifier", &self.key_identifier)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ChaincodeProposalPayload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ChaincodeProposalPayload")
            .field("input", &self.input)
            .field("transient_keys", &self.transient_map.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for CollectionPvtReadWriteSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("CollectionPvtReadWriteSet")
            .field("collection_name", &self.collection_name)
            .field("rwset_bytes", &self.rwset.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Signed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Signed").field("body_bytes", &self.body.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Found {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Found")
            .field("index", &self.index)
            .field("set_bytes", &self.set.len())
            .finish_non_exhaustive()
    }
}
