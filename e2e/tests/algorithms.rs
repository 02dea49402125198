//! Networks with other algorithms than Fabric's usual ones: SM2 beside P-256, and SM2 with SM3 alone.

use std::path::Path;

use anyhow::{Context, Result};
use consort_crypto::certificate::Certificate;
use consort_crypto::hash::HashAlgorithm;
use consort_crypto::key::KeyAlgorithm;
use consort_e2e::Network;
use consort_protos::fabric::common::Block;
use prost::Message;
use serde_json::Value;

/// Creates an asset and returns the commit as the tool shows it.
fn create(network: &Network, id: &str, user: &str) -> Result<Value> {
    let arguments = ["tx", "submit", "basic", "CreateAsset", id, "blue", "5", "Ada", "300", "--as", user];
    let committed = network.json(&arguments)?;
    assert_eq!(committed["code"], "VALID", "{committed}");
    Ok(committed)
}

fn owner_at(network: &Network, peer: &str, id: &str) -> Result<bool> {
    let read = network.json(&["tx", "evaluate", "basic", "ReadAsset", id, "--peer", peer])?;
    Ok(read["result"].as_str().unwrap_or_default().contains("\"Owner\":\"Ada\""))
}

fn certificate(folder: &Path, file: &str) -> Result<Certificate> {
    let path = folder.join(file);
    let text = std::fs::read(&path).with_context(|| path.display().to_string())?;
    Ok(Certificate::from_pem(text)?)
}

/// The algorithms of a peer's signing certificate and of its TLS certificate.
fn algorithms(network: &Network, domain: &str) -> Result<[Option<KeyAlgorithm>; 2]> {
    let peer = network.peer_organisation(domain).join(format!("peers/peer0.{domain}"));
    let of = |file| -> Result<_> { Ok(certificate(&peer, file)?.public_key().key_algorithm()) };
    Ok([of("msp/signcerts/cert.pem")?, of("tls/server.crt")?])
}

#[test]
fn an_organisation_with_sm2_and_one_with_p256_endorse_together() -> Result<()> {
    let network = Network::start("two-org-sm2")?;
    let (sm2, p256) = (Some(KeyAlgorithm::Sm2), Some(KeyAlgorithm::P256));
    assert_eq!(algorithms(&network, "org1.example.cn")?, [sm2, p256]);
    assert_eq!(algorithms(&network, "org2.example.com")?, [p256, p256]);

    // The chaincode's policy wants a peer of each; a client of each submits.
    create(&network, "by-sm2", "User1@org1.example.cn")?;
    create(&network, "by-p256", "User1@org2.example.com")?;
    for peer in ["peer0.org1.example.cn", "peer0.org2.example.com"] {
        for id in ["by-sm2", "by-p256"] {
            assert!(owner_at(&network, peer, id)?, "{id} at {peer}");
        }
    }
    Ok(())
}

#[test]
fn a_channel_with_national_algorithms_hashes_with_sm3_and_admits_sm2_alone() -> Result<()> {
    let network = Network::start("sm")?;
    for domain in ["org1.example.cn", "org2.example.cn"] {
        assert_eq!(algorithms(&network, domain)?, [Some(KeyAlgorithm::Sm2), Some(KeyAlgorithm::P256)]);
    }
    create(&network, "asset", "User1@org1.example.cn")?;
    assert!(owner_at(&network, "peer0.org2.example.cn", "asset")?);

    let blocks = network.data().join("blocks");
    std::fs::create_dir_all(&blocks)?;
    let mut previous: Option<Block> = None;
    for number in 0..3 {
        let file = blocks.join(format!("{number}.block"));
        let path = file.display().to_string();
        network.consort(&["channel", "fetch", &number.to_string(), "--to", &path])?.expect_success()?;
        let block = Block::decode(std::fs::read(&file)?.as_slice())?;
        let header = block.header.clone().context("a header")?;
        let data = block.data.clone().context("data")?;
        assert_eq!(header.data_hash, HashAlgorithm::Sm3.block_data_hash(&data).as_slice());
        if let Some(header_before) = previous.and_then(|block| block.header) {
            assert_eq!(header.previous_hash, HashAlgorithm::Sm3.block_hash(&header_before).as_slice());
        }
        previous = Some(block);
    }
    Ok(())
}
