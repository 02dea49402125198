//! Enrolments per second over TLS, beside what they cannot do without, measured alone in the same run: a signature on a certificate, a
//! secret judged, an empty request over the same connections.
//!
//! Server and clients share one process and the machine's cores, so the figure is what one machine does for both. Every
//! enrolment judges a secret (Argon2id at the default cost), verifies a signing request, signs a certificate on P-256 and
//! waits until it is on disk. The limits on requests are switched off: all clients have one address.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use argon2::{Algorithm, Argon2, Params, Version};
use consort_bench::Figure;
use consort_ca::server;
use consort_client_sdk::Endpoint;
use consort_client_sdk::ca::{CaClient, EnrollmentOptions, Registration};
use consort_crypto::issue::{CertificateAuthority, DistinguishedName, Template, Validity};
use consort_crypto::key::PrivateKey;
use consort_crypto::request::CertificateRequest;
use consort_node::{Clock, SystemClock, Tasks, config};
use futures::future::try_join_all;
use serde_json::json;

/// Connections that are kept open, each with one request at a time.
const CLIENTS: usize = 16;

/// Enrolments that are measured.
const ENROLLMENTS: usize = 3_000;

/// Empty requests that are measured.
const EMPTY: usize = 10_000;

/// Cores that do the work, as many as the server has threads here.
const CORES: usize = 2;

/// Certificates that are signed alone, and secrets that are judged alone, by each core.
const ALONE: usize = 500;

type Failure = Box<dyn std::error::Error + Send + Sync>;

struct Client {
    http: reqwest::Client,
    url: String,
    id: String,
    body: String,
}

impl Client {
    async fn enroll(&self) -> Result<(), Failure> {
        let url = format!("{}/enroll", self.url);
        let request = self.http.post(url).basic_auth(&self.id, Some("userpw")).body(self.body.clone());
        let response = request.send().await?.error_for_status()?;
        response.bytes().await?;
        Ok(())
    }

    async fn empty(&self) -> Result<(), Failure> {
        let response = self.http.get(format!("{}/cainfo", self.url)).send().await?.error_for_status()?;
        response.bytes().await?;
        Ok(())
    }
}

fn main() -> Result<(), Failure> {
    // The test runner asks every harness-less program for its tests; this one has none.
    if std::env::args().any(|argument| argument == "--list") {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(CORES).enable_all().build()?;
    runtime.block_on(measure())
}

async fn measure() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let text = format!(
        "listen: {{ address: '127.0.0.1:0' }}\n\
         data: {}\n\
         ca: {{ name: ca-bench, subject: {{ common_name: ca.bench, organization: bench }} }}\n\
         hosts: [localhost]\n\
         bootstrap: {{ id: admin, secret: adminpw }}\n\
         limits: {{ per_address: {{ per_second: 0 }}, per_identity: {{ per_second: 0 }} }}\n",
        folder.path().join("data").display()
    );
    let config = config::parse(&text, Path::new("bench.yaml"), "NONE", [])?;
    let tasks = Tasks::new();
    let serving = server::start(&config, Arc::new(SystemClock), None, &tasks).await?;
    let address = format!("localhost:{}", serving.address.port());
    let endpoint = Endpoint::new(address.clone(), serving.tls_roots_pem.clone().into_bytes());
    let ca = CaClient::new(&endpoint.connect_to(serving.address), None)?;
    let admin = ca.enroll("admin", "adminpw", &EnrollmentOptions::default()).await?;
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let id = format!("user{number}");
        let registration = Registration {
            id: id.clone(),
            secret: Some("userpw".to_owned()),
            max_enrollments: Some(-1),
            ..Registration::default()
        };
        ca.register(&admin, &registration).await?;
        let request = CertificateRequest::create(&PrivateKey::generate_p256()?, &id, &[])?;
        let root = reqwest::Certificate::from_pem(serving.tls_roots_pem.as_bytes())?;
        let http = reqwest::Client::builder().add_root_certificate(root).no_proxy().build()?;
        let body = json!({ "certificate_request": request.pem() }).to_string();
        clients.push(Client { http, url: format!("https://{address}"), id, body });
    }
    let empty = rate(&clients, EMPTY, Client::empty).await?;
    let enrollments = rate(&clients, ENROLLMENTS, Client::enroll).await?;
    tasks.shutdown(Duration::from_secs(10)).await?;
    let (signatures, secrets) = (signing()?, judging()?);
    println!("certificates signed      {signatures:>8.0} /s   nothing else, {CORES} threads");
    println!(
        "secrets judged           {secrets:>8.0} /s   nothing else, {CORES} threads (Argon2id, 4 MiB, one pass)"
    );
    println!("empty TLS requests       {empty:>8.0} /s");
    let figure = Figure::new("enrolments", enrollments, "/s").at_least(500.0);
    figure.limit("judging secrets alone", secrets).record();
    println!("enrolments (P-256)       {enrollments:>8.0} /s   wanted: at least 500 on two cores");
    println!(
        "of the time of an enrolment, signing is {:.0} %, the secret {:.0} %, an empty request {:.0} %",
        100.0 * enrollments / signatures,
        100.0 * enrollments / secrets,
        100.0 * enrollments / empty
    );
    Ok(())
}

/// Certificates per second when nothing else is done.
fn signing() -> Result<f64, Failure> {
    let now = SystemClock.now();
    let validity = Validity { not_before: now, not_after: now + time::Duration::days(365) };
    let name = DistinguishedName::common_name("ca.bench");
    let authority = CertificateAuthority::new_root(&name, PrivateKey::generate_p256()?, validity)?;
    let holder = PrivateKey::generate_p256()?;
    let template = Template::identity(DistinguishedName::common_name("user"), validity);
    on_all_cores(|| authority.issue(&template, holder.public_key()).map(drop).map_err(Into::into))
}

/// Secrets per second at the default cost, when nothing else is done.
fn judging() -> Result<f64, Failure> {
    let parameters = Params::new(4096, 1, 1, None).map_err(|error| error.to_string())?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters);
    on_all_cores(|| {
        let mut out = [0_u8; 32];
        argon2
            .hash_password_into(b"userpw", b"a salt of 16 byt", &mut out)
            .map_err(|error| error.to_string().into())
    })
}

fn on_all_cores(work: impl Fn() -> Result<(), Failure> + Sync) -> Result<f64, Failure> {
    let start = Instant::now();
    std::thread::scope(|scope| {
        let each = || (0..ALONE).try_for_each(|_| work());
        let threads: Vec<_> = (0..CORES).map(|_| scope.spawn(each)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_panic| "a thread ended")?)
    })?;
    Ok(per_second(CORES * ALONE, start))
}

#[expect(clippy::cast_precision_loss, reason = "a few thousand calls")]
fn per_second(count: usize, start: Instant) -> f64 {
    count as f64 / start.elapsed().as_secs_f64()
}

/// Calls per second, all clients at once; a tenth of the calls before them warms up.
async fn rate<'a, F>(
    clients: &'a [Client],
    calls: usize,
    call: impl Fn(&'a Client) -> F,
) -> Result<f64, Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    let each = calls / clients.len();
    let many = |count: usize| {
        try_join_all(clients.iter().map(|client| {
            let call = &call;
            async move {
                for _ in 0..count {
                    call(client).await?;
                }
                Ok::<(), Failure>(())
            }
        }))
    };
    many(each.div_ceil(10)).await?;
    let start = Instant::now();
    many(each).await?;
    Ok(per_second(each * clients.len(), start))
}
