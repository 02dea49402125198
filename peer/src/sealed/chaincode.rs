//! The rules of the system chaincode `_sealed`: what each function demands, writes and tells.
//!
//! Pure over the books: the same call over the same books gives the same writes, event and answer on every peer, which is what
//! lets [`super::validation`] check endorsers by running the rules again. The number of the block is a condition of some calls, never
//! part of what they write.

use bytes::Bytes;
use consort_channel_config::ChannelBundle;
use consort_crypto::pre;
use consort_ledger::TxSimulator;
use consort_msp::Identity;
use consort_protos::consort::sealed::{
    AnsweredFragment, CreateDomain, Domain, Event, Grant, GrantStatus, NewGrant, NewRequest, Party,
    PutRecord, Record, Request, Respond, Response, Revocation, Revoke, Terms, put_record, record, response,
};
use consort_protos::sealed::{
    FRAGMENT_TAG, INLINE_BYTES_MAX, SEALED, domain_context, record_context, request_context, signed_message,
};
use prost::Message;
use prost_types::Timestamp;

use super::books::{
    Books, Index, Refusal, domain_key, grant_key, head_key, party, record_key, request_key, response_key,
    shown, status_key,
};
use super::{audit, rules};

/// Functions that write. Whoever may write to the channel may call them; the rest is in the rules.
pub const WRITING_FUNCTIONS: [&str; 6] =
    ["CreateDomain", "PutRecord", "Grant", "Revoke", "Request", "Respond"];

/// One call.
pub struct Call<'c> {
    /// The channel's configuration.
    pub bundle: &'c ChannelBundle,
    /// Who signed the proposal; the signature holds.
    pub creator: &'c Identity,
    /// Function and argument.
    pub arguments: &'c [Bytes],
    /// The transaction's id.
    pub tx_id: &'c str,
    /// The transaction's time: its creator's, which endorsers compare with their clocks.
    pub timestamp: Timestamp,
    /// The block that the call is for: the one that holds it, or the next one when it is endorsed.
    pub block: u64,
}

/// What a call came to, besides its writes.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The message that the function returns; often empty.
    pub payload: Bytes,
    /// Name and payload of the chaincode event; questions have none.
    pub event: Option<(&'static str, Bytes)>,
}

/// Function and argument of a call.
///
/// # Errors
/// There are not exactly these two.
pub fn function(arguments: &[Bytes]) -> Result<(&str, &Bytes), Refusal> {
    let [function, argument] = arguments else {
        return Err(Refusal::malformed(format!(
            "{SEALED} is called with a function and one argument, not with {} parts",
            arguments.len()
        )));
    };
    let function = std::str::from_utf8(function)
        .map_err(|_| Refusal::malformed("the name of the function is no UTF-8"))?;
    Ok((function, argument))
}

/// Executes a call over a transaction's simulation.
///
/// # Errors
/// [`Refusal`]; what was written by then must not be used.
pub fn invoke(call: &Call<'_>, simulator: &mut TxSimulator) -> Result<Answer, Refusal> {
    let (function, argument) = function(call.arguments)?;
    let mut step = Step { call, caller: party(call.creator), books: Books::new(simulator) };
    let told = match function {
        "CreateDomain" => step.create_domain(read(argument)?)?,
        "PutRecord" => step.put_record(read(argument)?)?,
        "Grant" => step.grant(read(argument)?)?,
        "Revoke" => step.revoke(read(argument)?)?,
        "Request" => step.request(read(argument)?)?,
        "Respond" => return step.respond(read(argument)?),
        question => {
            let payload = audit::answer(question, argument, step.books.snapshot())?;
            return Ok(Answer { payload, event: None });
        }
    };
    Ok(told.answer(Bytes::new()))
}

/// Reads an argument.
pub(super) fn read<M: Message + Default>(argument: &Bytes) -> Result<M, Refusal> {
    M::decode(argument.clone())
        .map_err(|error| Refusal::malformed(format!("the argument cannot be read: {error}")))
}

/// What a step tells those who listen.
struct Told(&'static str, Event);

impl Told {
    fn answer(self, payload: Bytes) -> Answer {
        Answer { payload, event: Some((self.0, self.1.encode_to_vec().into())) }
    }
}

struct Step<'c, 's> {
    call: &'c Call<'c>,
    caller: Party,
    books: Books<'s>,
}

impl Step<'_, '_> {
    fn channel(&self) -> &str {
        self.call.bundle.channel().as_str()
    }

    fn tx_id(&self) -> String {
        self.call.tx_id.to_owned()
    }

    fn timestamp(&self) -> Option<Timestamp> {
        Some(self.call.timestamp)
    }

    fn create_domain(&mut self, input: CreateDomain) -> Result<Told, Refusal> {
        rules::id("the id of a domain", &input.domain)?;
        rules::text("the description", &input.description)?;
        let suite = rules::suite(input.suite)?;
        let key = rules::public_key("the domain's key", suite, &input.public_key)?;
        let context = domain_context(self.channel(), &input.domain, &self.caller);
        pre::Proof::from_bytes(suite, &input.proof)
            .and_then(|proof| proof.verify(&key, &context))
            .map_err(|error| {
                Refusal::malformed(format!(
                    "the creator does not prove to know the domain's secret key: {error}; the proof's context is channel, \
                     domain and creator ({})",
                    shown(&self.caller)
                ))
            })?;
        let place = domain_key(&input.domain);
        if self.books.holds(&place)? {
            return Err(Refusal::conflict(format!("the domain {:?} exists already", input.domain)));
        }
        let domain = Domain {
            domain: input.domain.clone(),
            suite: input.suite,
            public_key: input.public_key,
            owner: Some(self.caller.clone()),
            description: input.description,
            tx_id: self.tx_id(),
            timestamp: self.timestamp(),
        };
        self.books.put(&place, &domain)?;
        let event = Event { domain: input.domain, owner: domain.owner, ..self.event() };
        Ok(Told("sealed.domain-created", event))
    }

    fn put_record(&mut self, input: PutRecord) -> Result<Told, Refusal> {
        let name = input.name.ok_or_else(|| Refusal::malformed("the record has no name"))?;
        rules::record_name(&name)?;
        let content = match input.content {
            Some(put_record::Content::Ciphertext(bytes)) => {
                if bytes.len() > INLINE_BYTES_MAX {
                    return Err(Refusal::malformed(format!(
                        "the ciphertext has {} bytes; keep more than {INLINE_BYTES_MAX} elsewhere, and give hash, length and \
                         location",
                        bytes.len()
                    )));
                }
                record::Content::Ciphertext(bytes)
            }
            Some(put_record::Content::Elsewhere(elsewhere)) => {
                rules::elsewhere(&elsewhere)?;
                record::Content::Elsewhere(elsewhere)
            }
            None => return Err(Refusal::malformed("the record has no content")),
        };
        let domain = self.own_domain(&name.domain)?;
        let newest = self.books.newest(&name)?;
        if newest.checked_add(1) != Some(name.version) {
            return Err(Refusal::conflict(format!(
                "the newest version of record {:?} is {newest}; the next one must have number {}",
                name.key,
                newest.saturating_add(1)
            )));
        }
        let aux = record_context(self.channel(), &name);
        pre::Capsule::from_bytes(rules::suite(domain.suite)?, &input.capsule)
            .and_then(|capsule| capsule.check(&aux))
            .map_err(|error| {
                Refusal::malformed(format!("the capsule is not one of this record and version: {error}"))
            })?;
        let record = Record {
            name: Some(name.clone()),
            capsule: input.capsule,
            content: Some(content),
            tx_id: self.tx_id(),
            timestamp: self.timestamp(),
        };
        self.books.put(&record_key(&name), &record)?;
        self.books.put(&head_key(&name), &name)?;
        let event =
            Event { domain: name.domain.clone(), owner: domain.owner, record: Some(name), ..self.event() };
        Ok(Told("sealed.record-put", event))
    }

    /// A domain of the caller's.
    fn own_domain(&mut self, domain: &str) -> Result<Domain, Refusal> {
        let found = self.books.domain(domain)?;
        if found.owner.as_ref() == Some(&self.caller) {
            return Ok(found);
        }
        Err(Refusal::forbidden(format!("the domain {domain:?} is not owned by {}", shown(&self.caller))))
    }

    fn grant(&mut self, input: NewGrant) -> Result<Told, Refusal> {
        let terms = canonical_terms(&input.terms)?;
        rules::id("the id of a domain", &terms.domain)?;
        let domain = self.own_domain(&terms.domain)?;
        if terms.owner != domain.owner {
            return Err(Refusal::malformed("the terms name another owner than the domain's"));
        }
        let suite = rules::suite(domain.suite)?;
        rules::terms(&terms, suite, self.call.bundle)?;
        rules::commitments(&input.commitments, &input.ephemeral, terms.proxies.len(), suite)?;
        let ends = terms.validity.as_ref().map_or(0, |validity| validity.not_after_block);
        if ends != 0 && ends < self.call.block {
            return Err(Refusal::malformed(format!(
                "the grant would have ended with block {ends}, and this would be block {}",
                self.call.block
            )));
        }
        let place = grant_key(&terms.grant);
        if self.books.holds(&place)? {
            return Err(Refusal::conflict(format!("the grant {:?} exists already", terms.grant)));
        }
        let grant = Grant {
            terms: input.terms,
            ephemeral: input.ephemeral,
            commitments: input.commitments,
            tx_id: self.tx_id(),
            timestamp: self.timestamp(),
        };
        self.books.put(&place, &grant)?;
        self.books.mark(Index::Domain(&terms.domain), &terms.grant)?;
        let reader = terms.reader.clone().unwrap_or_default();
        self.books.mark(Index::Reader(&reader), &terms.grant)?;
        self.books.mark(Index::Owner(&self.caller.clone()), &terms.grant)?;
        Ok(Told("sealed.granted", self.event_of(&terms)))
    }

    fn revoke(&mut self, input: Revoke) -> Result<Told, Refusal> {
        rules::id("the id of a grant", &input.grant)?;
        rules::text("the reason", &input.reason)?;
        let terms = stored_terms(&self.books.grant(&input.grant)?)?;
        if terms.owner.as_ref() != Some(&self.caller) {
            return Err(Refusal::forbidden(format!(
                "the grant {:?} is not of {}",
                input.grant,
                shown(&self.caller)
            )));
        }
        let mut status = self.books.status(&input.grant)?;
        self.not_revoked(&input.grant, &status)?;
        status.revocation = Some(Revocation {
            by: Some(self.caller.clone()),
            reason: input.reason,
            tx_id: self.tx_id(),
            timestamp: self.timestamp(),
        });
        self.books.put(&status_key(&input.grant), &status)?;
        Ok(Told("sealed.revoked", self.event_of(&terms)))
    }

    fn not_revoked(&self, grant: &str, status: &GrantStatus) -> Result<(), Refusal> {
        match &status.revocation {
            None => Ok(()),
            Some(revocation) => Err(Refusal::conflict(format!(
                "the grant {grant:?} was revoked by transaction {}",
                revocation.tx_id
            ))),
        }
    }

    fn request(&mut self, input: NewRequest) -> Result<Told, Refusal> {
        rules::id("the id of a grant", &input.grant)?;
        let record = input.record.ok_or_else(|| Refusal::malformed("the request names no record"))?;
        rules::record_name(&record)?;
        let terms = stored_terms(&self.books.grant(&input.grant)?)?;
        if terms.reader.as_ref() != Some(&self.caller) {
            return Err(Refusal::forbidden(format!(
                "the grant {:?} is not for {}",
                input.grant,
                shown(&self.caller)
            )));
        }
        // Read in any case: a revocation that comes first makes this transaction invalid.
        let mut status = self.books.status(&input.grant)?;
        self.not_revoked(&input.grant, &status)?;
        rules::in_time(&terms, self.call.block, &self.call.timestamp)?;
        if !rules::covers(&terms, &record) {
            return Err(Refusal::forbidden(format!(
                "the grant {:?} does not cover record {:?} of domain {:?}",
                input.grant, record.key, record.domain
            )));
        }
        self.books.record(&record)?;
        if terms.uses_max != 0 {
            if status.uses >= terms.uses_max {
                return Err(Refusal::conflict(format!(
                    "the grant {:?} is used up: {} of {} requests were made",
                    input.grant, status.uses, terms.uses_max
                )));
            }
            status.uses += 1;
            self.books.put(&status_key(&input.grant), &status)?;
        }
        let request = Request {
            tx_id: self.tx_id(),
            grant: input.grant.clone(),
            record: Some(record.clone()),
            reader: Some(self.caller.clone()),
            timestamp: self.timestamp(),
        };
        self.books.put(&request_key(self.call.tx_id), &request)?;
        self.books.mark(Index::Grant(&input.grant), self.call.tx_id)?;
        let event = Event { record: Some(record), request: self.tx_id(), ..self.event_of(&terms) };
        Ok(Told("sealed.requested", event))
    }

    fn respond(&mut self, input: Respond) -> Result<Answer, Refusal> {
        let signed = input.answer.ok_or_else(|| Refusal::malformed("there is no answer to put on record"))?;
        let answered: AnsweredFragment = read(&signed.answer)?;
        rules::tx_id(&answered.request)?;
        if answered.channel != self.channel() {
            return Err(Refusal::malformed(format!("the answer is for channel {:?}", answered.channel)));
        }
        let request = self.books.request(&answered.request)?;
        if request.grant != answered.grant {
            return Err(Refusal::malformed("the answer names another grant than the request"));
        }
        let grant = self.books.grant(&request.grant)?;
        let terms = stored_terms(&grant)?;
        let peer = self.proxy(&terms, answered.index)?;
        self.check_signer(&signed.identity, &peer, &signed.answer, &signed.signature)?;
        let finding = self.judge(&answered, &request, &grant, &terms)?;
        let place = response_key(&request.tx_id, answered.index, finding.into());
        if self.books.holds(&place)? {
            return Err(Refusal::conflict(format!(
                "an answer of proxy {} to request {} is on record already",
                answered.index, request.tx_id
            )));
        }
        let response = Response {
            request: request.tx_id.clone(),
            index: answered.index,
            peer: Some(peer.clone()),
            finding: finding.into(),
            fragment: answered.fragment,
            by: Some(self.caller.clone()),
            tx_id: self.tx_id(),
            timestamp: self.timestamp(),
        };
        self.books.put(&place, &response)?;
        let wrong = finding == response::Finding::Wrong;
        let event = Event {
            record: request.record,
            request: request.tx_id,
            index: answered.index,
            proxy: Some(peer),
            ..self.event_of(&terms)
        };
        let name = if wrong { "sealed.accused" } else { "sealed.responded" };
        Ok(Told(name, event).answer(response.encode_to_vec().into()))
    }

    fn proxy(&self, terms: &Terms, index: u32) -> Result<Party, Refusal> {
        let found = terms.proxies.iter().find(|proxy| proxy.index == index);
        found
            .and_then(|proxy| proxy.peer.clone())
            .ok_or_else(|| Refusal::malformed(format!("the grant {:?} has no proxy {index}", terms.grant)))
    }

    /// The answer is signed by the proxy's peer: nobody else can be held to it.
    fn check_signer(
        &self,
        identity: &Bytes,
        peer: &Party,
        answer: &Bytes,
        signature: &Bytes,
    ) -> Result<(), Refusal> {
        let msps = self.call.bundle.msps();
        let refused = |reason: String| Refusal::malformed(format!("the answer's signer: {reason}"));
        let signer = msps.deserialize(identity).map_err(|error| refused(error.to_string()))?;
        if party(&signer) != *peer {
            return Err(refused(format!("{} is not the proxy, {}", shown(&party(&signer)), shown(peer))));
        }
        msps.validate(&signer).map_err(|error| refused(error.to_string()))?;
        signer
            .verify(&signed_message(FRAGMENT_TAG, answer), signature)
            .map_err(|error| refused(error.to_string()))
    }

    /// Whether a fragment fits the proxy's commitment. The proxy signed it, so that what does not even parse is wrong, too.
    fn judge(
        &mut self,
        answered: &AnsweredFragment,
        request: &Request,
        grant: &Grant,
        terms: &Terms,
    ) -> Result<response::Finding, Refusal> {
        let suite = rules::suite(self.books.domain(&terms.domain)?.suite)?;
        let name = request.record.clone().unwrap_or_default();
        let record = self.books.record(&name)?;
        let broken =
            |error: pre::Error| Refusal::broken(format!("the books hold what they should not: {error}"));
        let capsule = pre::Capsule::from_bytes(suite, &record.capsule).map_err(broken)?;
        let commitment = commitment(grant, answered.index)
            .ok_or_else(|| Refusal::broken("the grant has fewer commitments than proxies"))?;
        let commitment = pre::Point::from_bytes(suite, commitment).map_err(broken)?;
        let aux = record_context(self.channel(), &name);
        let context = request_context(self.channel(), &request.grant, &request.tx_id, &name);
        let verified = pre::Fragment::from_bytes(suite, &answered.fragment).and_then(|fragment| {
            if u32::from(fragment.index()) != answered.index {
                return Err(pre::Error::Index { index: fragment.index() });
            }
            fragment.verify(&capsule, &aux, &commitment, &grant.terms, &context)
        });
        Ok(if verified.is_ok() { response::Finding::Right } else { response::Finding::Wrong })
    }

    fn event(&self) -> Event {
        Event { by: Some(self.caller.clone()), ..Event::default() }
    }

    fn event_of(&self, terms: &Terms) -> Event {
        Event {
            domain: terms.domain.clone(),
            grant: terms.grant.clone(),
            owner: terms.owner.clone(),
            reader: terms.reader.clone(),
            ..self.event()
        }
    }
}

/// The commitment of a proxy, by its index, which counts from 1.
pub(super) fn commitment(grant: &Grant, index: u32) -> Option<&[u8]> {
    let place = usize::try_from(index.checked_sub(1)?).ok()?;
    grant.commitments.get(place).map(|commitment| &commitment.point[..])
}

/// Terms out of a call. They are bound by their bytes, so that there must be no second way to write them.
fn canonical_terms(bytes: &Bytes) -> Result<Terms, Refusal> {
    let terms: Terms = read(bytes)?;
    if terms.encode_to_vec()[..] == bytes[..] {
        return Ok(terms);
    }
    Err(Refusal::malformed("the terms are not encoded as protobuf encoders do, or hold unknown fields"))
}

/// Terms out of the books.
pub(super) fn stored_terms(grant: &Grant) -> Result<Terms, Refusal> {
    Terms::decode(grant.terms.clone())
        .map_err(|error| Refusal::broken(format!("the terms of a grant cannot be read: {error}")))
}
