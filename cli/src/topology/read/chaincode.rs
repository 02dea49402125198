//! Reading the chaincodes of a topology.

use std::path::{Path, PathBuf};

use super::super::document::Node;
use super::super::names::NameRule;
use super::super::section::Section;
use super::super::{ChaincodeSource, ChaincodeSpec, Collection};
use super::Reader;

impl Reader<'_> {
    pub(super) fn chaincodes(&mut self, section: &mut Section<'_>) -> Vec<ChaincodeSpec> {
        let mut chaincodes = Vec::new();
        for (index, node) in section.list("chaincodes", self.faults).iter().enumerate() {
            let place = format!("chaincode {}", index + 1);
            let Some(mut section) = Section::new(node, place, self.faults) else { continue };
            chaincodes.extend(self.chaincode(&mut section));
            section.finish(self.faults);
        }
        chaincodes
    }

    fn chaincode(&mut self, section: &mut Section<'_>) -> Option<ChaincodeSpec> {
        let name = self.named(section, "name", NameRule::Chaincode);
        let version = self.named(section, "version", NameRule::Version);
        let source = self.source(section);
        let owner = format!("chaincode {}", name.as_ref().map_or("?", |name| &name.value));
        if let Some(name) = &name {
            self.claims.name("chaincode name", &name.value, &owner, name.line, self.faults);
        }
        let policy = section.optional_text("endorsement_policy", self.faults);
        if let Some(policy) = policy.as_ref().filter(|policy| !policy.value.starts_with('/')) {
            self.check_signature_policy(&owner, policy);
        }
        let init_required = section.optional_flag("init_required", self.faults).unwrap_or(false);
        let nodes = section.list("collections", self.faults);
        let collections = nodes.iter().filter_map(|node| self.collection(node, &owner)).collect();
        Some(ChaincodeSpec {
            name: name?.value,
            version: version?.value,
            source: source?,
            endorsement_policy: policy.map(|policy| policy.value),
            init_required,
            collections,
        })
    }

    fn source(&mut self, section: &mut Section<'_>) -> Option<ChaincodeSource> {
        let path = section.optional_text("path", self.faults);
        let package = section.optional_text("package", self.faults);
        match (path, package) {
            (Some(path), None) => {
                let folder = self.relative(&path.value);
                if !folder.join("Cargo.toml").is_file() {
                    let message = format!("chaincode path {}: no Cargo.toml there", folder.display());
                    self.faults.error(path.line, message);
                }
                Some(ChaincodeSource::Crate(folder))
            }
            (None, Some(package)) => {
                let file = self.relative(&package.value);
                if !file.is_file() {
                    self.faults
                        .error(package.line, format!("chaincode package {}: no such file", file.display()));
                }
                Some(ChaincodeSource::Package(file))
            }
            (Some(_), Some(package)) => {
                let message = "a chaincode has either 'path' (a crate to build) or 'package', not both";
                self.faults.error(package.line, message);
                None
            }
            (None, None) => {
                let message = "a chaincode needs 'path' (a crate to build) or 'package' (a .tar.gz)";
                self.faults.error(section.line(), message);
                None
            }
        }
    }

    fn relative(&self, path: &str) -> PathBuf {
        let path = Path::new(path);
        let path = if path.is_absolute() { path.to_owned() } else { self.folder.join(path) };
        // What exists gets its plain name; what does not is reported as it was written.
        std::fs::canonicalize(&path).unwrap_or(path)
    }

    fn collection(&mut self, node: &Node, owner: &str) -> Option<Collection> {
        let mut section = Section::new(node, format!("collection of {owner}"), self.faults)?;
        let name = self.named(&mut section, "name", NameRule::Collection);
        let owner = format!("{owner}, collection {}", name.as_ref().map_or("?", |name| &name.value));
        if let Some(name) = &name {
            // One collection may carry the name of another chaincode's, so the owner is part of the claim.
            let line = name.line;
            self.claims.name("collection", &owner, &owner, line, self.faults);
        }
        let policy = section.text("policy", self.faults);
        if let Some(policy) = &policy {
            self.check_signature_policy(&owner, policy);
        }
        let endorsement = section.optional_text("endorsement_policy", self.faults);
        if let Some(policy) = endorsement.as_ref().filter(|policy| !policy.value.starts_with('/')) {
            self.check_signature_policy(&owner, policy);
        }
        let mut count = |key, section: &mut Section<'_>| {
            let number = section.optional_number(key, 0..=i32::MAX.unsigned_abs().into(), self.faults);
            number.and_then(|number| u32::try_from(number.value).ok())
        };
        let required_peers = count("required_peers", &mut section).unwrap_or(0);
        let max_peers = count("max_peers", &mut section).unwrap_or(required_peers.max(1));
        if max_peers < required_peers {
            let message = format!("{owner}: 'max_peers' must not be smaller than 'required_peers'");
            self.faults.error(section.line(), message);
        }
        let block_to_live = section.optional_number("block_to_live", 0..=u64::MAX, self.faults);
        let member_only_read = section.optional_flag("member_only_read", self.faults).unwrap_or(true);
        let member_only_write = section.optional_flag("member_only_write", self.faults).unwrap_or(true);
        let salted_hashes = section.optional_flag("salted_hashes", self.faults).unwrap_or(false);
        section.finish(self.faults);
        Some(Collection {
            name: name?.value,
            policy: policy?.value,
            required_peers,
            max_peers,
            block_to_live: block_to_live.map_or(0, |blocks| blocks.value),
            member_only_read,
            member_only_write,
            salted_hashes,
            endorsement_policy: endorsement.map(|policy| policy.value),
        })
    }
}
