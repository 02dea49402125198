//! rwset
