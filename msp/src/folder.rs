//! MSP folders: the layout in which organisations exchange and nodes keep their membership material.
//!
//! `cacerts/` (required), `intermediatecerts/`, `admincerts/`, `crls/`, `tlscacerts/`, `tlsintermediatecerts/` hold PEM files;
//! `signcerts/` and `keystore/` hold a node's or user's own identity; `config.yaml` switches NodeOUs on and may name the
//! `KeyAlgorithms` that are allowed. Source: Fabric
//! documentation, "Membership Service Provider (MSP)", and `msp/configbuilder.go`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use consort_crypto::{certificate::Certificate, key::KeyAlgorithm, pem};
use consort_protos::{
    fabric::msp::{FabricCryptoConfig, FabricMspConfig, FabricNodeOUs, FabricOuIdentifier},
    ids::MspId,
};
use serde::Deserialize;

use crate::{FolderError, Msp, MspVersion};

/// Nothing in an MSP folder is larger; a wrong file should not fill the memory.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// Reads the verifying part of an MSP folder (without `signcerts` and `keystore`) and checks that an MSP can be set up with it.
///
/// # Errors
/// [`FolderError`] with the file or folder and the rule it breaks.
pub fn load_config(path: impl AsRef<Path>, msp_id: &MspId) -> Result<FabricMspConfig, FolderError> {
    let path = path.as_ref();
    let config = read_config(path, msp_id)?;
    Msp::new(&config, MspVersion::V3_0)
        .map_err(|source| FolderError::Msp { path: path.to_owned(), source })?;
    Ok(config)
}

fn read_config(path: &Path, msp_id: &MspId) -> Result<FabricMspConfig, FolderError> {
    let cacerts = path.join("cacerts");
    if !cacerts.is_dir() {
        return Err(FolderError::NoRoots(cacerts));
    }
    let root_certs = pem_files(&cacerts)?;
    if root_certs.is_empty() {
        return Err(FolderError::NoRoots(cacerts));
    }
    let tls_root_certs = pem_files(&path.join("tlscacerts"))?;
    let tls_intermediate_certs =
        if tls_root_certs.is_empty() { Vec::new() } else { pem_files(&path.join("tlsintermediatecerts"))? };
    let yaml = FolderConfig::read(path)?;
    let crypto_config = Some(crypto_config(&root_certs, yaml.key_algorithms.unwrap_or_default()));
    let mut organizational_unit_identifiers = Vec::new();
    for unit in yaml.organizational_unit_identifiers.unwrap_or_default() {
        let certificate = read(&path.join(&unit.certificate))?;
        organizational_unit_identifiers.push(FabricOuIdentifier {
            certificate,
            organizational_unit_identifier: unit.organizational_unit_identifier,
        });
    }
    let fabric_node_ous =
        yaml.node_ous.filter(|units| units.enable).map(|units| units.into_message(path)).transpose()?;
    Ok(FabricMspConfig {
        name: msp_id.as_str().to_owned(),
        root_certs,
        intermediate_certs: pem_files(&path.join("intermediatecerts"))?,
        admins: pem_files(&path.join("admincerts"))?,
        revocation_list: pem_files(&path.join("crls"))?,
        signing_identity: None,
        organizational_unit_identifiers,
        crypto_config,
        tls_root_certs,
        tls_intermediate_certs,
        fabric_node_ous,
    })
}

/// Fabric's hashes, or SM3 where every root has a key of SM2.
fn crypto_config(roots: &[Bytes], key_algorithms: Vec<String>) -> FabricCryptoConfig {
    let is_sm2 = |pem: &Bytes| {
        let certificate = Certificate::from_pem(pem);
        certificate.is_ok_and(|root| root.public_key().key_algorithm() == Some(KeyAlgorithm::Sm2))
    };
    let (family, function) = if roots.iter().all(is_sm2) { ("SM3", "SM3") } else { ("SHA2", "SHA256") };
    FabricCryptoConfig {
        signature_hash_family: family.to_owned(),
        identity_identifier_hash_function: function.to_owned(),
        key_algorithms,
    }
}

/// The PEM files of a folder, sorted by name; other files and sub-folders are skipped. A folder that is missing is empty.
pub(crate) fn pem_files(folder: &Path) -> Result<Vec<Bytes>, FolderError> {
    Ok(files(folder)?
        .into_iter()
        .map(|(_, content)| content)
        .filter(|content| pem::first_block(content).is_some())
        .collect())
}

/// The files of a folder with their paths, sorted by name.
pub(crate) fn files(folder: &Path) -> Result<Vec<(PathBuf, Bytes)>, FolderError> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let unreadable = |source| FolderError::Unreadable { path: folder.to_owned(), source };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        // Follows symbolic links: Kubernetes mounts secrets that way.
        if path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    paths.into_iter().map(|path| read(&path).map(|content| (path, content))).collect()
}

pub(crate) fn read(path: &Path) -> Result<Bytes, FolderError> {
    let unreadable = |source| FolderError::Unreadable { path: path.to_owned(), source };
    let length = fs::metadata(path).map_err(unreadable)?.len();
    if length > MAX_FILE_BYTES {
        let rule = format!("{length} bytes are too many for a file of an MSP folder");
        return Err(FolderError::Rule { path: path.to_owned(), rule });
    }
    fs::read(path).map(Bytes::from).map_err(unreadable)
}

/// `config.yaml`; keys as Fabric writes them.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct FolderConfig {
    #[serde(default)]
    organizational_unit_identifiers: Option<Vec<UnitYaml>>,
    /// Consort's: which keys authorities and members may have (`p256`, `p384`, `ed25519`, `sm2`).
    #[serde(default)]
    key_algorithms: Option<Vec<String>>,
    #[serde(default, rename = "NodeOUs")]
    node_ous: Option<NodeUnitsYaml>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct UnitYaml {
    #[serde(default)]
    certificate: String,
    #[serde(default)]
    organizational_unit_identifier: String,
}

#[derive(Debug, Deserialize)]
struct NodeUnitsYaml {
    #[serde(default, rename = "Enable")]
    enable: bool,
    #[serde(default, rename = "ClientOUIdentifier")]
    client: Option<UnitYaml>,
    #[serde(default, rename = "PeerOUIdentifier")]
    peer: Option<UnitYaml>,
    #[serde(default, rename = "AdminOUIdentifier")]
    admin: Option<UnitYaml>,
    #[serde(default, rename = "OrdererOUIdentifier")]
    orderer: Option<UnitYaml>,
}

impl FolderConfig {
    fn read(folder: &Path) -> Result<Self, FolderError> {
        let path = folder.join("config.yaml");
        if !path.exists() {
            return Ok(Self::default());
        }
        let content = read(&path)?;
        let wrong = |reason: String| FolderError::Yaml { path: path.clone(), reason };
        let text = std::str::from_utf8(&content).map_err(|error| wrong(error.to_string()))?;
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_saphyr::from_str(text).map_err(|error| wrong(error.to_string()))
    }
}

impl NodeUnitsYaml {
    fn into_message(self, folder: &Path) -> Result<FabricNodeOUs, FolderError> {
        let unit = |unit: Option<UnitYaml>| -> Result<Option<FabricOuIdentifier>, FolderError> {
            let Some(unit) = unit.filter(|unit| !unit.organizational_unit_identifier.is_empty()) else {
                return Ok(None);
            };
            let file = folder.join(&unit.certificate);
            // A unit bound to no certificate accepts every issuer of the MSP: only an absent or missing file means that,
            // as in Fabric; a file that exists and cannot be read is an error.
            let certificate =
                if unit.certificate.is_empty() || !file.exists() { Bytes::new() } else { read(&file)? };
            Ok(Some(FabricOuIdentifier {
                certificate,
                organizational_unit_identifier: unit.organizational_unit_identifier,
            }))
        };
        Ok(FabricNodeOUs {
            enable: true,
            client_ou_identifier: unit(self.client)?,
            peer_ou_identifier: unit(self.peer)?,
            admin_ou_identifier: unit(self.admin)?,
            orderer_ou_identifier: unit(self.orderer)?,
        })
    }
}

/// Writes the verifying part of an MSP folder: the mirror image of [`load_config`]. NodeOUs refer to the root whose certificate
/// they carry.
///
/// # Errors
/// When a file cannot be written.
pub fn write_config(path: impl AsRef<Path>, config: &FabricMspConfig) -> Result<(), FolderError> {
    let path = path.as_ref();
    let lists: [(&str, &[Bytes]); 6] = [
        ("cacerts", &config.root_certs),
        ("intermediatecerts", &config.intermediate_certs),
        ("admincerts", &config.admins),
        ("crls", &config.revocation_list),
        ("tlscacerts", &config.tls_root_certs),
        ("tlsintermediatecerts", &config.tls_intermediate_certs),
    ];
    for (folder, files) in lists {
        for (index, content) in files.iter().enumerate() {
            write(&path.join(folder).join(file_name(folder, index)), content)?;
        }
    }
    if let Some(yaml) = yaml_of(config) {
        write(&path.join("config.yaml"), yaml.as_bytes())?;
    }
    Ok(())
}

/// Numbers with leading zeros, so that reading by name keeps the order.
fn file_name(folder: &str, index: usize) -> String {
    match (folder, index) {
        ("cacerts", 0) => "ca.pem".to_owned(),
        ("tlscacerts", 0) => "tlsca.pem".to_owned(),
        ("cacerts", _) => format!("ca-{index:03}.pem"),
        ("tlscacerts", _) => format!("tlsca-{index:03}.pem"),
        _ => format!("{index:03}.pem"),
    }
}

fn yaml_of(config: &FabricMspConfig) -> Option<String> {
    let file_of = |certificate: &Bytes| {
        let find = |folder: &str, list: &[Bytes]| {
            list.iter()
                .position(|other| !certificate.is_empty() && other == certificate)
                .map(|index| format!("{folder}/{}", file_name(folder, index)))
        };
        find("cacerts", &config.root_certs)
            .or_else(|| find("intermediatecerts", &config.intermediate_certs))
            .unwrap_or_default()
    };
    let entry = |unit: &FabricOuIdentifier, indent: &str| {
        let name = &unit.organizational_unit_identifier;
        format!(
            "{indent}Certificate: \"{}\"\n{indent}OrganizationalUnitIdentifier: {name:?}\n",
            file_of(&unit.certificate)
        )
    };
    let mut yaml = String::new();
    let algorithms = config.crypto_config.iter().flat_map(|crypto| &crypto.key_algorithms);
    let algorithms: Vec<String> = algorithms.map(|name| format!("{name:?}")).collect();
    if !algorithms.is_empty() {
        yaml.push_str(&format!("KeyAlgorithms: [{}]\n", algorithms.join(", ")));
    }
    if !config.organizational_unit_identifiers.is_empty() {
        yaml.push_str("OrganizationalUnitIdentifiers:\n");
        for unit in &config.organizational_unit_identifiers {
            yaml.push_str("  -\n");
            yaml.push_str(&entry(unit, "    "));
        }
    }
    if let Some(units) = &config.fabric_node_ous {
        yaml.push_str(&format!("NodeOUs:\n  Enable: {}\n", units.enable));
        for (key, unit) in [
            ("ClientOUIdentifier", &units.client_ou_identifier),
            ("PeerOUIdentifier", &units.peer_ou_identifier),
            ("AdminOUIdentifier", &units.admin_ou_identifier),
            ("OrdererOUIdentifier", &units.orderer_ou_identifier),
        ] {
            if let Some(unit) = unit {
                yaml.push_str(&format!("  {key}:\n{}", entry(unit, "    ")));
            }
        }
    }
    (!yaml.is_empty()).then_some(yaml)
}

fn write(path: &Path, content: &[u8]) -> Result<(), FolderError> {
    let unwritable = |source| FolderError::Unwritable { path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(unwritable)?;
    }
    fs::write(path, content).map_err(unwritable)
}
