//! A share on its way to its proxy, as it may be kept in between.

use bytes::Bytes;
use consort_crypto::hash::sha256;
use consort_protos::consort::sealed::{DepositRequest, Party};
use serde::{Deserialize, Serialize};

/// A share on its way to its proxy. It is sealed to that peer, and may be kept (it serialises) and sent again.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Kept", try_from = "Kept")]
pub struct SealedShare {
    /// The proxy's address.
    pub address: String,
    /// Who the proxy is.
    pub proxy: Party,
    pub(super) channel: String,
    pub(super) grant: String,
    pub(super) index: u32,
    pub(super) sealed: Bytes,
}

impl std::fmt::Debug for SealedShare {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = formatter.debug_struct("SealedShare");
        shown.field("grant", &self.grant).field("address", &self.address).finish_non_exhaustive()
    }
}

impl SealedShare {
    /// SHA-256 of the sealed bytes, by which the grant on the ledger names them.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        sha256(&self.sealed)
    }

    pub(super) fn deposit(&self) -> DepositRequest {
        DepositRequest {
            channel: self.channel.clone(),
            grant: self.grant.clone(),
            index: self.index,
            sealed_share: self.sealed.clone(),
        }
    }
}

/// The form in which a share is kept; bytes are in hexadecimal.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    address: String,
    msp_id: String,
    id: String,
    channel: String,
    grant: String,
    index: u32,
    sealed: String,
}

impl From<SealedShare> for Kept {
    fn from(share: SealedShare) -> Self {
        let SealedShare { address, proxy: Party { msp_id, id }, channel, grant, index, sealed } = share;
        Self { address, msp_id, id, channel, grant, index, sealed: hex::encode(sealed) }
    }
}

impl TryFrom<Kept> for SealedShare {
    type Error = hex::FromHexError;

    fn try_from(kept: Kept) -> Result<Self, hex::FromHexError> {
        let Kept { address, msp_id, id, channel, grant, index, sealed } = kept;
        let sealed = hex::decode(sealed)?.into();
        Ok(Self { address, proxy: Party { msp_id, id }, channel, grant, index, sealed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_that_was_kept_is_the_same_and_its_bytes_are_in_no_debug_output() {
        let share = SealedShare {
            address: "peer0.insurer.example.com:7051".to_owned(),
            proxy: Party { msp_id: "InsurerMSP".to_owned(), id: "x509::peer0::ca".to_owned() },
            channel: "patients".to_owned(),
            grant: "g1".to_owned(),
            index: 2,
            sealed: Bytes::from_static(&[0xc0, 0xff, 0xee]),
        };
        let text = serde_json::to_string(&share).unwrap();
        assert_eq!(serde_json::from_str::<SealedShare>(&text).unwrap(), share);
        assert!(serde_json::from_str::<SealedShare>(&text.replace("c0ffee", "c0ffe")).is_err());
        let shown = format!("{share:?}");
        assert!(shown.contains("g1") && !shown.contains("c0ffee") && !shown.contains("sealed:"), "{shown}");
    }
}
