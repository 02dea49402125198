//! Starting the certificate authorities and enrolling everybody of a network there.
//!
//! A secret is kept before its identity is registered, and an identity that is registered already is enrolled with it; so a
//! run that was interrupted anywhere is finished by the next one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use consort_client_sdk::Endpoint;
use consort_client_sdk::ca::{
    Attribute, BlsWish, CaClient, CaError, Enrollment, EnrollmentOptions, Registration,
};
use consort_crypto::bls::SecretKey;
use consort_crypto::certificate::Certificate;
use consort_crypto::key::KeyAlgorithm;
use futures::future::try_join_all;
use zeroize::Zeroizing;

use super::node_config;
use super::nodes::describe;
use super::plan::Role;
use super::programs::Programs;
use super::session::Session;
use crate::credentials::{self, Credential, Roots};
use crate::files;
use crate::layout::{ADMINISTRATOR, Layout, MemberKind, members};
use crate::report::{are, count};
use crate::topology::{Authority, Member, Topology};

/// Enrolment id of the first administrator of every authority, who registers everybody else.
const REGISTRAR: &str = "admin";

/// The attribute by which an identity may enrol as an authority (Fabric CA's user guide, "Registering a new identity").
const INTERMEDIATE: &str = "hf.IntermediateCA";

/// How long an authority may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(20);

/// Fabric CA's error code for a name that is taken.
const ALREADY_REGISTERED: u16 = 74;

/// Length of a generated enrolment secret in bytes, before it is written in hexadecimal.
const SECRET_BYTES: usize = 16;

/// Starts the authorities that do not run and waits until all answer.
///
/// # Errors
/// An authority cannot be started or does not answer; its log is part of the message.
pub(super) async fn start(
    layout: &Layout,
    topology: &Topology,
    programs: &Programs,
    session: &Session,
) -> anyhow::Result<((), String)> {
    let place = Place { layout, topology, programs, session };
    let roots: Vec<Server<'_>> = topology.members().filter_map(Server::root).collect();
    let issuing: Vec<Server<'_>> = topology.members().map(Server::issuing).collect();
    let started = place.start(&roots).await? + place.start(&issuing).await?;
    let all = roots.len() + issuing.len();
    let authorities = count(all, "certificate authority");
    let outcome = match started {
        0 => format!("{authorities} {} running already", are(all)),
        _ => format!("{authorities} {} running", are(all)),
    };
    Ok(((), outcome))
}

/// One server of an organisation's authorities, and the one above it.
struct Server<'a> {
    member: &'a Member,
    authority: &'a Authority,
    parent: Option<&'a Authority>,
}

impl<'a> Server<'a> {
    /// The server of the root, where the organisation has one above its own.
    fn root(member: &'a Member) -> Option<Self> {
        member.root_authority.as_ref().map(|authority| Self { member, authority, parent: None })
    }

    /// The server that issues the organisation's certificates.
    fn issuing(member: &'a Member) -> Self {
        Self { member, authority: &member.authority, parent: member.root_authority.as_ref() }
    }
}

/// What starting a server takes.
struct Place<'a> {
    layout: &'a Layout,
    topology: &'a Topology,
    programs: &'a Programs,
    session: &'a Session,
}

impl Place<'_> {
    /// Starts servers and waits until all answer; answers how many did not run before.
    async fn start(&self, servers: &[Server<'_>]) -> anyhow::Result<usize> {
        let started = try_join_all(servers.iter().map(|server| self.ensure(server))).await?;
        try_join_all(servers.iter().map(|server| self.answers(server))).await?;
        Ok(started.into_iter().filter(|started| *started).count())
    }

    async fn ensure(&self, server: &Server<'_>) -> anyhow::Result<bool> {
        let (layout, Server { member, authority, parent }) = (self.layout, server);
        let name = &authority.name;
        let own_secret = secret(&layout.secret(name, REGISTRAR))?;
        let parent_secret = match parent {
            Some(parent) => Some(self.register_below(server, parent).await?),
            None => None,
        };
        let parent = parent.zip(parent_secret.as_ref());
        let parent = parent.map(|(authority, secret)| node_config::Parent { authority, secret });
        let config = node_config::authority(
            layout,
            self.topology,
            (member, authority),
            (REGISTRAR, &own_secret),
            parent.as_ref(),
        )?;
        files::write_atomically(&layout.config(name), config.as_bytes(), true)?;
        files::create_secret_folder(&layout.authority_data(name))?;
        files::create_secret_folder(&layout.authority_data(&member.tls_authority_of(authority)))?;
        self.session.ensure(name, self.programs.of(Role::Authority), &layout.config(name))
    }

    /// Registers an authority at the one above it, unless it has its certificate already; answers the secret that it enrols with.
    async fn register_below(
        &self,
        server: &Server<'_>,
        parent: &Authority,
    ) -> anyhow::Result<Zeroizing<String>> {
        let (layout, Server { member, authority, .. }) = (self.layout, server);
        let secret = secret(&layout.secret(&parent.name, &authority.host))?;
        let (tls, above) = (member.tls_authority_of(authority), member.tls_authority_of(parent));
        let identities = (&authority.name, &parent.name, authority.host.clone(), member.key_algorithm);
        let of_tls = (&tls, &above, node_config::tls_common_name(&authority.host), KeyAlgorithm::P256);
        let apart = (tls != authority.name).then_some(of_tls);
        for (name, above, id, key_algorithm) in std::iter::once(identities).chain(apart) {
            if layout.authority_data(name).join("ca-cert.pem").exists() {
                continue;
            }
            let desk = Desk::open(layout, self.topology, (member, parent), above, key_algorithm).await?;
            let may = Attribute { name: INTERMEDIATE.to_owned(), value: "true".to_owned(), ecert: false };
            desk.register(&id, "client", &secret, vec![may])
                .await
                .with_context(|| format!("{id} cannot be registered at {above}"))?;
        }
        Ok(secret)
    }

    async fn answers(&self, server: &Server<'_>) -> anyhow::Result<()> {
        let Server { member, authority, .. } = server;
        let what = format!("certificate authority {} does not answer", authority.name);
        let asks = || is_healthy(self.layout, self.topology, member, authority);
        self.session.wait(&authority.name, &what, START_LIMIT, asks).await
    }
}

/// Asks an authority for its name and certificates.
///
/// # Errors
/// Why it does not answer, in words.
pub(super) async fn is_healthy(
    layout: &Layout,
    topology: &Topology,
    member: &Member,
    authority: &Authority,
) -> Result<(), String> {
    let client = client(layout, topology, (member, authority), &authority.name);
    let client = client.map_err(|error| format!("{error:#}"))?;
    client.info().await.map(|_| ()).map_err(|error| describe(&error))
}

/// The certificates of an authority and those above it.
struct Chain {
    root: String,
    /// Those below the root, the lowest first; none for a root.
    between: String,
}

impl Chain {
    /// Reads what an authority writes at its first start.
    fn read(layout: &Layout, authority: &str) -> anyhow::Result<Self> {
        let folder = layout.authority_data(authority);
        let chain = folder.join("ca-chain.pem");
        let path = if chain.exists() { chain } else { folder.join("ca-cert.pem") };
        let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let all =
            Certificate::all_from_pem(&text).with_context(|| format!("{} is damaged", path.display()))?;
        let (root, between) = all.split_last().context("a chain has a root")?;
        Ok(Self { root: root.pem(), between: between.iter().map(Certificate::pem).collect() })
    }
}

/// A client of one authority of an organisation's server.
fn client(
    layout: &Layout,
    topology: &Topology,
    (member, authority): (&Member, &Authority),
    name: &str,
) -> anyhow::Result<CaClient> {
    let roots = Bytes::from(Chain::read(layout, &member.tls_authority_of(authority))?.root);
    let endpoint = Endpoint::new(format!("{}:{}", authority.host, authority.port), roots)
        .connect_to(topology.address(&authority.host, authority.port));
    Ok(CaClient::new(&endpoint, Some(name))?)
}

/// A kept secret, or a new one that is kept from now on.
fn secret(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    if let Ok(text) = std::fs::read_to_string(path) {
        return Ok(Zeroizing::new(text));
    }
    let secret = Zeroizing::new(hex::encode(rand::random::<[u8; SECRET_BYTES]>()));
    let folder = path.parent().context("a secret is kept in a folder")?;
    files::create_secret_folder(folder)?;
    files::write_atomically(path, secret.as_bytes(), true)?;
    Ok(secret)
}

/// Somebody who needs credentials.
struct Applicant {
    id: String,
    /// The role that its certificate carries.
    role: &'static str,
    folder: PathBuf,
    /// Names in its TLS certificate; none for a user.
    hosts: Vec<String>,
    /// The organisation for which it gets a BLS key, if it gets one.
    bls_of: Option<String>,
}

impl Applicant {
    /// What its TLS files are called.
    fn tls_role(&self) -> &'static str {
        if self.hosts.is_empty() { "client" } else { "server" }
    }

    fn is_served(&self) -> bool {
        credentials::exists(&self.folder.join("msp")) && credentials::exists(&self.folder.join("tls"))
    }
}

/// Registers and enrols every node, administrator and user that has no credentials yet.
///
/// # Errors
/// An authority refuses, or files cannot be written.
pub(super) async fn enrol(layout: &Layout, topology: &Topology) -> anyhow::Result<((), String)> {
    let enrolled =
        try_join_all(members(topology).map(|(kind, member)| enrol_member(layout, topology, kind, member)));
    let enrolled = enrolled.await?;
    let outcome = match enrolled.iter().sum() {
        0 => "all identities are enrolled already".to_owned(),
        new => format!(
            "{} enrolled (certificates for signing and for TLS), in {}",
            count(new, "identity"),
            relative(layout)
        ),
    };
    Ok(((), outcome))
}

fn relative(layout: &Layout) -> String {
    let root = layout.root().join("organizations");
    let here = std::env::current_dir().unwrap_or_default();
    root.strip_prefix(here).unwrap_or(&root).display().to_string()
}

/// Returns how many were enrolled now.
async fn enrol_member(
    layout: &Layout,
    topology: &Topology,
    kind: MemberKind,
    member: &Member,
) -> anyhow::Result<usize> {
    let (name, tls_name) = (&member.authority.name, member.tls_authority());
    let (identity, tls) = (Chain::read(layout, name)?, Chain::read(layout, &tls_name)?);
    let roots = Roots {
        domain: &member.domain,
        identity_pem: &identity.root,
        identity_between_pem: &identity.between,
        tls_pem: &tls.root,
        tls_between_pem: &tls.between,
    };
    credentials::write_organisation(&layout.organisation(kind, &member.domain), &roots)?;
    let applicants = applicants(layout, topology, kind, member);
    let waiting: Vec<&Applicant> = applicants.iter().filter(|applicant| !applicant.is_served()).collect();
    if waiting.is_empty() {
        return Ok(0);
    }
    let server = (member, &member.authority);
    let desk = Desk::open(layout, topology, server, name, member.key_algorithm).await?;
    let tls_desk = if tls_name == *name {
        None
    } else {
        Some(Desk::open(layout, topology, server, &tls_name, KeyAlgorithm::P256).await?)
    };
    let work = waiting.iter().map(|applicant| {
        let secret = layout.secret(name, &applicant.id);
        let (desk, tls_desk, roots) = (&desk, tls_desk.as_ref(), &roots);
        async move {
            serve(desk, tls_desk, applicant, &secret, roots)
                .await
                .with_context(|| format!("{} cannot be enrolled at {name}", applicant.id))
        }
    });
    Ok(try_join_all(work).await?.len())
}

/// Everybody of an organisation: its nodes, its administrator, its users.
fn applicants(layout: &Layout, topology: &Topology, kind: MemberKind, member: &Member) -> Vec<Applicant> {
    let domain = &member.domain;
    let endorse_together = topology.channel.capabilities.aggregated_endorsements;
    let (role, hosts): (_, Vec<&str>) = match kind {
        MemberKind::Peers => {
            let own = topology.peers().filter(|(organisation, _)| organisation.member.name == member.name);
            ("peer", own.map(|(_, peer)| peer.host.as_str()).collect())
        }
        MemberKind::Orderers => {
            let own = topology.orderers().filter(|(organisation, _)| organisation.member.name == member.name);
            ("orderer", own.map(|(_, orderer)| orderer.host.as_str()).collect())
        }
    };
    let nodes = hosts.into_iter().map(|host| Applicant {
        id: host.to_owned(),
        role,
        folder: layout.node(kind, domain, host),
        hosts: node_config::certificate_hosts(host),
        bls_of: (endorse_together && kind == MemberKind::Peers).then(|| member.msp_id.clone()),
    });
    let users = std::iter::once((ADMINISTRATOR, "admin"))
        .chain(member.users.iter().map(|user| (user.as_str(), "client")))
        .map(|(user, role)| Applicant {
            id: format!("{user}@{domain}"),
            role,
            folder: layout.user(kind, domain, user),
            hosts: Vec::new(),
            bls_of: None,
        });
    nodes.chain(users).collect()
}

/// An authority with its first administrator, who registers everybody.
struct Desk {
    client: CaClient,
    registrar: Enrollment,
    key_algorithm: KeyAlgorithm,
}

impl Desk {
    async fn open(
        layout: &Layout,
        topology: &Topology,
        server: (&Member, &Authority),
        name: &str,
        key_algorithm: KeyAlgorithm,
    ) -> anyhow::Result<Self> {
        let client = client(layout, topology, server, name)?;
        // Both authorities of a server have the same first administrator.
        let secret = secret(&layout.secret(&server.1.name, REGISTRAR))?;
        let options = EnrollmentOptions { key_algorithm, ..EnrollmentOptions::default() };
        let registrar = client.enroll(REGISTRAR, &secret, &options).await;
        let registrar =
            registrar.with_context(|| format!("the administrator of {name} cannot be enrolled"))?;
        Ok(Self { client, registrar, key_algorithm })
    }

    async fn register(
        &self,
        id: &str,
        role: &str,
        secret: &str,
        attributes: Vec<Attribute>,
    ) -> Result<(), CaError> {
        let registration = Registration {
            id: id.to_owned(),
            kind: Some(role.to_owned()),
            secret: Some(secret.to_owned()),
            max_enrollments: Some(-1),
            attributes,
            ..Registration::default()
        };
        match self.client.register(&self.registrar, &registration).await {
            Err(CaError::Refused { code: ALREADY_REGISTERED, .. }) => Ok(()),
            registered => registered.map(|_| ()),
        }
    }
}

/// Registers one applicant, enrols it twice (for signing and for TLS) and writes its files.
async fn serve(
    desk: &Desk,
    tls_desk: Option<&Desk>,
    applicant: &Applicant,
    secret_path: &Path,
    roots: &Roots<'_>,
) -> anyhow::Result<()> {
    let secret = secret(secret_path)?;
    desk.register(&applicant.id, applicant.role, &secret, Vec::new()).await?;
    let msp = applicant.folder.join("msp");
    if !credentials::exists(&msp) {
        let bls_key = match &applicant.bls_of {
            Some(msp_id) => {
                Some(BlsWish { secret: Arc::new(SecretKey::generate()?), msp_id: msp_id.clone() })
            }
            None => None,
        };
        let key = bls_key.as_ref().map(|wish| Arc::clone(&wish.secret));
        let options =
            EnrollmentOptions { key_algorithm: desk.key_algorithm, bls_key, ..EnrollmentOptions::default() };
        let enrollment = desk.client.enroll(&applicant.id, &secret, &options).await?;
        credentials::write_identity(&msp, &credential(&enrollment, roots, ""), roots, key.as_deref())?;
    }
    let tls = applicant.folder.join("tls");
    if !credentials::exists(&tls) {
        if let Some(tls_desk) = tls_desk {
            tls_desk.register(&applicant.id, applicant.role, &secret, Vec::new()).await?;
        }
        let client = &tls_desk.unwrap_or(desk).client;
        let hosts: Vec<&str> = applicant.hosts.iter().map(String::as_str).collect();
        let enrollment = client.enroll(&applicant.id, &secret, &EnrollmentOptions::tls(&hosts)).await?;
        // Who knows only the root is shown what lies between.
        let credential = credential(&enrollment, roots, roots.tls_between_pem);
        credentials::write_tls(&tls, &credential, applicant.tls_role())?;
    }
    Ok(())
}

/// What an enrolment gave, with certificates `behind` its own, under the roots of TLS.
fn credential(enrollment: &Enrollment, roots: &Roots<'_>, behind: &str) -> Credential {
    Credential {
        certificate_pem: format!("{}{behind}", enrollment.certificate_pem),
        key_pem: enrollment.key.to_pem(),
        roots_pem: roots.tls_pem.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_made_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca-org1/User1@org1.example.com");
        let first = secret(&path).unwrap();
        assert_eq!(first.len(), 2 * SECRET_BYTES);
        assert_eq!(*secret(&path).unwrap(), *first);
    }

    #[test]
    fn everybody_of_an_organisation_applies_with_its_role() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../network-configs/two-org-raft");
        let topology = Topology::load(&folder).unwrap().topology;
        let layout = Layout::new(Path::new("/data")).unwrap();
        let (kind, member) = members(&topology).next().unwrap();
        let everybody = applicants(&layout, &topology, kind, member);
        let roles: Vec<_> =
            everybody.iter().map(|applicant| (applicant.id.as_str(), applicant.role)).collect();
        assert_eq!(
            roles,
            [
                ("peer0.org1.example.com", "peer"),
                ("Admin@org1.example.com", "admin"),
                ("User1@org1.example.com", "client")
            ]
        );
        assert_eq!(everybody[0].hosts, ["peer0.org1.example.com", "localhost", "127.0.0.1"]);
        assert_eq!((everybody[0].tls_role(), everybody[1].tls_role()), ("server", "client"));
    }
}
