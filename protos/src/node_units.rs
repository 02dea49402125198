//! The organisational units that tell an organisation's clients, peers, administrators and orderers apart.

use bytes::Bytes;

use crate::fabric::msp::{FabricNodeOUs, FabricOuIdentifier};

impl FabricNodeOUs {
    /// The four units under the names that Fabric's tools give them (Fabric's documentation, "Membership Service Provider", NodeOUs), for
    /// certificates below `certificate` (PEM), or below any of the organisation's authorities if that is empty.
    #[must_use]
    pub fn named(certificate: &Bytes) -> Self {
        let unit = |name: &str| {
            let organizational_unit_identifier = name.to_owned();
            Some(FabricOuIdentifier { certificate: certificate.clone(), organizational_unit_identifier })
        };
        Self {
            enable: true,
            client_ou_identifier: unit("client"),
            peer_ou_identifier: unit("peer"),
            admin_ou_identifier: unit("admin"),
            orderer_ou_identifier: unit("orderer"),
        }
    }
}
