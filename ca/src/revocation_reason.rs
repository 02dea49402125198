//! Why a certificate is revoked.

/// A reason of RFC 5280, section 5.3.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RevocationReason {
    /// No reason is given.
    Unspecified = 0,
    /// The private key may be known to others.
    KeyCompromise = 1,
    /// The authority's key may be known to others.
    CaCompromise = 2,
    /// The holder left or moved.
    AffiliationChanged = 3,
    /// Another certificate took its place.
    Superseded = 4,
    /// The holder no longer works.
    CessationOfOperation = 5,
    /// For the time being.
    CertificateHold = 6,
    /// No longer revoked.
    RemoveFromCrl = 8,
    /// The holder lost a right.
    PrivilegeWithdrawn = 9,
    /// The attribute authority's key may be known to others.
    AaCompromise = 10,
}

impl RevocationReason {
    /// Reads Fabric CA's word for a reason, in any case; an unknown word is no reason.
    pub fn parse(word: &str) -> Self {
        match word.to_ascii_lowercase().as_str() {
            "keycompromise" => Self::KeyCompromise,
            "cacompromise" => Self::CaCompromise,
            "affiliationchanged" => Self::AffiliationChanged,
            "superseded" => Self::Superseded,
            "cessationofoperation" => Self::CessationOfOperation,
            "certificatehold" => Self::CertificateHold,
            "removefromcrl" => Self::RemoveFromCrl,
            "privilegewithdrawn" => Self::PrivilegeWithdrawn,
            "aacompromise" => Self::AaCompromise,
            _ => Self::Unspecified,
        }
    }

    /// The number in the list of revoked certificates.
    pub fn number(self) -> u8 {
        self as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_the_numbers_of_the_rfc() {
        assert_eq!(RevocationReason::parse("keyCompromise").number(), 1);
        assert_eq!(RevocationReason::parse("aacompromise").number(), 10);
        assert_eq!(RevocationReason::parse("whatever").number(), 0);
    }
}
