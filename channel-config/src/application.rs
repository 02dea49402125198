//! The application's part of a configuration: the organisations that run peers, and who may do what.

use std::collections::BTreeMap;

use consort_protos::{
    fabric::{
        common::ConfigGroup,
        protos::{AcLs, AnchorPeers},
    },
    ids::MspId,
};

use crate::{
    acl,
    capabilities::{Capabilities, Level},
    names::{ACLS, ANCHOR_PEERS, CAPABILITIES, MSP},
    values::{Organisations, allow, capabilities, value},
};

/// What the application group says.
#[derive(Debug, Clone)]
pub struct ApplicationConfig {
    /// The organisations that run peers, by group name.
    pub organisations: Vec<ApplicationOrganisation>,
    /// The channel's own access rules: resource to absolute policy path.
    pub acls: BTreeMap<String, String>,
    /// What peers must understand.
    pub capabilities: Capabilities,
}

/// An organisation that runs peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplicationOrganisation {
    /// Name of its group.
    pub name: String,
    /// Its MSP.
    pub msp_id: MspId,
    /// Where others find it: host and port. Ports that no host can have are left out.
    pub anchor_peers: Vec<(String, u16)>,
}

impl ApplicationConfig {
    /// Reads the group; organisations' MSPs are added to `organisations`.
    pub(crate) fn read(group: &ConfigGroup, organisations: &mut Organisations) -> Result<Self, String> {
        allow(group, &[ACLS, CAPABILITIES])?;
        let capabilities = capabilities(group, Level::Application)?;
        let acls: Option<AcLs> = value(group, ACLS)?;
        if acls.is_some() && !capabilities.access_control_lists() {
            return Err("ACLs may not be specified without the required capability".to_owned());
        }
        let mut members = Vec::new();
        for (name, organisation) in &group.groups {
            if !organisation.groups.is_empty() {
                return Err("ApplicationOrg config does not allow sub-groups".to_owned());
            }
            allow(organisation, &[MSP, ANCHOR_PEERS])?;
            let anchors: AnchorPeers = value(organisation, ANCHOR_PEERS)?.unwrap_or_default();
            let msp_id = organisations.add(name, organisation)?;
            let anchor_peers = anchors
                .anchor_peers
                .into_iter()
                .filter_map(|anchor| Some((anchor.host, u16::try_from(anchor.port).ok()?)))
                .collect();
            members.push(ApplicationOrganisation { name: name.clone(), msp_id, anchor_peers });
        }
        Ok(Self {
            organisations: members,
            acls: acls.as_ref().map(acl::overrides).unwrap_or_default(),
            capabilities,
        })
    }
}
