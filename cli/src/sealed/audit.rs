//! Who could read what, when; who did; by whose leave.

use anyhow::Context;
use clap::{ArgGroup, Args};
use consort_client_sdk::sealed::{
    About, AuditEntry, Finding, GrantAnswer, Party, RecordName, RequestAnswer, Terms, Validity,
};
use prost::Message;
use serde_json::{Value, json};

use super::records::record_words;
use super::session::SealedOptions;
use crate::report::count;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("about").required(true))]
pub(crate) struct AuditOptions {
    #[command(flatten)]
    common: SealedOptions,

    /// Grants that cover a record, and the requests for it
    #[arg(long, value_name = "DOMAIN/KEY", group = "about")]
    record: Option<String>,

    /// One grant
    #[arg(long, value_name = "GRANT", group = "about")]
    grant: Option<String>,

    /// All grants of a domain
    #[arg(long, value_name = "DOMAIN", group = "about")]
    domain: Option<String>,

    /// What the caller was granted
    #[arg(long, group = "about")]
    granted_to_me: bool,

    /// What the caller has granted
    #[arg(long, group = "about")]
    granted_by_me: bool,
}

impl AuditOptions {
    fn about(&self, caller: &Party) -> anyhow::Result<About> {
        if let Some(record) = &self.record {
            let (domain, key) = record
                .split_once('/')
                .with_context(|| format!("--record '{record}' is not of the form domain/key"))?;
            return Ok(About::Record(RecordName {
                domain: domain.to_owned(),
                key: key.to_owned(),
                version: 0,
            }));
        }
        Ok(match (&self.grant, &self.domain) {
            (Some(grant), _) => About::Grant(grant.clone()),
            (None, Some(domain)) => About::Domain(domain.clone()),
            (None, None) if self.granted_by_me => About::Owner(caller.clone()),
            (None, None) => About::Reader(caller.clone()),
        })
    }
}

/// `consort sealed audit`.
///
/// # Errors
/// The ledger has nothing of that name.
pub(super) async fn run(options: &AuditOptions) -> anyhow::Result<()> {
    let sealed = options.common.open().await?.sealed;
    let entries = sealed.audit(options.about(sealed.party())?).await?;
    let told: Vec<Told> = entries.iter().map(Told::new).collect::<Result<_, _>>()?;
    let json: Vec<Value> = told.iter().map(Told::json).collect();
    options.common.output.print(&json!(json), || {
        if told.is_empty() {
            return "no grants".to_owned();
        }
        told.iter().flat_map(Told::lines).collect::<Vec<_>>().join("\n")
    })
}

/// An entry with its terms opened.
pub(super) struct Told<'e> {
    grant: &'e GrantAnswer,
    terms: Terms,
    requests: &'e [RequestAnswer],
    more: bool,
}

impl<'e> Told<'e> {
    pub(super) fn new(entry: &'e AuditEntry) -> anyhow::Result<Self> {
        let grant = entry.grant.as_ref().context("the audit holds an entry without a grant")?;
        let terms = grant.grant.as_ref().map(|grant| grant.terms.clone()).unwrap_or_default();
        let terms = Terms::decode(terms).context("the audit holds a grant that cannot be read")?;
        Ok(Self { grant, terms, requests: &entry.requests, more: entry.more_requests })
    }

    /// For people: what was granted, and beneath it what happened, in the order of blocks.
    pub(super) fn lines(&self) -> Vec<String> {
        let terms = &self.terms;
        let mut lines = vec![format!(
            "grant {}: {} lets {} read {}",
            terms.grant,
            party_words(terms.owner.as_ref()),
            party_words(terms.reader.as_ref()),
            self.scope()
        )];
        let mut events = vec![(
            self.grant.block,
            format!(
                "granted{}; {} of {} must answer",
                self.bounds(),
                terms.threshold,
                count(terms.proxies.len(), "proxy")
            ),
        )];
        events.extend(self.requests.iter().map(|request| (request.block, request_words(request))));
        if let Some(revocation) = self.revocation() {
            let because =
                if revocation.reason.is_empty() { String::new() } else { format!(": {}", revocation.reason) };
            let by = party_words(revocation.by.as_ref());
            events.push((self.grant.revoked_in_block, format!("revoked by {by}{because}")));
        }
        events.sort_by_key(|(block, _)| *block);
        lines.extend(events.into_iter().map(|(block, event)| format!("  block {block:>4}  {event}")));
        if self.more {
            lines.push("  (and more requests than are shown)".to_owned());
        }
        lines
    }

    fn revocation(&self) -> Option<&consort_protos::consort::sealed::Revocation> {
        self.grant.status.as_ref()?.revocation.as_ref()
    }

    fn scope(&self) -> String {
        let filter = self.terms.filter.clone().unwrap_or_default();
        let named = filter.keys.into_iter().chain(filter.prefixes.into_iter().map(|prefix| prefix + "*"));
        let named: Vec<String> = named.collect();
        let domain = &self.terms.domain;
        if named.is_empty() {
            format!("everything in {domain}")
        } else {
            format!("{} in {domain}", named.join(", "))
        }
    }

    fn bounds(&self) -> String {
        let Validity { not_before_block, not_after_block, not_before, not_after } =
            self.terms.validity.unwrap_or_default();
        let mut bounds = Vec::new();
        if not_before_block != 0 {
            bounds.push(format!("from block {not_before_block}"));
        }
        if not_after_block != 0 {
            bounds.push(format!("until block {not_after_block}"));
        }
        bounds.extend(not_before.map(|time| format!("from {time}")));
        bounds.extend(not_after.map(|time| format!("until {time}")));
        if self.terms.uses_max != 0 {
            bounds.push(format!(
                "{} at most",
                count(usize::try_from(self.terms.uses_max).unwrap_or(usize::MAX), "request")
            ));
        }
        if bounds.is_empty() { String::new() } else { format!(" {}", bounds.join(", ")) }
    }

    fn json(&self) -> Value {
        let party =
            |party: Option<&Party>| party.map(|party| json!({ "msp_id": party.msp_id, "id": party.id }));
        let (terms, validity) = (&self.terms, self.terms.validity.unwrap_or_default());
        let filter = terms.filter.clone().unwrap_or_default();
        let proxies: Vec<&str> = terms.proxies.iter().map(|proxy| proxy.endpoint.as_str()).collect();
        let requests: Vec<Value> = self.requests.iter().map(request_json).collect();
        json!({
            "grant": terms.grant,
            "domain": terms.domain,
            "owner": party(terms.owner.as_ref()),
            "reader": party(terms.reader.as_ref()),
            "keys": filter.keys,
            "prefixes": filter.prefixes,
            "threshold": terms.threshold,
            "proxies": proxies,
            "block": self.grant.block,
            "not_before_block": validity.not_before_block,
            "not_after_block": validity.not_after_block,
            "not_before": validity.not_before.map(|time| time.to_string()),
            "not_after": validity.not_after.map(|time| time.to_string()),
            "uses_max": terms.uses_max,
            "revoked_in_block": self.revocation().map(|_| self.grant.revoked_in_block),
            "revocation_reason": self.revocation().map(|revocation| &revocation.reason),
            "requests": requests,
            "more_requests": self.more,
        })
    }
}

fn request_words(answer: &RequestAnswer) -> String {
    let request = answer.request.clone().unwrap_or_default();
    let mut words = format!(
        "{} requested {} ({}...)",
        party_words(request.reader.as_ref()),
        record_words(&request.record.unwrap_or_default()),
        request.tx_id.chars().take(8).collect::<String>()
    );
    for response in &answer.responses {
        let proxy = party_words(response.peer.as_ref());
        let finding = match response.finding() {
            Finding::Right => "answered right",
            Finding::Wrong | Finding::Unspecified => "answered WRONG",
        };
        words.push_str(&format!("; proxy {} {proxy} {finding}", response.index));
    }
    words
}

fn request_json(answer: &RequestAnswer) -> Value {
    let request = answer.request.clone().unwrap_or_default();
    let record = request.record.unwrap_or_default();
    let responses: Vec<Value> = answer
        .responses
        .iter()
        .map(|response| json!({ "index": response.index, "right": response.finding() == Finding::Right }))
        .collect();
    json!({
        "request": request.tx_id, "block": answer.block, "key": record.key, "version": record.version,
        "responses": responses,
    })
}

/// A party as people know it: `User1@org1.example.com (Org1MSP)`.
pub(super) fn party_words(party: Option<&Party>) -> String {
    let Some(party) = party else { return "nobody".to_owned() };
    let subject = party.id.strip_prefix("x509::").unwrap_or(&party.id);
    let subject = subject.split("::").next().unwrap_or(subject);
    let name = subject.split([',', '/', '+']).find_map(|part| part.trim().strip_prefix("CN="));
    format!("{} ({})", name.unwrap_or(subject), party.msp_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_party_is_shown_by_its_common_name() {
        let party = |id: &str| Party { msp_id: "AMSP".to_owned(), id: id.to_owned() };
        let named = party("x509::CN=User1@a.example.com,OU=client::CN=ca.a.example.com");
        assert_eq!(party_words(Some(&named)), "User1@a.example.com (AMSP)");
        assert_eq!(party_words(Some(&party("x509::OU=client,CN=Ada::CN=ca"))), "Ada (AMSP)");
        assert_eq!(party_words(Some(&party("odd"))), "odd (AMSP)");
    }

    #[test]
    fn an_entry_tells_what_happened_in_the_order_of_blocks() {
        use consort_client_sdk::sealed::{Grant, GrantStatus, ProxyOf};
        use consort_protos::consort::sealed::{Request, Revocation};
        let party =
            |name: &str| Some(Party { msp_id: "AMSP".to_owned(), id: format!("x509::CN={name}::CN=ca") });
        let terms = Terms {
            grant: "g1".to_owned(),
            domain: "wards".to_owned(),
            owner: party("ada"),
            reader: party("bob"),
            threshold: 2,
            proxies: vec![ProxyOf::default(); 3],
            validity: Some(Validity { not_after_block: 15, ..Validity::default() }),
            ..Terms::default()
        };
        let grant = Grant { terms: terms.encode_to_vec().into(), ..Grant::default() };
        let revocation = Revocation { by: party("ada"), reason: "over".to_owned(), ..Revocation::default() };
        let status = GrantStatus { uses: 1, revocation: Some(revocation) };
        let record = RecordName { domain: "wards".to_owned(), key: "p17".to_owned(), version: 1 };
        let request = Request {
            tx_id: "abcdef0123".to_owned(),
            reader: party("bob"),
            record: Some(record),
            ..Request::default()
        };
        let entry = AuditEntry {
            grant: Some(GrantAnswer {
                grant: Some(grant),
                status: Some(status),
                block: 5,
                revoked_in_block: 7,
            }),
            requests: vec![RequestAnswer { request: Some(request), block: 6, responses: vec![] }],
            more_requests: false,
        };
        let told = Told::new(&entry).unwrap();
        let expected = [
            "grant g1: ada (AMSP) lets bob (AMSP) read everything in wards",
            "  block    5  granted until block 15; 2 of 3 proxies must answer",
            "  block    6  bob (AMSP) requested wards/p17, version 1 (abcdef01...)",
            "  block    7  revoked by ada (AMSP): over",
        ];
        assert_eq!(told.lines(), expected);
        assert_eq!(told.json()["revoked_in_block"], 7);
    }
}
