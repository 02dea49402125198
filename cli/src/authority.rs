//! Which certificate authority a command calls, and as whom.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use consort_client_sdk::Endpoint;
use consort_client_sdk::ca::{CaClient, Enrollment, EnrollmentOptions};
use consort_crypto::certificate::Certificate;
use time::OffsetDateTime;

use crate::access;
use crate::credentials;
use crate::layout::{Layout, members};
use crate::topology::Member;

/// Enrolment id of the first administrator of the authorities that `consort network up` starts.
const ADMINISTRATOR: &str = "admin";

/// Options that say which certificate authority is called.
#[derive(Debug, Clone, Args)]
pub(crate) struct AuthorityOptions {
    /// Data folder of a network that `consort network up` started [default: the only one below .consort]
    #[arg(long, value_name = "FOLDER", env = "CONSORT_NETWORK", help_heading = "Certificate authority")]
    network: Option<PathBuf>,

    /// The network's organisation whose authority is called, by its domain [default: the first]
    #[arg(
        long = "org",
        value_name = "DOMAIN",
        conflicts_with = "address",
        help_heading = "Certificate authority"
    )]
    organisation: Option<String>,

    /// Address of an authority outside such a network, as its TLS certificate names it
    #[arg(
        long = "ca",
        value_name = "HOST:PORT",
        requires = "tls_roots",
        help_heading = "Certificate authority"
    )]
    address: Option<String>,

    /// PEM file with the roots of that authority's TLS certificate
    #[arg(long, value_name = "FILE", help_heading = "Certificate authority")]
    tls_roots: Option<PathBuf>,

    /// Name of the authority, where its server has several
    #[arg(long, value_name = "NAME", help_heading = "Certificate authority")]
    ca_name: Option<String>,

    /// Connect to this address in place of what the resolver says of the host
    #[arg(long, value_name = "IP:PORT", help_heading = "Certificate authority")]
    connect_to: Option<SocketAddr>,
}

/// Options of calls that an enrolled identity makes.
#[derive(Debug, Clone, Args)]
pub(crate) struct CallerOptions {
    #[command(flatten)]
    authority: AuthorityOptions,

    /// MSP folder of who calls [default, in a network: the authority's administrator]
    #[arg(long, value_name = "MSP FOLDER")]
    caller: Option<PathBuf>,
}

/// An authority that can be called.
pub(crate) struct Reached {
    pub(crate) client: CaClient,
    /// What the folder of the authority's certificates is named after.
    pub(crate) name: String,
    /// Where the network keeps the administrator's secret, and where its enrolment goes.
    administrator: Option<(PathBuf, PathBuf)>,
}

impl AuthorityOptions {
    /// Finds the authority.
    ///
    /// # Errors
    /// No network and no address is named, or files cannot be read.
    pub(crate) fn open(&self) -> anyhow::Result<Reached> {
        match &self.address {
            Some(address) => self.outside(address),
            None => self.inside(),
        }
    }

    fn outside(&self, address: &str) -> anyhow::Result<Reached> {
        let path =
            self.tls_roots.as_ref().context("name the TLS roots of the authority with --tls-roots <file>")?;
        let roots = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut endpoint = Endpoint::new(address, roots);
        if let Some(target) = self.connect_to {
            endpoint = endpoint.connect_to(target);
        }
        let client = CaClient::new(&endpoint, self.ca_name.as_deref())?;
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        Ok(Reached { client, name: host.to_owned(), administrator: None })
    }

    fn inside(&self) -> anyhow::Result<Reached> {
        let data = access::network_folder(self.network.as_deref()).context(
            "which certificate authority? Name a network's data with --network, or an authority with --ca and --tls-roots",
        )?;
        let layout = Layout::new(&data)?;
        let topology = layout.read_topology()?;
        let known = || {
            let domains: Vec<&str> = members(&topology).map(|(_, member)| member.domain.as_str()).collect();
            domains.join(", ")
        };
        let wanted =
            |member: &Member| self.organisation.as_ref().is_none_or(|domain| *domain == member.domain);
        let found = members(&topology).find(|(_, member)| wanted(member));
        let (kind, member) =
            found.with_context(|| format!("no organisation has that domain (known are: {})", known()))?;
        let authority = &member.authority;
        let path = layout.tls_roots(kind, &member.domain);
        let roots = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let target = self.connect_to.unwrap_or_else(|| topology.address(&authority.host, authority.port));
        let endpoint =
            Endpoint::new(format!("{}:{}", authority.host, authority.port), roots).connect_to(target);
        let name = self.ca_name.as_deref().unwrap_or(&authority.name);
        let client = CaClient::new(&endpoint, Some(name))?;
        let secret = layout.secret(name, ADMINISTRATOR);
        let folder = layout.secret(name, &format!("{ADMINISTRATOR}.msp"));
        Ok(Reached { client, name: authority.host.clone(), administrator: Some((secret, folder)) })
    }
}

impl CallerOptions {
    /// Finds the authority and who calls it.
    ///
    /// # Errors
    /// As [`AuthorityOptions::open`]; or the caller's folder holds no certificate with its key.
    pub(crate) async fn open(&self) -> anyhow::Result<(Reached, Enrollment)> {
        let reached = self.authority.open()?;
        let caller = match (&self.caller, &reached.administrator) {
            (Some(folder), _) => Enrollment::from_folder(folder)?,
            (None, Some((secret, folder))) => reached.administrator(secret, folder).await?,
            (None, None) => {
                bail!("who calls? Name the MSP folder of an enrolled registrar with --caller <folder>")
            }
        };
        Ok((reached, caller))
    }
}

impl Reached {
    /// The authority's first administrator: as it was enrolled by an earlier command, or enrolled now.
    async fn administrator(&self, secret: &Path, folder: &Path) -> anyhow::Result<Enrollment> {
        if let Ok(kept) = Enrollment::from_folder(folder)
            && Certificate::from_pem(&kept.certificate_pem).is_ok_and(|kept| kept.not_after() > now())
            && self.client.identity(&kept, ADMINISTRATOR).await.is_ok()
        {
            return Ok(kept);
        }
        let text = std::fs::read_to_string(secret)
            .with_context(|| format!("cannot read the administrator's secret {}", secret.display()))?;
        let options = EnrollmentOptions::default();
        let enrolled = self.client.enroll(ADMINISTRATOR, text.trim(), &options).await?;
        credentials::write_enrolled(folder, &enrolled, &self.name, credentials::Purpose::Signing, None)?;
        Ok(enrolled)
    }
}

/// This moment: certificates are shown and judged by it.
#[expect(
    clippy::disallowed_methods,
    reason = "a person asks what holds now; nothing that others must agree on depends on it"
)]
pub(crate) fn now() -> OffsetDateTime {
    std::time::SystemTime::now().into()
}
