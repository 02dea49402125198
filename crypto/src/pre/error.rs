//! What can go wrong with sealed data.

/// What can go wrong with sealed data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The operating system gave no random numbers.
    #[error("no random numbers")]
    Random,
    /// Keys, capsules, shares or fragments of P-256 and SM2 meet in one operation.
    #[error("the parts belong to different suites")]
    Suites,
    /// The bytes are no compressed point of the suite's curve, or the point at infinity.
    #[error("no point of the curve")]
    Point,
    /// The number is zero, or not below the group's order.
    #[error("no scalar of the group")]
    Scalar,
    /// The bytes have another length than their kind.
    #[error("{kind} has {length} bytes instead of {expected}")]
    Length {
        /// What was read.
        kind: &'static str,
        /// The length found.
        length: usize,
        /// The length of its kind.
        expected: usize,
    },
    /// A share or fragment carries number 0, or one above the number of commitments.
    #[error("number {index} is not among the grant's proxies")]
    Index {
        /// The number, which counts from 1.
        index: u16,
    },
    /// A threshold must lie between 1 and the number of proxies, which is bounded.
    #[error("a threshold of {threshold} among {proxies} proxies is not possible")]
    Threshold {
        /// Fragments that would be needed.
        threshold: u16,
        /// Proxies that would hold shares.
        proxies: u16,
    },
    /// The capsule was altered, or belongs to another record.
    #[error("the capsule does not belong to this record")]
    Capsule,
    /// The fragment's proof fails: it was altered, or is for another capsule, grant or request.
    #[error("the fragment of proxy {index} is wrong")]
    Fragment {
        /// The proxy's number in the grant.
        index: u16,
    },
    /// Two fragments carry the same number.
    #[error("two fragments come from proxy {index}")]
    Duplicate {
        /// The proxy's number in the grant.
        index: u16,
    },
    /// There are fewer fragments than the grant demands.
    #[error("{fragments} fragments do not open a record that needs {threshold}")]
    TooFew {
        /// Fragments at hand.
        fragments: usize,
        /// Fragments needed.
        threshold: u16,
    },
    /// The proof that somebody knows a secret key fails.
    #[error("the proof of knowledge of the secret key is wrong")]
    Knowledge,
    /// The bytes were altered, or were sealed for another key or context.
    #[error("this key does not open these bytes")]
    Closed,
}
