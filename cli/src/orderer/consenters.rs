//! `consort orderer consenters`: who orders a channel, changed by updates of its configuration.
//!
//! Source: Fabric's documentation, "Reconfiguring the ordering service": one consenter at a time, and its endpoint with it.

use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use clap::{Args, Subcommand};
use consort_channel_config::{ChannelBundle, update};
use consort_client_sdk::ClientIdentity;
use consort_client_sdk::participation::OrdererAdmin;
use consort_protos::fabric::common::{
    Block, ChannelHeader, ConfigGroup, ConfigSignature, ConfigUpdateEnvelope, Envelope, HeaderType,
    OrdererAddresses, SignatureHeader,
};
use consort_protos::fabric::etcdraft::{ConfigMetadata, Consenter};
use consort_protos::fabric::orderer::ConsensusType;
use prost::Message;
use serde_json::{Value, json};

use super::{admin, find};
use crate::access::{Access, AccessOptions};
use crate::layout::{ADMINISTRATOR, MemberKind};
use crate::output::Output;
use crate::report::table;

/// Change the consenters of a channel, one at a time, by an update of its configuration
#[derive(Debug, Subcommand)]
pub(crate) enum ConsentersCommand {
    /// List the consenters
    #[command(after_help = "Example:\n  consort orderer consenters list")]
    List(ListOptions),
    /// Add an orderer; have it join the channel first, so that it follows and is up to date
    #[command(after_help = "Example:\n  consort orderer consenters add orderer4.example.com")]
    Add(ChangeOptions),
    /// Remove an orderer; it goes on as a follower until it leaves the channel
    #[command(after_help = "Example:\n  consort orderer consenters remove orderer3.example.com")]
    Remove(ChangeOptions),
    /// Give a consenter the TLS certificate that its orderer has now; restart that orderer afterwards
    #[command(after_help = "Example:\n  consort orderer consenters renew orderer3.example.com")]
    Renew(ChangeOptions),
}

#[derive(Debug, Args)]
pub(crate) struct ListOptions {
    #[command(flatten)]
    access: AccessOptions,

    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct ChangeOptions {
    #[command(flatten)]
    access: AccessOptions,

    /// The orderer that is added, removed or renewed
    #[arg(value_name = "HOST")]
    orderer: String,

    /// Its TLS certificate [default: the one in the network's data folder]
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,

    /// The orderer to send the update to [default: the first consenter that takes it]
    #[arg(long, value_name = "HOST")]
    through: Option<String>,

    #[command(flatten)]
    output: Output,
}

/// What happens to one consenter.
enum Change {
    Add(Consenter),
    Remove { host: String },
    Renew(Consenter),
}

/// Runs a `consort orderer consenters` command.
///
/// # Errors
/// The update makes no sense, or what the orderers answer.
pub(super) async fn run(command: ConsentersCommand) -> anyhow::Result<()> {
    match command {
        ConsentersCommand::List(options) => list(&options).await,
        ConsentersCommand::Add(options) => {
            let change = |access: &Access| Ok(Change::Add(consenter(access, &options)?));
            submit(&options, change, "is a consenter now").await
        }
        ConsentersCommand::Remove(options) => {
            let change = |_: &Access| Ok(Change::Remove { host: options.orderer.clone() });
            submit(&options, change, "is no consenter any more").await
        }
        ConsentersCommand::Renew(options) => {
            let change = |access: &Access| Ok(Change::Renew(consenter(access, &options)?));
            submit(&options, change, "is known by its new certificate; restart it").await
        }
    }
}

async fn list(options: &ListOptions) -> anyhow::Result<()> {
    let access = options.access.open()?;
    let bundle = first(&access, None, async |admin| current(&admin, access.channel()).await).await?;
    let consenters = &bundle.orderer().consenters;
    let entries: Vec<Value> =
        consenters.iter().map(|one| json!({ "host": one.host, "port": one.port })).collect();
    let json = json!({ "channel": access.channel(), "sequence": bundle.sequence(), "consenters": entries });
    options.output.print(&json, || {
        let mut lines = vec![vec!["CONSENTER".to_owned(), "PORT".to_owned()]];
        lines.extend(consenters.iter().map(|one| vec![one.host.clone(), one.port.to_string()]));
        table(&lines)
    })
}

async fn submit(
    options: &ChangeOptions,
    change: impl Fn(&Access) -> anyhow::Result<Change>,
    outcome: &str,
) -> anyhow::Result<()> {
    let access = options.access.open()?;
    let change = change(&access)?;
    let sequence = first(&access, options.through.as_deref(), async |admin| {
        let bundle = current(&admin, access.channel()).await?;
        let envelope = envelope(&access, &bundle, &change)?;
        admin.update(envelope.encode_to_vec().into()).await?;
        Ok(bundle.sequence() + 1)
    })
    .await?;
    let (host, channel) = (&options.orderer, access.channel());
    let json = json!({ "orderer": host, "channel": channel, "sequence": sequence });
    options
        .output
        .print(&json, || format!("{host} {outcome} (configuration {sequence} of channel {channel})"))
}

/// Asks the named orderer, or one after the other until one answers well; the last refusal otherwise.
async fn first<T>(
    access: &Access,
    named: Option<&str>,
    ask: impl AsyncFn(OrdererAdmin) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    if let Some(host) = named {
        let (organisation, orderer) = find(access, host)?;
        return ask(admin(access, organisation, orderer)?).await;
    }
    let mut last = anyhow::anyhow!("the network has no orderers");
    for (organisation, orderer) in access.topology.orderers() {
        match ask(admin(access, organisation, orderer)?).await {
            Ok(answer) => return Ok(answer),
            Err(error) if is_verdict(&error) => return Err(error),
            Err(error) => last = error.context(format!("through {}", orderer.host)),
        }
    }
    Err(last)
}

/// Whether an orderer has judged the request itself: another one would say the same. One that is down, leaderless, or no consenter has not.
fn is_verdict(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<consort_client_sdk::Error>() {
        Some(consort_client_sdk::Error::RestRefused { status: 400 | 403, message, .. }) => {
            !message.starts_with("channel does not exist")
        }
        Some(_) => false,
        None => true,
    }
}

/// The configuration in force, as an orderer knows it.
pub(super) async fn current(admin: &OrdererAdmin, channel: &str) -> anyhow::Result<ChannelBundle> {
    let block = admin.block(channel, "config").await?;
    let block = Block::decode(block).context("the orderer's answer is no block")?;
    ChannelBundle::from_block(&block).context("the orderer's configuration block cannot be read")
}

/// An orderer of the network as configurations name it.
fn consenter(access: &Access, options: &ChangeOptions) -> anyhow::Result<Consenter> {
    let (organisation, orderer) = find(access, &options.orderer)?;
    let folder = access.layout.node(MemberKind::Orderers, &organisation.member.domain, &orderer.host);
    let file = options.certificate.clone().unwrap_or_else(|| folder.join("tls/server.crt"));
    let certificate = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let certificate = Bytes::from(certificate);
    Ok(Consenter {
        host: orderer.host.clone(),
        port: orderer.port.into(),
        client_tls_cert: certificate.clone(),
        server_tls_cert: certificate,
    })
}

/// The update, signed by the administrators of all organisations that run orderers.
fn envelope(access: &Access, bundle: &ChannelBundle, change: &Change) -> anyhow::Result<Envelope> {
    let mut config = bundle.config().clone();
    let root = config.channel_group.as_mut().context("the configuration is empty")?;
    apply(root, change)?;
    let update = update::compute(bundle.config(), &config, bundle.channel())?.encode_to_vec();
    let administrators = access
        .topology
        .orderer_organisations
        .iter()
        .map(|organisation| access.identity_of(MemberKind::Orderers, &organisation.member, ADMINISTRATOR))
        .collect::<anyhow::Result<Vec<ClientIdentity>>>()?;
    let signatures = administrators
        .iter()
        .map(|administrator| {
            let header = signature_header(administrator).encode_to_vec();
            let preimage = consort_crypto::preimage::config_signature(&header, &update);
            let signature = administrator.sign(&preimage)?;
            Ok(ConfigSignature { signature_header: header.into(), signature })
        })
        .collect::<anyhow::Result<Vec<ConfigSignature>>>()?;
    let sender = administrators.first().context("no organisation runs orderers")?;
    let header = ChannelHeader {
        r#type: HeaderType::ConfigUpdate.into(),
        channel_id: bundle.channel().as_str().to_owned(),
        ..ChannelHeader::default()
    };
    let content = ConfigUpdateEnvelope { config_update: update.into(), signatures };
    let payload =
        consort_protos::envelope::payload(&header, &signature_header(sender), content.encode_to_vec().into());
    let signature = sender.sign(&payload)?;
    Ok(Envelope { payload, signature, ..Envelope::default() })
}

fn signature_header(identity: &ClientIdentity) -> SignatureHeader {
    let nonce: [u8; 24] = rand::random();
    SignatureHeader { creator: identity.serialized().clone(), nonce: Bytes::copy_from_slice(&nonce) }
}

/// Changes consenters and, with them, the endpoints by which peers find orderers.
fn apply(root: &mut ConfigGroup, change: &Change) -> anyhow::Result<()> {
    let orderer = root.groups.get_mut("Orderer").context("the channel has no ordering service")?;
    let value = orderer.values.get_mut("ConsensusType").context("the channel has no consensus type")?;
    let mut consensus = ConsensusType::decode(value.value.clone())?;
    ensure!(consensus.r#type == "etcdraft", "the channel's consensus is {}, not Raft", consensus.r#type);
    let mut metadata = ConfigMetadata::decode(consensus.metadata.clone())?;
    let endpoint = change_list(&mut metadata.consenters, change)?;
    consensus.metadata = metadata.encode_to_vec().into();
    value.value = consensus.encode_to_vec().into();
    match change {
        Change::Add(_) => add_endpoint(orderer, &endpoint),
        Change::Remove { .. } => {
            change_endpoints(orderer, |addresses| addresses.retain(|one| *one != endpoint))
        }
        Change::Renew(_) => Ok(()),
    }
}

/// Changes the list; answers the `host:port` of the entry.
fn change_list(consenters: &mut Vec<Consenter>, change: &Change) -> anyhow::Result<String> {
    let host = match change {
        Change::Add(new) | Change::Renew(new) => &new.host,
        Change::Remove { host } => host,
    };
    let at = consenters.iter().position(|one| one.host == *host);
    match (change, at) {
        (Change::Add(_), Some(_)) => bail!("{host} is a consenter already"),
        (Change::Add(new), None) => {
            consenters.push(new.clone());
            Ok(endpoint(new))
        }
        (Change::Remove { .. }, Some(at)) => Ok(endpoint(&consenters.remove(at))),
        (Change::Renew(new), Some(at)) => {
            ensure!(consenters[at] != *new, "{host} is known by this certificate already");
            consenters[at] = new.clone();
            Ok(endpoint(new))
        }
        (Change::Remove { .. } | Change::Renew(_), None) => {
            let known: Vec<&str> = consenters.iter().map(|one| one.host.as_str()).collect();
            bail!("{host} is no consenter (these are: {})", known.join(", "))
        }
    }
}

fn endpoint(consenter: &Consenter) -> String {
    format!("{}:{}", consenter.host, consenter.port)
}

/// Adds an endpoint to the organisation whose endpoints share its domain.
fn add_endpoint(orderer: &mut ConfigGroup, endpoint: &str) -> anyhow::Result<()> {
    let domain = |text: &str| {
        let host = text.rsplit_once(':').map_or(text, |(host, _)| host);
        host.split_once('.').map(|(_, domain)| domain.to_owned())
    };
    let wanted = domain(endpoint);
    for group in orderer.groups.values_mut() {
        let Some(value) = group.values.get_mut("Endpoints") else { continue };
        let mut list = OrdererAddresses::decode(value.value.clone())?;
        if list.addresses.iter().any(|one| domain(one) == wanted)
            && !list.addresses.iter().any(|one| one == endpoint)
        {
            list.addresses.push(endpoint.to_owned());
            value.value = list.encode_to_vec().into();
            return Ok(());
        }
    }
    // Without a list of its own the organisation's orderers are found by the consenters themselves.
    Ok(())
}

fn change_endpoints(orderer: &mut ConfigGroup, change: impl Fn(&mut Vec<String>)) -> anyhow::Result<()> {
    for group in orderer.groups.values_mut() {
        let Some(value) = group.values.get_mut("Endpoints") else { continue };
        let mut list = OrdererAddresses::decode(value.value.clone())?;
        let before = list.addresses.clone();
        change(&mut list.addresses);
        if list.addresses != before {
            value.value = list.encode_to_vec().into();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use consort_protos::fabric::common::ConfigValue;

    use super::*;

    fn consenter(host: &str, certificate: &'static [u8]) -> Consenter {
        Consenter {
            host: host.to_owned(),
            port: 7050,
            client_tls_cert: Bytes::from_static(certificate),
            server_tls_cert: Bytes::from_static(certificate),
        }
    }

    fn value(message: &impl Message) -> ConfigValue {
        ConfigValue { value: message.encode_to_vec().into(), ..ConfigValue::default() }
    }

    fn channel() -> ConfigGroup {
        let metadata = ConfigMetadata {
            consenters: vec![consenter("o1.example.com", b"1"), consenter("o2.example.com", b"2")],
            ..ConfigMetadata::default()
        };
        let consensus = ConsensusType {
            r#type: "etcdraft".to_owned(),
            metadata: metadata.encode_to_vec().into(),
            ..ConsensusType::default()
        };
        let addresses = vec!["o1.example.com:7050".to_owned(), "o2.example.com:7050".to_owned()];
        let organisation = ConfigGroup {
            values: BTreeMap::from([("Endpoints".to_owned(), value(&OrdererAddresses { addresses }))]),
            ..ConfigGroup::default()
        };
        let orderer = ConfigGroup {
            values: BTreeMap::from([("ConsensusType".to_owned(), value(&consensus))]),
            groups: BTreeMap::from([("OrdererOrg".to_owned(), organisation)]),
            ..ConfigGroup::default()
        };
        ConfigGroup { groups: BTreeMap::from([("Orderer".to_owned(), orderer)]), ..ConfigGroup::default() }
    }

    fn consenters(root: &ConfigGroup) -> Vec<(String, Bytes)> {
        let value = &root.groups["Orderer"].values["ConsensusType"].value;
        let consensus = ConsensusType::decode(value.clone()).unwrap();
        let metadata = ConfigMetadata::decode(consensus.metadata).unwrap();
        metadata.consenters.into_iter().map(|one| (one.host, one.server_tls_cert)).collect()
    }

    fn endpoints(root: &ConfigGroup) -> Vec<String> {
        let value = &root.groups["Orderer"].groups["OrdererOrg"].values["Endpoints"].value;
        OrdererAddresses::decode(value.clone()).unwrap().addresses
    }

    #[test]
    fn a_consenter_comes_and_goes_with_its_endpoint() {
        let mut root = channel();
        apply(&mut root, &Change::Add(consenter("o3.example.com", b"3"))).unwrap();
        assert_eq!(consenters(&root).len(), 3);
        assert_eq!(endpoints(&root)[2], "o3.example.com:7050");
        apply(&mut root, &Change::Remove { host: "o1.example.com".to_owned() }).unwrap();
        assert_eq!(consenters(&root)[0].0, "o2.example.com");
        assert_eq!(endpoints(&root), ["o2.example.com:7050", "o3.example.com:7050"]);
        apply(&mut root, &Change::Renew(consenter("o2.example.com", b"new"))).unwrap();
        assert_eq!(consenters(&root)[0].1, Bytes::from_static(b"new"));
    }

    #[test]
    fn changes_that_make_no_sense_are_explained() {
        let mut root = channel();
        let mut refused = |change| apply(&mut root, &change).unwrap_err().to_string();
        assert_eq!(
            refused(Change::Add(consenter("o1.example.com", b"1"))),
            "o1.example.com is a consenter already"
        );
        assert_eq!(
            refused(Change::Remove { host: "o9".to_owned() }),
            "o9 is no consenter (these are: o1.example.com, o2.example.com)"
        );
        assert_eq!(
            refused(Change::Renew(consenter("o1.example.com", b"1"))),
            "o1.example.com is known by this certificate already"
        );
    }
}
