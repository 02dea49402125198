//! `consort channel policy`: who could satisfy a policy of the channel, before anybody signs.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use consort_channel_config::ChannelBundle;
use consort_client_sdk::ClientIdentity;
use consort_crypto::certificate::Certificate;
use consort_msp::policy::{self, Explanation, Policy, SignaturePolicy};
use consort_msp::{Identity, serialize};
use consort_protos::fabric::common::{ConfigGroup, ConfigPolicy};
use consort_protos::ids::MspId;
use serde_json::{Value, json};

use super::{current, words};
use crate::access::{Access, AccessOptions};
use crate::layout::{ADMINISTRATOR, MemberKind, members};
use crate::output::Output;

#[derive(Debug, Args)]
pub(crate) struct PolicyOptions {
    #[command(flatten)]
    access: AccessOptions,

    /// The policy, such as /Channel/Application/Writers [default: list all]
    #[arg(long, value_name = "POLICY")]
    path: Option<String>,

    /// A signature policy that is in no channel yet, such as "AND('Org1MSP.peer', 'Org2MSP.peer')"
    #[arg(long, value_name = "TEXT", conflicts_with = "path")]
    rule: Option<String>,

    /// Who would sign: a user or node of the network (Admin@org1.example.com, peer0.org1.example.com), or MSPID:PATH with a
    /// certificate file or MSP folder; repeat, or separate by commas [default: everybody in the network's folder could]
    #[arg(long = "signers", value_name = "WHO", value_delimiter = ',')]
    signers: Vec<String>,

    #[command(flatten)]
    output: Output,
}

/// Shows who could satisfy a policy, or whether given signers do.
///
/// # Errors
/// There is no such policy or signer, or the signers do not satisfy it.
pub(crate) async fn show(options: &PolicyOptions) -> anyhow::Result<()> {
    let access = options.access.open()?;
    let bundle = current(&access).await?;
    let named;
    let (policy, rule) = match (&options.path, &options.rule) {
        (Some(path), _) => (find(&bundle, path)?, rule_at(&bundle, path)),
        (None, Some(text)) => {
            let envelope = policy::parse(text).with_context(|| format!("'{text}' is no signature policy"))?;
            let rule = policy::to_text(&envelope);
            named = Policy::signature(
                "the rule",
                SignaturePolicy::from_proto(&envelope)?,
                Arc::clone(bundle.msps()),
            );
            (&named, rule)
        }
        (None, None) => return list(&bundle, options.output),
    };
    let given = !options.signers.is_empty();
    let signers = if given { find_signers(&access, &options.signers)? } else { everybody(&access) };
    let (known, strangers) = read(&bundle, &signers, given);
    let judgement = Judgement::new(policy, &known, given);
    let json = json!({
        "channel": bundle.channel().to_string(),
        "policy": policy.name(),
        "rule": rule,
        "enough": sets_json(policy),
        "satisfied": judgement.satisfied,
        "explanation": tree_json(&judgement.tree),
        "not_counted": strangers,
    });
    options.output.print(&json, || {
        let mut lines =
            vec![format!("{}: {rule}", policy.name()), format!("Enough: {}", words::sets(policy))];
        let who = if given { "these signers" } else { "everybody in the network's folder" };
        lines.push(format!("With {who}:"));
        lines.extend(judgement.tree.to_string().lines().map(|line| format!("  {line}")));
        lines.extend(strangers.iter().map(|line| format!("  not counted: {line}")));
        lines.join("\n")
    })?;
    if given && !judgement.satisfied {
        bail!("these signers do not satisfy {}", policy.name());
    }
    Ok(())
}

/// What the policy says of the signers, and why.
struct Judgement {
    satisfied: bool,
    tree: Explanation,
}

impl Judgement {
    /// Of given signers the exact verdict counts, as nodes would give it; of candidates, whether there are enough.
    fn new(policy: &Policy, signers: &[Arc<Identity>], given: bool) -> Self {
        let possible = policy.dry_run(signers);
        match policy.evaluate_identities(signers) {
            Err(refusal) if given => Self { satisfied: false, tree: refusal.explanation().clone() },
            _ => Self { satisfied: possible.satisfied, tree: possible },
        }
    }
}

fn list(bundle: &ChannelBundle, output: Output) -> anyhow::Result<()> {
    let all: Vec<Value> = bundle
        .policies()
        .iter()
        .map(|(path, policy)| json!({ "policy": path, "rule": rule_at(bundle, &path), "enough": sets_json(policy) }))
        .collect();
    output.print(&json!({ "channel": bundle.channel().to_string(), "policies": all }), || {
        let one = |(path, policy): (String, &Policy)| {
            format!("{path}: {}\n    enough: {}", rule_at(bundle, &path), words::sets(policy))
        };
        bundle.policies().iter().map(one).collect::<Vec<_>>().join("\n")
    })
}

fn find<'a>(bundle: &'a ChannelBundle, path: &str) -> anyhow::Result<&'a Policy> {
    bundle.policies().policy(path).with_context(|| {
        let known: Vec<String> = bundle.policies().iter().map(|(path, _)| path).collect();
        format!("channel {} has no policy {path}.\nIt has:\n  {}", bundle.channel(), known.join("\n  "))
    })
}

/// The policy's rule as it is written in profiles.
fn rule_at(bundle: &ChannelBundle, path: &str) -> String {
    let relative = path.strip_prefix("/Channel/").unwrap_or(path);
    let mut parts: Vec<&str> = relative.split('/').collect();
    let name = parts.pop().unwrap_or_default();
    let root = bundle.config().channel_group.as_ref();
    let group = parts.iter().try_fold(root, |group, part| {
        let group: &ConfigGroup = group?;
        Some(group.groups.get(*part))
    });
    let found: Option<&ConfigPolicy> = group.flatten().and_then(|group| group.policies.get(name));
    words::rule(found)
}

fn sets_json(policy: &Policy) -> Vec<Value> {
    let one = |set: &std::collections::BTreeMap<MspId, usize>| {
        set.iter()
            .map(|(msp, count)| (msp.to_string(), json!(count)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    policy.organisation_sets().iter().map(one).collect()
}

fn tree_json(tree: &Explanation) -> Value {
    json!({
        "requirement": tree.requirement,
        "satisfied": tree.satisfied,
        "notes": tree.notes,
        "branches": tree.branches.iter().map(tree_json).collect::<Vec<_>>(),
    })
}

/// Somebody who would sign, and how he was named.
struct Signer {
    name: String,
    serialized: bytes::Bytes,
}

fn signer(name: &str, identity: &ClientIdentity) -> Signer {
    Signer { name: name.to_owned(), serialized: identity.serialized().clone() }
}

/// Those whom the network's folder has credentials of: administrators, users, peers, orderers.
fn everybody(access: &Access) -> Vec<Signer> {
    let mut found = Vec::new();
    for (kind, member) in members(&access.topology) {
        for user in std::iter::once(ADMINISTRATOR).chain(member.users.iter().map(String::as_str)) {
            let identity = access.identity_of(kind, member, user).ok();
            found.extend(identity.map(|identity| signer(&format!("{user}@{}", member.domain), &identity)));
        }
    }
    let hosts = access.topology.peers().map(|(_, peer)| &peer.host);
    let hosts = hosts.chain(access.topology.orderers().map(|(_, orderer)| &orderer.host));
    found.extend(hosts.filter_map(|host| node(access, host)));
    found
}

fn find_signers(access: &Access, names: &[String]) -> anyhow::Result<Vec<Signer>> {
    names.iter().map(|name| find_signer(access, name)).collect()
}

fn find_signer(access: &Access, name: &str) -> anyhow::Result<Signer> {
    if let Some((msp_id, path)) = name.split_once(':') {
        let msp_id = MspId::parse(msp_id).with_context(|| format!("'{msp_id}' is no MSP id"))?;
        let certificate = certificate(Path::new(path))?;
        return Ok(Signer { name: name.to_owned(), serialized: serialize(&msp_id, &certificate) });
    }
    if let Some((user, domain)) = name.split_once('@') {
        let (kind, member) = members(&access.topology)
            .find(|(_, member)| member.domain == domain)
            .with_context(|| format!("the network has no organisation with the domain '{domain}'"))?;
        return Ok(signer(name, &access.identity_of(kind, member, user)?));
    }
    node(access, name).with_context(|| {
        format!(
            "'{name}' is no node of the network with credentials here.\nRemedy: name a node by its host, a user as \
             User1@org1.example.com, or anybody as MSPID:PATH with a certificate file or MSP folder."
        )
    })
}

fn node(access: &Access, host: &str) -> Option<Signer> {
    let peer = access.topology.peers().find(|(_, peer)| peer.host == host);
    let peer = peer.map(|(organisation, _)| (MemberKind::Peers, &organisation.member));
    let orderer = access.topology.orderers().find(|(_, orderer)| orderer.host == host);
    let orderer = orderer.map(|(organisation, _)| (MemberKind::Orderers, &organisation.member));
    let (kind, member) = peer.or(orderer)?;
    let folder = access.layout.node(kind, &member.domain, host).join("msp");
    ClientIdentity::from_folder(&folder, &member.msp_id).ok().map(|identity| signer(host, &identity))
}

/// The certificate in a file, or that of an MSP folder.
fn certificate(path: &Path) -> anyhow::Result<Certificate> {
    let file = if path.is_dir() {
        let folder = path.join("signcerts");
        let first =
            std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?.next();
        first.with_context(|| format!("{} is empty", folder.display()))??.path()
    } else {
        path.to_owned()
    };
    let text = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    Certificate::from_pem(&text).with_context(|| format!("{} holds no certificate", file.display()))
}

/// The signers as identities of the channel, each once, and why some do not count. Strangers among candidates that nobody named
/// are none of the channel's: nothing is said of them.
fn read(bundle: &ChannelBundle, signers: &[Signer], given: bool) -> (Vec<Arc<Identity>>, Vec<String>) {
    let (mut known, mut strangers): (Vec<Arc<Identity>>, Vec<String>) = (Vec::new(), Vec::new());
    for signer in signers {
        let read = bundle.msps().deserialize(&signer.serialized);
        let judged = read.and_then(|identity| identity.admit(crate::network::now()).map(|()| identity));
        match judged {
            Ok(identity) if known.iter().any(|other| other.id() == identity.id()) => {
                strangers.push(format!("{}: signed already", signer.name));
            }
            Ok(identity) => known.push(identity),
            Err(reason) if given => strangers.push(format!("{}: {reason}", signer.name)),
            Err(_) => {}
        }
    }
    (known, strangers)
}
