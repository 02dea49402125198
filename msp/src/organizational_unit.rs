//! Organizational units: which of them an MSP accepts, and which stand for a role (NodeOUs).
//!
//! Source: Fabric documentation, "Membership Service Provider (MSP)", and `msp/mspimplvalidate.go`.

use std::{collections::BTreeMap, sync::Arc};

use consort_crypto::{certificate::Certificate, hash::HashAlgorithm};
use consort_protos::{
    fabric::msp::{FabricMspConfig, FabricOuIdentifier},
    ids::MspId,
};

use crate::{
    CertificatePool, IdentityError, MspError, MspVersion, Role,
    msp::{hash_chain, parse_certificate},
};

const PREFIX: &str = "could not validate identity's OUs: ";

/// A unit that stands for a role.
#[derive(Debug, Clone)]
pub(crate) struct NodeUnit {
    /// Name, compared with case.
    pub(crate) name: String,
    /// The certifiers that must stand behind it; none allows any of the MSP.
    certifiers: Option<[u8; 32]>,
}

/// The units that stand for roles, while NodeOUs are switched on.
#[derive(Debug, Clone)]
pub(crate) struct NodeUnits {
    units: Vec<(Role, NodeUnit)>,
    version: MspVersion,
}

impl NodeUnits {
    /// The unit for a role, if one is configured.
    pub(crate) fn of(&self, role: Role) -> Option<&NodeUnit> {
        self.units.iter().find(|(of, _)| *of == role).map(|(_, unit)| unit)
    }

    /// Exactly one unit of the subject must stand for a role, bound to the right certifiers.
    pub(crate) fn check(
        &self,
        carried: &[String],
        certifiers: &[u8; 32],
        msp: &MspId,
    ) -> Result<(), IdentityError> {
        let invalid = |text: String| IdentityError::Invalid(format!("{PREFIX}{text}"));
        let mut count = 0_usize;
        for name in carried {
            let Some((_, unit)) = self.units.iter().find(|(_, unit)| unit.name == *name) else { continue };
            if unit.certifiers.is_some_and(|wanted| wanted != *certifiers) {
                return Err(invalid(format!(
                    "certifiersIdentifier does not match: [{}], MSP: [{msp}]",
                    display(std::slice::from_ref(name), certifiers)
                )));
            }
            count += 1;
        }
        let shown = display(carried, certifiers);
        let four = self.version >= MspVersion::V1_4_3;
        match count {
            1 => Ok(()),
            0 if four => Err(invalid(format!(
                "the identity does not have an OU that resolves to client, peer, orderer, or admin role. OUs: [{shown}], MSP: [{msp}]"
            ))),
            0 => Err(invalid(format!(
                "the identity does not have an OU that resolves to client or peer. OUs: [{shown}], MSP: [{msp}]"
            ))),
            _ if four => Err(invalid(format!(
                "the identity must have a client, a peer, an orderer, or an admin OU role to be valid, not a combination of them. OUs: [{shown}], MSP: [{msp}]"
            ))),
            _ => Err(invalid(format!(
                "the identity must be a client or a peer identity to be valid, not a combination of them. OUs: [{shown}], MSP: [{msp}]"
            ))),
        }
    }
}

/// Units with the first eight bytes of the certifiers' identifier, as Fabric prints them.
fn display(units: &[String], certifiers: &[u8; 32]) -> String {
    let certifiers = hex::encode_upper(&certifiers[..8]);
    let shown: Vec<String> = units.iter().map(|unit| format!("{unit}({certifiers})")).collect();
    shown.join(" ")
}

/// The list of accepted units.
pub(crate) fn allowed(
    config: &FabricMspConfig,
    authorities: &CertificatePool,
    hash: HashAlgorithm,
) -> Result<BTreeMap<String, Vec<[u8; 32]>>, MspError> {
    let mut units: BTreeMap<String, Vec<[u8; 32]>> = BTreeMap::new();
    for identifier in &config.organizational_unit_identifiers {
        let certifiers = certifiers_of(&identifier.certificate, authorities, hash)?;
        let known = units.entry(identifier.organizational_unit_identifier.clone()).or_default();
        if !known.contains(&certifiers) {
            known.push(certifiers);
        }
    }
    Ok(units)
}

/// An identity needs one accepted unit, if a list of them is given.
pub(crate) fn check_allowed(
    allowed: &BTreeMap<String, Vec<[u8; 32]>>,
    carried: &[String],
    certifiers: &[u8; 32],
    msp: &MspId,
) -> Result<(), IdentityError> {
    if allowed.is_empty() {
        return Ok(());
    }
    if carried.is_empty() {
        return Err(IdentityError::Invalid(format!(
            "{PREFIX}the identity certificate does not contain an Organizational Unit (OU)"
        )));
    }
    if carried.iter().any(|unit| allowed.get(unit).is_some_and(|accepted| accepted.contains(certifiers))) {
        return Ok(());
    }
    Err(IdentityError::Invalid(format!(
        "{PREFIX}none of the identity's organizational units [{}] are in MSP {msp}",
        display(carried, certifiers)
    )))
}

/// The units that stand for roles; `None` while NodeOUs are off.
pub(crate) fn node_units(
    config: &FabricMspConfig,
    version: MspVersion,
    authorities: &CertificatePool,
    hash: HashAlgorithm,
) -> Result<Option<NodeUnits>, MspError> {
    let Some(node_ous) = config.fabric_node_ous.as_ref().filter(|_| version >= MspVersion::V1_1) else {
        return Ok(None);
    };
    let mut units = Vec::new();
    let mut add = |role: Role, identifier: Option<&FabricOuIdentifier>| -> Result<(), MspError> {
        let Some(identifier) = identifier else { return Ok(()) };
        let certifiers = if identifier.certificate.is_empty() {
            None
        } else {
            Some(certifiers_of(&identifier.certificate, authorities, hash)?)
        };
        let name = identifier.organizational_unit_identifier.clone();
        units.push((role, NodeUnit { name, certifiers }));
        Ok(())
    };
    let named = |identifier: Option<&FabricOuIdentifier>| {
        identifier.is_some_and(|identifier| !identifier.organizational_unit_identifier.is_empty())
    };
    let client = node_ous.client_ou_identifier.as_ref();
    let peer = node_ous.peer_ou_identifier.as_ref();
    add(Role::Client, client)?;
    add(Role::Peer, peer)?;
    if version < MspVersion::V1_4_3 {
        if !named(client) {
            return Err(MspError::MissingNodeUnit("ClientOU"));
        }
        if !named(peer) {
            return Err(MspError::MissingNodeUnit("PeerOU"));
        }
    } else {
        add(Role::Admin, node_ous.admin_ou_identifier.as_ref())?;
        add(Role::Orderer, node_ous.orderer_ou_identifier.as_ref())?;
    }
    let on = node_ous.enable && !units.is_empty();
    Ok(on.then_some(NodeUnits { units, version }))
}

/// Hash of a root, or of the chain of an intermediate with itself first.
fn certifiers_of(
    pem: &[u8],
    authorities: &CertificatePool,
    hash: HashAlgorithm,
) -> Result<[u8; 32], MspError> {
    let certificate: Arc<Certificate> = parse_certificate(pem)?;
    let same = |other: &&Arc<Certificate>| other.der() == certificate.der();
    if authorities.roots().iter().any(|root| same(&root)) {
        return Ok(hash_chain(hash, &[certificate]));
    }
    if !authorities.intermediates().iter().any(|intermediate| same(&intermediate)) {
        let name = certificate.subject_common_name().unwrap_or_default().to_owned();
        return Err(MspError::ForeignUnitCertificate(name));
    }
    let chain =
        authorities.only_chain(&certificate).map_err(|error| MspError::Authority(error.to_string()))?;
    Ok(hash_chain(hash, &chain))
}
