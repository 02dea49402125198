//! From the document's tree to a [`Topology`], with every check on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::str::FromStr;

use consort_crypto::{hash::HashAlgorithm, key::KeyAlgorithm};

use super::claims::Claims;
use super::document::{Kind, Node};
use super::faults::Faults;
use super::names::NameRule;
use super::section::{Located, Section};
use super::{
    Authority, Batch, Capabilities, ChannelSpec, Member, Orderer, OrdererOrganisation, Organisation, Peer,
    Raft, Topology,
};

mod chaincode;
mod joined;
mod policies;
mod principals;

pub(crate) use joined::load as load_configuration;

/// The user that every organisation has without being named.
const ADMINISTRATOR: &str = "Admin";

/// What the reading functions share.
pub(super) struct Reader<'a> {
    faults: &'a mut Faults,
    claims: Claims,
    /// MSP ids mentioned by policies, with the line, checked at the end.
    mentioned: Vec<(String, Located<String>)>,
    folder: &'a Path,
}

/// Reads the whole description; `None` only with at least one fault noted.
pub(super) fn topology(root: &Node, folder: &Path, faults: &mut Faults) -> Option<Topology> {
    let mut reader = Reader { faults, claims: Claims::default(), mentioned: Vec::new(), folder };
    reader.topology(root)
}

impl Reader<'_> {
    fn topology(&mut self, root: &Node) -> Option<Topology> {
        let mut section = Section::new(root, "topology", self.faults)?;
        let name = self.named(&mut section, "name", NameRule::File);
        let hosts = self.hosts(&mut section);
        let organisations = self.organisations(&mut section);
        // Who joins a channel of others says nothing about it: all is in the channel's configuration.
        let joined = section.optional_text("joins", self.faults).map(|file| self.joined(&file));
        let (joins, orderer_organisations, channel, chaincodes) = match joined {
            Some(joined) => {
                let (file, channel) = joined.unzip();
                (file, Vec::new(), channel, Vec::new())
            }
            None => {
                let orderers = self.orderer_organisations(&mut section);
                (None, orderers, self.channel(&mut section), self.chaincodes(&mut section))
            }
        };
        section.finish(self.faults);

        let address = |host: &str| hosts.get(host).copied().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        self.claims.check_ports(address, self.faults);
        let members = organisations.iter().map(|organisation| &organisation.member);
        let members = members.chain(orderer_organisations.iter().map(|organisation| &organisation.member));
        self.check_mentions(&members.map(|member| member.msp_id.as_str()).collect());
        Some(Topology {
            name: name?.value,
            hosts,
            organisations,
            orderer_organisations,
            channel: channel?,
            chaincodes,
            joins,
        })
    }

    /// A required name that follows a rule.
    fn named(
        &mut self,
        section: &mut Section<'_>,
        key: &'static str,
        rule: NameRule,
    ) -> Option<Located<String>> {
        let text = section.text(key, self.faults)?;
        self.check_name(key, &text, rule);
        Some(text)
    }

    fn check_name(&mut self, key: &str, text: &Located<String>, rule: NameRule) {
        if let Some(fault) = rule.fault(&text.value) {
            self.faults.error(text.line, format!("{key} {fault}"));
        }
    }

    fn hosts(&mut self, section: &mut Section<'_>) -> BTreeMap<String, IpAddr> {
        let mut hosts = BTreeMap::new();
        for entry in section.entries("hosts", self.faults) {
            if let Some(fault) = NameRule::Host.fault(&entry.key) {
                self.faults.error(entry.line, format!("host {fault}"));
            }
            match &entry.value.kind {
                Kind::Scalar { text, .. } => match text.parse() {
                    Ok(address) => {
                        hosts.insert(entry.key.clone(), address);
                    }
                    Err(_) => {
                        let message = format!("host '{}': '{text}' is not an IP address", entry.key);
                        self.faults.error(entry.value.line, message);
                    }
                },
                _ => {
                    let found = entry.value.describe();
                    let message = format!("host '{}': expected an IP address, found {found}", entry.key);
                    self.faults.error(entry.value.line, message);
                }
            }
        }
        hosts
    }

    fn organisations(&mut self, section: &mut Section<'_>) -> Vec<Organisation> {
        let line = section.line();
        let mut organisations = Vec::new();
        let mut peers_seen = false;
        for (index, node) in section.list("organisations", self.faults).iter().enumerate() {
            let place = format!("organisation {}", index + 1);
            let Some(mut section) = Section::new(node, place, self.faults) else { continue };
            let member = self.member(&mut section, "organisation");
            let label = member.as_ref().map_or_else(|| index.to_string(), |member| member.name.clone());
            let mut peers = Vec::new();
            for (index, node) in section.list("peers", self.faults).iter().enumerate() {
                peers_seen = true;
                peers.extend(self.peer(node, format!("peer {} of organisation {label}", index + 1)));
            }
            if !peers.is_empty() && !peers.iter().any(|peer: &Peer| peer.anchor) {
                peers[0].anchor = true;
            }
            section.finish(self.faults);
            organisations.extend(member.map(|member| Organisation { member, peers }));
        }
        if !peers_seen {
            self.faults.error(line, "the network has no peers: add an organisation with at least one peer");
        }
        organisations
    }

    fn orderer_organisations(&mut self, section: &mut Section<'_>) -> Vec<OrdererOrganisation> {
        let line = section.line();
        let mut organisations = Vec::new();
        let mut count = 0;
        let list = section.list("orderer_organisations", self.faults);
        for (index, node) in list.iter().enumerate() {
            let place = format!("orderer organisation {}", index + 1);
            let Some(mut section) = Section::new(node, place, self.faults) else { continue };
            let member = self.member(&mut section, "orderer organisation");
            let label = member.as_ref().map_or_else(|| index.to_string(), |member| member.name.clone());
            let mut orderers = Vec::new();
            for (index, node) in section.list("orderers", self.faults).iter().enumerate() {
                count += 1;
                orderers.extend(self.orderer(node, format!("orderer {} of {label}", index + 1)));
            }
            section.finish(self.faults);
            organisations.extend(member.map(|member| OrdererOrganisation { member, orderers }));
        }
        let line = list.first().map_or(line, |node| node.line);
        match count {
            0 => self.faults.error(
                line,
                "the network has no orderers: add an orderer organisation with at least one orderer",
            ),
            count if count % 2 == 0 => self.faults.warning(
                line,
                format!(
                    "{count} orderers tolerate no more failures than {}: an odd number is better",
                    count - 1
                ),
            ),
            _ => {}
        }
        organisations
    }

    fn member(&mut self, section: &mut Section<'_>, kind: &'static str) -> Option<Member> {
        let line = section.line();
        let name = self.named(section, "name", NameRule::Word);
        let owner = format!("{kind} {}", name.as_ref().map_or("?", |name| &name.value));
        let msp_id = self.named(section, "msp_id", NameRule::Msp);
        let domain = self.named(section, "domain", NameRule::Host);
        let authorities = self.authorities(section, &owner, domain.as_ref());
        let users = self.users(section, &owner);
        let key_algorithm = self.key_algorithm(section);
        for (kind, text) in [("name", &name), ("MSP id", &msp_id), ("domain", &domain)] {
            if let Some(text) = text {
                self.claims.name(kind, &text.value, &owner, text.line.max(line), self.faults);
            }
        }
        let (authority, root_authority) = authorities?;
        Some(Member {
            name: name?.value,
            msp_id: msp_id?.value,
            domain: domain?.value,
            authority,
            root_authority,
            users,
            key_algorithm,
        })
    }

    fn key_algorithm(&mut self, section: &mut Section<'_>) -> KeyAlgorithm {
        let text = section.optional_text("key_algorithm", self.faults);
        text.and_then(|text| self.parsed("key_algorithm", &text)).unwrap_or_default()
    }

    fn parsed<T: FromStr<Err: Display>>(&mut self, key: &str, text: &Located<String>) -> Option<T> {
        match text.value.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.faults.error(text.line, format!("{key}: {error}"));
                None
            }
        }
    }

    /// The channel's hash, and the algorithms to which it restricts its members.
    fn algorithms(&mut self, section: &mut Section<'_>) -> (HashAlgorithm, Vec<KeyAlgorithm>) {
        let hash = section.optional_text("hashing", self.faults);
        let hash = match hash.as_ref().map(|hash| (hash.value.as_str(), hash.line)) {
            None | Some(("sha256", _)) => HashAlgorithm::Sha256,
            Some(("sm3", _)) => HashAlgorithm::Sm3,
            Some((other, line)) => {
                self.faults.error(line, format!("hashing must be sha256 or sm3, not '{other}'"));
                HashAlgorithm::Sha256
            }
        };
        let mut keys = Vec::new();
        for node in section.list("key_algorithms", self.faults) {
            let Kind::Scalar { text, .. } = &node.kind else {
                let found = node.describe();
                self.faults.error(node.line, format!("key_algorithms: expected a name, found {found}"));
                continue;
            };
            let text = Located { value: text.clone(), line: node.line };
            keys.extend(self.parsed::<KeyAlgorithm>("key_algorithms", &text));
        }
        (hash, keys)
    }

    fn users(&mut self, section: &mut Section<'_>, owner: &str) -> Vec<String> {
        let mut users = BTreeSet::new();
        for node in section.list("users", self.faults) {
            let Kind::Scalar { text, .. } = &node.kind else {
                let found = node.describe();
                self.faults.error(node.line, format!("{owner}: expected the name of a user, found {found}"));
                continue;
            };
            let text = Located { value: text.clone(), line: node.line };
            self.check_name("user", &text, NameRule::Word);
            if text.value == ADMINISTRATOR {
                self.faults
                    .error(text.line, format!("{owner}: every organisation has the user Admin already"));
            } else if !users.insert(text.value.clone()) {
                self.faults.error(text.line, format!("{owner}: user '{}' is given twice", text.value));
            }
        }
        users.into_iter().collect()
    }

    /// An organisation's authority, and the root above it if `root` describes one.
    fn authorities(
        &mut self,
        section: &mut Section<'_>,
        owner: &str,
        domain: Option<&Located<String>>,
    ) -> Option<(Authority, Option<Authority>)> {
        let node = section.required("ca", self.faults)?;
        let owner = format!("CA of {owner}");
        let mut section = Section::new(node, owner.clone(), self.faults)?;
        let authority = self.authority(&mut section, &owner, "ca", domain);
        let root = section.optional("root").and_then(|node| {
            let owner = format!("root {owner}");
            let mut section = Section::new(node, owner.clone(), self.faults)?;
            let root = self.authority(&mut section, &owner, "rca", domain);
            section.finish(self.faults);
            root
        });
        section.finish(self.faults);
        Some((authority?, root))
    }

    fn authority(
        &mut self,
        section: &mut Section<'_>,
        owner: &str,
        prefix: &str,
        domain: Option<&Located<String>>,
    ) -> Option<Authority> {
        let name = self.named(section, "name", NameRule::File);
        let host = match section.optional_text("host", self.faults) {
            Some(host) => Some(host),
            None => domain.map(|domain| {
                let value = format!("{prefix}.{}", domain.value);
                Located { value, line: section.line() }
            }),
        };
        let port = section.port("port", self.faults);
        if let Some(name) = &name {
            self.claims.name("CA name", &name.value, owner, name.line, self.faults);
            self.claims.name("process name", &name.value, owner, name.line, self.faults);
        }
        self.claim_node(host.as_ref(), owner, &[("port", port.as_ref())]);
        Some(Authority { name: name?.value, host: host?.value, port: port?.value })
    }

    fn peer(&mut self, node: &Node, place: String) -> Option<Peer> {
        let mut section = Section::new(node, place.clone(), self.faults)?;
        let host = section.text("host", self.faults);
        let port = section.port("port", self.faults);
        let operations = section.port("operations_port", self.faults);
        let anchor = section.optional_flag("anchor", self.faults).unwrap_or(false);
        let sealed_proxy = section.optional_flag("sealed_proxy", self.faults).unwrap_or(false);
        let owner = host.as_ref().map_or(place, |host| format!("peer {}", host.value));
        let ports = [("port", port.as_ref()), ("operations port", operations.as_ref())];
        self.claim_node(host.as_ref(), &owner, &ports);
        if let Some(host) = &host {
            self.claims.name("process name", &host.value, &owner, host.line, self.faults);
        }
        section.finish(self.faults);
        let (port, operations_port) = (port?.value, operations?.value);
        Some(Peer { host: host?.value, port, operations_port, anchor, sealed_proxy })
    }

    fn orderer(&mut self, node: &Node, place: String) -> Option<Orderer> {
        let mut section = Section::new(node, place.clone(), self.faults)?;
        let host = section.text("host", self.faults);
        let port = section.port("port", self.faults);
        let admin = section.port("admin_port", self.faults);
        let operations = section.port("operations_port", self.faults);
        let owner = host.as_ref().map_or(place, |host| format!("orderer {}", host.value));
        let ports = [
            ("port", port.as_ref()),
            ("admin port", admin.as_ref()),
            ("operations port", operations.as_ref()),
        ];
        self.claim_node(host.as_ref(), &owner, &ports);
        if let Some(host) = &host {
            self.claims.name("process name", &host.value, &owner, host.line, self.faults);
        }
        section.finish(self.faults);
        Some(Orderer {
            host: host?.value,
            port: port?.value,
            admin_port: admin?.value,
            operations_port: operations?.value,
        })
    }

    /// Claims the host and the ports of one process.
    fn claim_node(
        &mut self,
        host: Option<&Located<String>>,
        owner: &str,
        ports: &[(&str, Option<&Located<u16>>)],
    ) {
        if let Some(host) = host {
            self.check_name("host", host, NameRule::Host);
            self.claims.name("host", &host.value, owner, host.line, self.faults);
        }
        let host = host.map_or("", |host| &host.value);
        for (kind, port) in ports {
            if let Some(port) = port {
                let owner = if *kind == "port" { owner.to_owned() } else { format!("{owner} ({kind})") };
                self.claims.port(host, port.value, owner, port.line);
            }
        }
    }

    fn channel(&mut self, section: &mut Section<'_>) -> Option<ChannelSpec> {
        let node = section.required("channel", self.faults)?;
        let mut section = Section::new(node, "channel", self.faults)?;
        let name = self.named(&mut section, "name", NameRule::Channel);
        let batch = self.batch(&mut section);
        let raft = self.raft(&mut section);
        let capabilities = self.capabilities(&mut section);
        let attest_every_blocks = section
            .optional_number("attest_every_blocks", 0..=u64::from(u32::MAX), self.faults)
            .map(|number| number.value);
        let (hashing, key_algorithms) = self.algorithms(&mut section);
        let policies = self.texts(&mut section, "policies");
        let acls = self.texts(&mut section, "acls");
        for (path, rule) in &policies {
            self.check_policy_path(path);
            self.check_rule(&path.value, rule);
        }
        for (resource, policy) in &acls {
            if !policy.value.starts_with('/') {
                let message = format!(
                    "access rule '{}' must name a policy by path, such as /Channel/Application/Readers",
                    resource.value
                );
                self.faults.error(policy.line, message);
            }
        }
        section.finish(self.faults);
        let plain = |texts: Vec<(Located<String>, Located<String>)>| {
            texts.into_iter().map(|(key, value)| (key.value, value.value)).collect()
        };
        Some(ChannelSpec {
            name: name?.value,
            batch,
            raft,
            capabilities,
            attest_every_blocks,
            hashing,
            key_algorithms,
            policies: plain(policies),
            acls: plain(acls),
        })
    }

    /// A mapping of texts to texts.
    fn texts(
        &mut self,
        section: &mut Section<'_>,
        key: &'static str,
    ) -> Vec<(Located<String>, Located<String>)> {
        let mut texts = Vec::new();
        for entry in section.entries(key, self.faults) {
            let Kind::Scalar { text, .. } = &entry.value.kind else {
                let found = entry.value.describe();
                self.faults.error(
                    entry.value.line,
                    format!("{key} '{}': expected a text, found {found}", entry.key),
                );
                continue;
            };
            let key = Located { value: entry.key.clone(), line: entry.line };
            texts.push((key, Located { value: text.clone(), line: entry.value.line }));
        }
        texts
    }

    fn batch(&mut self, section: &mut Section<'_>) -> Batch {
        let mut batch = Batch::default();
        let Some(node) = section.optional("batch") else { return batch };
        let Some(mut section) = Section::new(node, "batch", self.faults) else { return batch };
        let count = section.optional_number("max_message_count", 1..=u64::from(u32::MAX), self.faults);
        if let Some(count) = count.and_then(|count| u32::try_from(count.value).ok()) {
            batch.max_message_count = count;
        }
        if let Some(bytes) = section.optional_bytes("absolute_max_bytes", self.faults) {
            batch.absolute_max_bytes = bytes.value;
        }
        if let Some(bytes) = section.optional_bytes("preferred_max_bytes", self.faults) {
            batch.preferred_max_bytes = bytes.value;
        }
        if batch.preferred_max_bytes > batch.absolute_max_bytes {
            let message = "batch: 'preferred_max_bytes' must not be larger than 'absolute_max_bytes'";
            self.faults.error(section.line(), message);
        }
        if let Some(timeout) = section.optional_duration("timeout", self.faults) {
            batch.timeout = timeout.value;
        }
        section.finish(self.faults);
        batch
    }

    fn raft(&mut self, section: &mut Section<'_>) -> Raft {
        let mut raft = Raft::default();
        let Some(node) = section.optional("raft") else { return raft };
        let Some(mut section) = Section::new(node, "raft", self.faults) else { return raft };
        if let Some(interval) = section.optional_duration("tick_interval", self.faults) {
            raft.tick_interval = interval.value;
        }
        for (key, value) in [
            ("election_tick", &mut raft.election_tick),
            ("heartbeat_tick", &mut raft.heartbeat_tick),
            ("max_inflight_blocks", &mut raft.max_inflight_blocks),
        ] {
            let number = section.optional_number(key, 1..=u64::from(u16::MAX), self.faults);
            if let Some(number) = number.and_then(|number| u32::try_from(number.value).ok()) {
                *value = number;
            }
        }
        if let Some(bytes) = section.optional_bytes("snapshot_interval_bytes", self.faults) {
            raft.snapshot_interval_bytes = bytes.value;
        }
        if raft.election_tick <= raft.heartbeat_tick {
            self.faults.error(section.line(), "raft: 'election_tick' must be larger than 'heartbeat_tick'");
        }
        section.finish(self.faults);
        raft
    }

    fn capabilities(&mut self, section: &mut Section<'_>) -> Capabilities {
        let mut capabilities = Capabilities::default();
        let Some(node) = section.optional("capabilities") else { return capabilities };
        let Some(mut section) = Section::new(node, "capabilities", self.faults) else { return capabilities };
        for (key, known, value) in [
            ("channel", &["V2_0", "V3_0"][..], &mut capabilities.channel),
            ("orderer", &["V2_0"][..], &mut capabilities.orderer),
            ("application", &["V2_0", "V2_5"][..], &mut capabilities.application),
        ] {
            let Some(text) = section.optional_text(key, self.faults) else { continue };
            if !known.contains(&text.value.as_str()) {
                let message = format!(
                    "capabilities: '{key}' must be one of {}, not '{}'",
                    known.join(", "),
                    text.value
                );
                self.faults.error(text.line, message);
            }
            *value = text.value;
        }
        capabilities.registered_identities =
            section.optional_flag("registered_identities", self.faults).unwrap_or_default();
        capabilities.sealed_data = section.optional_flag("sealed_data", self.faults).unwrap_or_default();
        // What endorses together must be registered.
        if section.optional_flag("aggregated_endorsements", self.faults).unwrap_or_default() {
            capabilities.aggregated_endorsements = true;
            capabilities.registered_identities = true;
        }
        section.finish(self.faults);
        capabilities
    }
}
