//! A real authority on a free port, in a folder that is removed afterwards.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use consort_ca::config::CaConfig;
use consort_ca::server::{self, Serving};
use consort_client_sdk::Endpoint;
use consort_client_sdk::ca::{CaClient, Enrollment, EnrollmentOptions};
use consort_node::{ManualClock, Tasks, config};
use tempfile::TempDir;
use time::OffsetDateTime;

/// Time that a test server gets to end.
const SHUTDOWN: Duration = Duration::from_secs(10);

/// A running authority with its folder.
pub(crate) struct TestCa {
    pub(crate) serving: Serving,
    pub(crate) clock: Arc<ManualClock>,
    folder: Arc<TempDir>,
    tasks: Tasks,
}

/// A configuration in `folder` on a free port, with cheap hashing so that tests are quick.
pub(crate) fn configuration(folder: &std::path::Path, more: &str) -> CaConfig {
    let data = folder.join("data");
    let text = format!(
        "listen: {{ address: '127.0.0.1:0' }}\n\
         data: {}\n\
         ca:\n  name: ca-org1\n  subject: {{ common_name: ca.org1.example.com, organization: org1.example.com }}\n\
         hosts: [ca.org1.example.com, localhost, 127.0.0.1]\n\
         bootstrap: {{ id: admin, secret: adminpw }}\n\
         affiliations: [org1.department1, org2]\n\
         password_hashing: {{ memory_kib: 64, passes: 1 }}\n\
         {more}\n",
        data.display()
    );
    config::parse(&text, &PathBuf::from("test.yaml"), "NONE", []).expect("configuration")
}

impl TestCa {
    /// Starts an authority in a new folder.
    pub(crate) async fn start(more: &str) -> Self {
        // A moment that rustls accepts for certificates, too: it judges by the machine's clock.
        let now = consort_node::Clock::now(&consort_node::SystemClock);
        let folder = Arc::new(tempfile::tempdir().expect("folder"));
        Self::start_in(folder, more, now).await
    }

    async fn start_in(folder: Arc<TempDir>, more: &str, now: OffsetDateTime) -> Self {
        let (tasks, clock) = (Tasks::new(), Arc::new(ManualClock::new(now)));
        let config = configuration(folder.path(), more);
        let serving = server::start(&config, Arc::clone(&clock) as _, None, &tasks).await.expect("start");
        Self { serving, clock, folder, tasks }
    }

    /// Ends the authority and starts it again on the same folder.
    pub(crate) async fn restart(self, more: &str) -> Self {
        let now = consort_node::Clock::now(&*self.clock);
        let folder = Arc::clone(&self.folder);
        self.stop().await;
        Self::start_in(folder, more, now).await
    }

    /// Ends the authority.
    pub(crate) async fn stop(self) {
        self.tasks.shutdown(SHUTDOWN).await.expect("all tasks end");
    }

    /// Ends the authority and hands out its folder, which is removed with the last of its owners.
    pub(crate) async fn folder_after_stop(self) -> Arc<TempDir> {
        let folder = Arc::clone(&self.folder);
        self.stop().await;
        folder
    }

    /// The folder that holds everything.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// A client that trusts the authority and finds it by its configured host name.
    pub(crate) fn client(&self) -> CaClient {
        let address = format!("ca.org1.example.com:{}", self.serving.address.port());
        let endpoint = Endpoint::new(address, self.serving.chain_pem.clone().into_bytes());
        CaClient::new(&endpoint.connect_to(self.serving.address), Some("ca-org1")).expect("client")
    }

    /// As [`TestCa::client`], for another authority of the server.
    pub(crate) fn client_of(&self, name: &str) -> CaClient {
        let address = format!("ca.org1.example.com:{}", self.serving.address.port());
        let endpoint = Endpoint::new(address, self.serving.tls_roots_pem.clone().into_bytes());
        CaClient::new(&endpoint.connect_to(self.serving.address), Some(name)).expect("client")
    }

    /// Plain HTTPS to the authority.
    pub(crate) fn http(&self) -> reqwest::Client {
        consort_crypto::tls::install_default_provider();
        let root = reqwest::Certificate::from_pem(self.serving.tls_roots_pem.as_bytes()).expect("root");
        reqwest::Client::builder().add_root_certificate(root).no_proxy().build().expect("client")
    }

    /// The first administrator, enrolled.
    pub(crate) async fn admin(&self) -> Enrollment {
        let options = EnrollmentOptions::default();
        self.client().enroll("admin", "adminpw", &options).await.expect("administrator")
    }
}
