//! Configuration transactions of the test network: its administrators agree to everything.

use bytes::Bytes;
use consort_channel_config::ChannelBundle;
use consort_channel_config::update::compute;
use consort_crypto::preimage;
use consort_msp::SigningIdentity;
use consort_protos::fabric::common::{
    Capabilities, Capability, ChannelHeader, ConfigEnvelope, ConfigGroup, ConfigSignature,
    ConfigUpdateEnvelope, ConfigValue, Envelope, Header, HeaderType, Payload, SignatureHeader,
};
use consort_protos::fabric::msp::{FabricMspConfig, MspConfig};
use consort_protos::fabric::protos::{AcLs, ApiResource};
use prost::Message;

use super::{CHANNEL, Network};

impl Network {
    /// The CONFIG transaction that changes existing values or policies, agreed to by all administrators and signed by the orderer.
    pub(crate) fn configuration(
        &self,
        bundle: &ChannelBundle,
        change: impl FnOnce(&mut ConfigGroup),
    ) -> Bytes {
        let mut updated = bundle.config().clone();
        change(updated.channel_group.as_mut().expect("a channel group"));
        let update = compute(bundle.config(), &updated, bundle.channel()).expect("a difference");
        let config_update = Bytes::from(update.encode_to_vec());
        let admins =
            [&self.org1, &self.org2, &self.orderer].map(|organisation| organisation.identity("admin"));
        let sign = |admin: &std::sync::Arc<SigningIdentity>| {
            let signature_header = header_of(admin);
            let message = preimage::config_signature(&signature_header, &config_update);
            ConfigSignature { signature_header, signature: admin.sign(&message).expect("a signature").into() }
        };
        let signatures = admins.iter().map(sign).collect();
        let signed = ConfigUpdateEnvelope { config_update: config_update.clone(), signatures };
        let update = seal(&self.org1.client, HeaderType::ConfigUpdate, &signed.encode_to_vec());
        let before = bundle.config().channel_group.as_ref().expect("a channel group");
        raise_versions(before, updated.channel_group.as_mut().expect("a channel group"));
        updated.sequence += 1;
        let config = ConfigEnvelope { config: Some(updated), last_update: Some(update) };
        let ordered = seal(&self.orderer.orderer, HeaderType::Config, &config.encode_to_vec());
        ordered.encode_to_vec().into()
    }
}

/// Raises the versions of the values and policies that changed, as authorising an update does.
fn raise_versions(before: &ConfigGroup, after: &mut ConfigGroup) {
    for (name, value) in &mut after.values {
        if before.values[name] != *value {
            value.version += 1;
        }
    }
    for (name, policy) in &mut after.policies {
        if before.policies[name] != *policy {
            policy.version += 1;
        }
    }
    for (name, group) in &mut after.groups {
        raise_versions(&before.groups[name], group);
    }
}

/// Demands a capability of the application section that no peer has.
pub(crate) fn demand_the_unknown(root: &mut ConfigGroup) {
    demand(root, "V9_9");
}

/// Demands a capability of the application section.
pub(crate) fn demand(root: &mut ConfigGroup, name: &str) {
    let application = root.groups.get_mut("Application").expect("an application group");
    let entry = application.values.get_mut("Capabilities").expect("capabilities");
    let mut demanded = Capabilities::decode(entry.value.clone()).expect("capabilities");
    demanded.capabilities.insert(name.to_owned(), Capability {});
    entry.value = demanded.encode_to_vec().into();
}

/// Guards resources by a policy of this channel's own.
pub(crate) fn guard(root: &mut ConfigGroup, resources: &[&str], policy: &str) {
    let application = root.groups.get_mut("Application").expect("an application group");
    let entry = ApiResource { policy_ref: policy.to_owned() };
    let acls = resources.iter().map(|resource| ((*resource).to_owned(), entry.clone())).collect();
    let value = AcLs { acls }.encode_to_vec().into();
    let value = ConfigValue { version: 0, value, mod_policy: "Admins".to_owned() };
    application.values.insert("ACLs".to_owned(), value);
}

/// Puts a list of revoked certificates into the definition of an organisation, wherever the channel has one.
pub(crate) fn revoke(root: &mut ConfigGroup, msp_id: &str, list: &Bytes) {
    for group in root.groups.values_mut() {
        revoke(group, msp_id, list);
    }
    let Some(value) = root.values.get_mut("MSP") else { return };
    let mut msp = MspConfig::decode(value.value.clone()).expect("readable");
    let mut fabric = FabricMspConfig::decode(msp.config).expect("readable");
    if fabric.name == msp_id {
        fabric.revocation_list.push(list.clone());
    }
    msp.config = fabric.encode_to_vec().into();
    value.value = msp.encode_to_vec().into();
}

fn header_of(signer: &SigningIdentity) -> Bytes {
    let nonce: [u8; 24] = rand::random();
    SignatureHeader { creator: signer.serialized().clone(), nonce: Bytes::copy_from_slice(&nonce) }
        .encode_to_vec()
        .into()
}

fn seal(signer: &SigningIdentity, kind: HeaderType, data: &[u8]) -> Envelope {
    let channel_header =
        ChannelHeader { r#type: kind.into(), channel_id: CHANNEL.to_owned(), ..ChannelHeader::default() };
    let header =
        Header { channel_header: channel_header.encode_to_vec().into(), signature_header: header_of(signer) };
    let payload = Payload { header: Some(header), data: Bytes::copy_from_slice(data) };
    let payload = Bytes::from(payload.encode_to_vec());
    let signature = signer.sign(&payload).expect("a signature").into();
    Envelope { payload, signature, ..Envelope::default() }
}
