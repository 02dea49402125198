//! Questions about sealed data: who could read what, when, who did, by whose leave.
//!
//! They read the committed books and record nothing: what they answer is for people, and is never ordered.

use bytes::Bytes;
use consort_protos::consort::sealed::{
    Audit, AuditEntry, AuditPage, DomainName, GrantAnswer, GrantName, ListRecords, RecordName, RecordPage,
    RequestAnswer, RequestName, audit,
};
use prost::Message;

use super::SEALED;
use super::books::{Index, Refusal, View};
use super::chaincode::{read, stored_terms};
use super::rules;

/// Functions that only ask. Whoever may read the channel may call them.
pub const ASKING_FUNCTIONS: [&str; 6] =
    ["GetDomain", "GetRecord", "GetGrant", "GetRequest", "Audit", "ListRecords"];

/// Most grants or records of a page: an answer stays far below the limit of a gRPC message.
const PAGE_MAX: usize = 100;
/// Most requests of one grant in an answer, for the same reason.
const REQUESTS_MAX: usize = 1_000;

/// Answers a question.
pub(super) fn answer(function: &str, argument: &Bytes, view: View<'_>) -> Result<Bytes, Refusal> {
    let answer = match function {
        "GetDomain" => view.domain(&read::<DomainName>(argument)?.domain)?.value.encode_to_vec(),
        "GetRecord" => {
            let mut name: RecordName = read(argument)?;
            rules::record_name(&name)?;
            if name.version == 0 {
                name.version = view.newest(&name)?;
            }
            view.record(&name)?.value.encode_to_vec()
        }
        "GetGrant" => grant(&read::<GrantName>(argument)?.grant, view)?.encode_to_vec(),
        "GetRequest" => request(&read::<RequestName>(argument)?.tx_id, view)?.encode_to_vec(),
        "Audit" => audit(read(argument)?, view)?.encode_to_vec(),
        "ListRecords" => records(&read(argument)?, view)?.encode_to_vec(),
        other => return Err(Refusal::unknown(format!("{SEALED} has no function {other:?}"))),
    };
    Ok(answer.into())
}

fn grant(name: &str, view: View<'_>) -> Result<GrantAnswer, Refusal> {
    let grant = view.grant(name)?;
    let status = view.status(name)?;
    // Nothing changes a status after its revocation.
    let revoked_in_block = if status.value.revocation.is_some() { status.block } else { 0 };
    Ok(GrantAnswer {
        grant: Some(grant.value),
        status: Some(status.value),
        block: grant.block,
        revoked_in_block,
    })
}

fn request(tx_id: &str, view: View<'_>) -> Result<RequestAnswer, Refusal> {
    rules::tx_id(tx_id)?;
    let request = view
        .request(tx_id)?
        .ok_or_else(|| Refusal::unknown(format!("no transaction {tx_id:?} has requested a record")))?;
    Ok(RequestAnswer {
        request: Some(request.value),
        block: request.block,
        responses: view.responses(tx_id)?,
    })
}

fn records(input: &ListRecords, view: View<'_>) -> Result<RecordPage, Refusal> {
    rules::id("the id of a domain", &input.domain)?;
    view.domain(&input.domain)?;
    let (records, more) = view.heads(&input.domain, &input.bookmark, page_size(input.page_size))?;
    let bookmark = if more { records.last().map(|last| last.key.clone()) } else { None };
    Ok(RecordPage { records, bookmark: bookmark.unwrap_or_default() })
}

fn page_size(wanted: u32) -> usize {
    match usize::try_from(wanted) {
        Ok(wanted @ 1..PAGE_MAX) => wanted,
        _ => PAGE_MAX,
    }
}

fn audit(input: Audit, view: View<'_>) -> Result<AuditPage, Refusal> {
    let about = input.about.ok_or_else(|| {
        Refusal::malformed(
            "an audit is about a record, a reader, an owner, a grant or a domain; none is named",
        )
    })?;
    let record = match &about {
        audit::About::Record(record) => {
            rules::record_name(record)?;
            Some(record)
        }
        _ => None,
    };
    let index = match &about {
        audit::About::Grant(grant) => {
            rules::id("the id of a grant", grant)?;
            let entries = vec![entry(grant, None, view)?];
            return Ok(AuditPage { entries, bookmark: String::new() });
        }
        audit::About::Record(record) => Index::Domain(&record.domain),
        audit::About::Domain(domain) => {
            rules::id("the id of a domain", domain)?;
            Index::Domain(domain)
        }
        audit::About::Reader(reader) => Index::Reader(reader),
        audit::About::Owner(owner) => Index::Owner(owner),
    };
    let (grants, more) = view.names(index, &input.bookmark, page_size(input.page_size))?;
    let mut entries = Vec::new();
    for name in &grants {
        let covered = record.map_or(Ok(true), |record| {
            stored_terms(&view.grant(name)?.value).map(|terms| rules::covers(&terms, record))
        })?;
        if covered {
            entries.push(entry(name, record, view)?);
        }
    }
    let bookmark = if more { grants.last().cloned().unwrap_or_default() } else { String::new() };
    Ok(AuditPage { entries, bookmark })
}

fn entry(name: &str, record: Option<&RecordName>, view: View<'_>) -> Result<AuditEntry, Refusal> {
    let grant = grant(name, view)?;
    let (names, more_requests) = view.names(Index::Grant(name), "", REQUESTS_MAX)?;
    let mut requests = Vec::new();
    for tx_id in names {
        let request = request(&tx_id, view)?;
        let requested = request.request.as_ref().and_then(|request| request.record.as_ref());
        let wanted = record.is_none_or(|record| {
            requested.is_some_and(|requested| {
                requested.domain == record.domain
                    && requested.key == record.key
                    && (record.version == 0 || requested.version == record.version)
            })
        });
        if wanted {
            requests.push(request);
        }
    }
    Ok(AuditEntry { grant: Some(grant), requests, more_requests })
}
