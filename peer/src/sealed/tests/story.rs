//! What most stories begin with: a domain, a record, a grant of it.

use super::*;

/// A channel with one granted record, a share at each proxy, and nothing requested yet.
pub(super) struct Story {
    pub(super) bench: Bench,
    pub(super) proxies: Vec<TestProxy>,
    pub(super) secret: pre::SecretKey,
    pub(super) record: RecordName,
    pub(super) sealed: pre::Sealed,
    pub(super) offer: Offer,
    pub(super) granted: Granted,
}

impl Story {
    pub(super) async fn new() -> Self {
        Self::with(|_| ()).await
    }

    /// With other terms.
    pub(super) async fn with(change: impl FnOnce(&mut Terms)) -> Self {
        let story = Self::without_shares(pre::Suite::P256, |_, terms| change(terms)).await;
        for (proxy, deposit) in story.proxies.iter().zip(&story.granted.deposits) {
            let receipt = proxy.proxy.deposit(deposit).unwrap();
            assert_eq!((receipt.grant.as_str(), receipt.index), ("g1", deposit.index));
        }
        story
    }

    /// No proxy has its share yet. The height at which the grant is going to be decides about its last block.
    pub(super) async fn without_shares(suite: pre::Suite, change: impl FnOnce(u64, &mut Terms)) -> Self {
        let mut bench = Bench::new();
        let proxies = bench.proxies();
        let secret = bench.domain("clinic", suite).await;
        let record = name("clinic", "patient-7", 1);
        let sealed = bench.put(&secret, &record).await;
        let mut offer = bench.grant_to_reader("g1", "clinic", &secret, &proxies);
        change(bench.height(), &mut offer.terms);
        let granted = bench.grant(&offer).await;
        Self { bench, proxies, secret, record, sealed, offer, granted }
    }

    pub(super) fn reader(&self) -> Party {
        party(&self.bench.reader)
    }

    /// How many files of a kind (`shares`, `fragments`) the first proxy has.
    pub(super) fn kept(&self, kind: &str) -> usize {
        let folder = self.bench.folder.path().join("proxy0/channel").join(kind);
        std::fs::read_dir(folder).unwrap().count()
    }

    /// Why a further request is not endorsed.
    pub(super) async fn refused_request(&self) -> (i32, String) {
        let request = request("g1", &self.record);
        self.bench.prepare(&self.bench.reader, "Request", &request).await.err().unwrap()
    }
}
