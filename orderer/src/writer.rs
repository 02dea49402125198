//! Makes an agreed block complete: metadata and this orderer's signature.
//!
//! Source of the form: Fabric `common/common.proto`, `orderer/common/multichannel/blockwriter.go`.

use bytes::Bytes;
use consort_crypto::preimage::block_signature;
use consort_msp::policy::SignedData;
use consort_protos::{
    block,
    fabric::common::{
        Block, BlockHeader, BlockMetadataIndex, LastConfig, Metadata, MetadataSignature,
        OrdererBlockMetadata, SignatureHeader,
    },
    ids::BlockNumber,
};
use prost::Message;

use crate::submission::Judge;

/// Completes blocks in the orderer's name.
#[derive(Debug)]
pub(crate) struct Writer;

impl Writer {
    /// Sets the entries for signatures and last configuration. `consenter_metadata` is the consensus' own.
    ///
    /// # Errors
    /// When the block has no header or the key cannot sign.
    pub(crate) fn complete(
        judge: &Judge,
        block: &mut Block,
        last_config: BlockNumber,
        consenter_metadata: Bytes,
    ) -> Result<(), String> {
        let header = block.header.clone().ok_or("the block has no header")?;
        let last_config = LastConfig { index: last_config.get() };
        // For index 0 the message has no bytes, and then neither has the entry.
        let entry = Metadata { value: last_config.encode_to_vec().into(), signatures: Vec::new() };
        let value: Bytes = OrdererBlockMetadata { last_config: Some(last_config), consenter_metadata }
            .encode_to_vec()
            .into();
        let signer = judge.identity.get();
        let signature_header: Bytes = Judge::signature_header(&signer).encode_to_vec().into();
        let signature = signer
            .sign(&block_signature(&value, &signature_header, &header))
            .map_err(|error| format!("the block cannot be signed: {error}"))?;
        let signature = MetadataSignature {
            signature_header,
            signature: signature.into(),
            ..MetadataSignature::default()
        };
        let signatures = Metadata { value, signatures: vec![signature] };
        block::set_metadata(block, BlockMetadataIndex::LastConfig, entry.encode_to_vec().into());
        block::set_metadata(block, BlockMetadataIndex::Signatures, signatures.encode_to_vec().into());
        Ok(())
    }

    /// What a signature of a block covers, ready for a policy.
    ///
    /// # Errors
    /// When the signature header does not parse.
    pub(crate) fn signed_data(
        value: &Bytes,
        signature: &MetadataSignature,
        header: &BlockHeader,
    ) -> Result<SignedData, String> {
        let signer = SignatureHeader::decode(signature.signature_header.clone())
            .map_err(|error| format!("failed unmarshalling signature header: {error}"))?;
        Ok(SignedData {
            identity: signer.creator,
            message: block_signature(value, &signature.signature_header, header).into(),
            signature: signature.signature.clone(),
        })
    }
}
