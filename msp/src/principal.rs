//! Principals: what a policy may demand of a signer.
//!
//! Source: Fabric `msp/msp_principal.proto` and the rules of its X.509 provider. A principal is a role in an MSP, an
//! organizational unit, one certain identity, or several of these at once. Anonymous principals are refused, since X.509
//! certificates name their holder.

use std::fmt;

use consort_protos::fabric::{
    common::{
        CombinedPrincipal, MspIdentityAnonymity, MspPrincipal, MspRole, OrganizationUnit,
        msp_identity_anonymity::MspIdentityAnonymityType, msp_principal::Classification,
        msp_role::MspRoleType,
    },
    msp::SerializedIdentity,
};
use prost::Message;

use crate::{Identity, MspVersion, PrincipalError};

/// Combined principals may nest this deep; each level costs a decode.
const MAX_COMBINED_DEPTH: usize = 16;

/// A role that an identity can have in its MSP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Any valid identity of the MSP.
    Member,
    /// An administrator, listed or by organizational unit.
    Admin,
    /// A client, by organizational unit.
    Client,
    /// A peer, by organizational unit.
    Peer,
    /// An orderer, by organizational unit.
    Orderer,
}

impl Role {
    /// All roles, in the order of their values.
    pub const ALL: [Self; 5] = [Self::Member, Self::Admin, Self::Client, Self::Peer, Self::Orderer];

    fn upper(self) -> &'static str {
        match self {
            Self::Member => "MEMBER",
            Self::Admin => "ADMIN",
            Self::Client => "CLIENT",
            Self::Peer => "PEER",
            Self::Orderer => "ORDERER",
        }
    }

    pub(crate) fn from_proto(role: i32) -> Option<Self> {
        Some(match MspRoleType::try_from(role).ok()? {
            MspRoleType::Member => Self::Member,
            MspRoleType::Admin => Self::Admin,
            MspRoleType::Client => Self::Client,
            MspRoleType::Peer => Self::Peer,
            MspRoleType::Orderer => Self::Orderer,
        })
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Member => "member",
            Self::Admin => "admin",
            Self::Client => "client",
            Self::Peer => "peer",
            Self::Orderer => "orderer",
        })
    }
}

/// A role principal as a message, for policies made in code.
#[must_use]
pub fn role(msp_id: &str, role: Role) -> MspPrincipal {
    let kind = match role {
        Role::Member => MspRoleType::Member,
        Role::Admin => MspRoleType::Admin,
        Role::Client => MspRoleType::Client,
        Role::Peer => MspRoleType::Peer,
        Role::Orderer => MspRoleType::Orderer,
    };
    let message = MspRole { msp_identifier: msp_id.to_owned(), role: kind.into() };
    MspPrincipal {
        principal_classification: Classification::Role.into(),
        principal: message.encode_to_vec().into(),
    }
}

/// A principal in words: `Org1MSP.peer` for roles, a description for the others.
#[must_use]
pub fn describe(principal: &MspPrincipal) -> String {
    let bytes = principal.principal.as_ref();
    let unreadable = || format!("unreadable principal of type {}", principal.principal_classification);
    match Classification::try_from(principal.principal_classification) {
        Ok(Classification::Role) => MspRole::decode(bytes)
            .ok()
            .and_then(|role| Some(format!("{}.{}", role.msp_identifier, Role::from_proto(role.role)?)))
            .unwrap_or_else(unreadable),
        Ok(Classification::OrganizationUnit) => OrganizationUnit::decode(bytes).map_or_else(
            |_| unreadable(),
            |unit| format!("unit {} of {}", unit.organizational_unit_identifier, unit.msp_identifier),
        ),
        Ok(Classification::Identity) => SerializedIdentity::decode(bytes)
            .map_or_else(|_| unreadable(), |identity| format!("one certain identity of {}", identity.mspid)),
        Ok(Classification::Anonymity) => "anonymity".to_owned(),
        Ok(Classification::Combined) => "several principals at once".to_owned(),
        Err(_) => unreadable(),
    }
}

/// The MSP that a principal belongs to, when it names one.
#[must_use]
pub fn msp_id(principal: &MspPrincipal) -> Option<String> {
    msp_id_within(principal, MAX_COMBINED_DEPTH)
}

fn msp_id_within(principal: &MspPrincipal, depth: usize) -> Option<String> {
    let bytes = principal.principal.as_ref();
    match Classification::try_from(principal.principal_classification).ok()? {
        Classification::Role => Some(MspRole::decode(bytes).ok()?.msp_identifier),
        Classification::OrganizationUnit => Some(OrganizationUnit::decode(bytes).ok()?.msp_identifier),
        Classification::Identity => Some(SerializedIdentity::decode(bytes).ok()?.mspid),
        Classification::Combined if depth > 0 => {
            let members = CombinedPrincipal::decode(bytes).ok()?.principals;
            members.iter().find_map(|member| msp_id_within(member, depth - 1))
        }
        Classification::Anonymity | Classification::Combined => None,
    }
}

/// A principal, opened once for many questions.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Demand {
    /// A role, by far the most common.
    Role { msp_id: String, role: Role },
    /// Everything else, and roles that do not exist.
    Other(MspPrincipal),
}

impl Demand {
    pub(crate) fn new(principal: &MspPrincipal) -> Self {
        let role = match Classification::try_from(principal.principal_classification) {
            Ok(Classification::Role) => MspRole::decode(principal.principal.as_ref()).ok(),
            _ => None,
        };
        let known = role.and_then(|role| Some((Role::from_proto(role.role)?, role.msp_identifier)));
        known.map_or_else(|| Self::Other(principal.clone()), |(role, msp_id)| Self::Role { msp_id, role })
    }

    /// Whether an identity under its own MSP is what is demanded; [`satisfies`] says why not.
    pub(crate) fn is_met_by(&self, identity: &Identity) -> bool {
        match self {
            Self::Role { msp_id, role } => identity.msp_id().as_str() == msp_id && identity.has_role(*role),
            Self::Other(principal) => satisfies(identity, principal).is_ok(),
        }
    }
}

/// Judges one identity against one principal.
pub(crate) fn satisfies(identity: &Identity, principal: &MspPrincipal) -> Result<(), PrincipalError> {
    satisfies_within(identity, principal, MAX_COMBINED_DEPTH)
}

fn satisfies_within(
    identity: &Identity,
    principal: &MspPrincipal,
    depth: usize,
) -> Result<(), PrincipalError> {
    let version = identity.msp().version();
    let kind = principal.principal_classification;
    let bytes = principal.principal.as_ref();
    let invalid_type = || PrincipalError::new(format!("invalid principal type {kind}"));
    let unreadable =
        |error: prost::DecodeError| PrincipalError::new(format!("could not unmarshal principal: {error}"));
    match Classification::try_from(kind).map_err(|_| invalid_type())? {
        Classification::Role => satisfies_role(identity, &MspRole::decode(bytes).map_err(unreadable)?),
        Classification::OrganizationUnit => {
            satisfies_unit(identity, &OrganizationUnit::decode(bytes).map_err(unreadable)?)
        }
        Classification::Identity => satisfies_identity(identity, bytes),
        Classification::Anonymity | Classification::Combined if version < MspVersion::V1_3 => {
            Err(invalid_type())
        }
        Classification::Anonymity => {
            let anonymity = MspIdentityAnonymity::decode(bytes).map_err(unreadable)?;
            match MspIdentityAnonymityType::try_from(anonymity.anonymity_type) {
                Ok(MspIdentityAnonymityType::Nominal) => Ok(()),
                Ok(MspIdentityAnonymityType::Anonymous) => Err(PrincipalError::new(
                    "Principal is anonymous, but X.509 MSP does not support anonymous identities",
                )),
                Err(_) => Err(PrincipalError::new(format!(
                    "unknown principal anonymity type: {}",
                    anonymity.anonymity_type
                ))),
            }
        }
        Classification::Combined => {
            if depth == 0 {
                return Err(PrincipalError::new("combined principals are nested too deeply"));
            }
            let members = CombinedPrincipal::decode(bytes).map_err(unreadable)?.principals;
            if members.is_empty() {
                return Err(PrincipalError::new("No principals in CombinedPrincipal"));
            }
            members.iter().try_for_each(|member| satisfies_within(identity, member, depth - 1))
        }
    }
}

fn satisfies_role(identity: &Identity, wanted: &MspRole) -> Result<(), PrincipalError> {
    same_msp(identity, &wanted.msp_identifier)?;
    let unknown = || PrincipalError::new(format!("invalid MSP role type {}", wanted.role));
    check_role(identity, Role::from_proto(wanted.role).ok_or_else(unknown)?)
}

/// Whether an identity has a role under its own MSP.
pub(crate) fn check_role(identity: &Identity, role: Role) -> Result<(), PrincipalError> {
    let version = identity.msp().version();
    match role {
        Role::Member => valid(identity),
        Role::Admin => satisfies_admin(identity),
        Role::Orderer if version < MspVersion::V1_4_3 || identity.msp().node_units().is_none() => {
            // 4 is its number in the message.
            Err(PrincipalError::new("invalid MSP role type 4"))
        }
        role @ (Role::Client | Role::Peer | Role::Orderer) => {
            satisfies_node_unit(identity, role).map_err(|reason| {
                PrincipalError::new(format!(
                    "The identity is not a [{}] under this MSP [{}]: {reason}",
                    role.upper(),
                    identity.msp_id()
                ))
            })
        }
    }
}

fn satisfies_admin(identity: &Identity) -> Result<(), PrincipalError> {
    if identity.msp().is_listed_admin(identity.certificate()) {
        return Ok(());
    }
    if identity.msp().version() < MspVersion::V1_4_3 || identity.msp().node_units().is_none() {
        return Err(PrincipalError::new("This identity is not an admin"));
    }
    satisfies_node_unit(identity, Role::Admin).map_err(|reason| {
        PrincipalError::new(format!(
            "The identity is not an admin under this MSP [{}]: {reason}",
            identity.msp_id()
        ))
    })
}

/// Valid, and carrying the organizational unit that stands for the role.
fn satisfies_node_unit(identity: &Identity, role: Role) -> Result<(), PrincipalError> {
    let msp = identity.msp();
    let name = role.upper();
    let Some(units) = msp.node_units() else {
        return Err(PrincipalError::new("NodeOUs not activated. Cannot tell apart identities."));
    };
    valid(identity)?;
    let Some(unit) = units.of(role) else {
        return Err(PrincipalError::new(format!(
            "cannot test for classification, node ou for type [{name}], not defined, msp: [{}]",
            msp.id()
        )));
    };
    if identity.organizational_units().contains(&unit.name) {
        return Ok(());
    }
    Err(PrincipalError::new(format!("The identity does not contain OU [{name}], MSP: [{}]", msp.id())))
}

fn satisfies_unit(identity: &Identity, wanted: &OrganizationUnit) -> Result<(), PrincipalError> {
    same_msp(identity, &wanted.msp_identifier)?;
    valid(identity)?;
    let certifiers =
        identity.certifiers_identifier().map_err(|error| PrincipalError::new(error.to_string()))?;
    let named = identity.organizational_units().contains(&wanted.organizational_unit_identifier);
    if named && certifiers.as_slice() == wanted.certifiers_identifier.as_ref() {
        return Ok(());
    }
    Err(PrincipalError::new("The identities do not match"))
}

fn satisfies_identity(identity: &Identity, wanted: &[u8]) -> Result<(), PrincipalError> {
    let not_a_certificate = |reason: String| {
        PrincipalError::new(format!("invalid identity principal, not a certificate: {reason}"))
    };
    let wanted = SerializedIdentity::decode(wanted).map_err(|error| not_a_certificate(error.to_string()))?;
    if wanted.mspid != identity.msp_id().as_str() {
        return Err(PrincipalError::new("The identities do not match"));
    }
    let certificate = identity
        .msp()
        .read_certificate(&wanted.id_bytes)
        .map_err(|error| not_a_certificate(error.to_string()))?;
    if certificate.der() != identity.certificate().der() {
        return Err(PrincipalError::new("The identities do not match"));
    }
    valid(identity)
}

fn same_msp(identity: &Identity, wanted: &str) -> Result<(), PrincipalError> {
    let own = identity.msp_id().as_str();
    if own == wanted {
        return Ok(());
    }
    Err(PrincipalError::new(format!(
        "the identity is a member of a different MSP (expected {wanted}, got {own})"
    )))
}

fn valid(identity: &Identity) -> Result<(), PrincipalError> {
    identity.validate().map_err(|error| {
        PrincipalError::new(format!(
            "The identity is not valid under this MSP [{}]: {error}",
            identity.msp_id()
        ))
    })
}
