//! The functions of the system chaincode `_identities`. Pure but for the simulation that they read and write through: the
//! endorser runs them to propose a change, and every validator runs them again to judge it.

use std::sync::Arc;

use bytes::Bytes;
use consort_channel_config::ChannelBundle;
use consort_crypto::bls::{Owner, Proof, PublicKey};
use consort_ledger::{SimulationError, TxSimulator};
use consort_msp::Identity;
use consort_protos::consort::identities::{
    BlsKey, Entry, EntryResult, GetArgs, ListArgs, ListResult, RegisterArgs, RenewArgs, RetireArgs, Status,
};
use consort_protos::entry::EntryNumber;
use consort_protos::fabric::msp::SerializedIdentity;
use prost::Message;

use super::{IDENTITIES, state};

/// Functions that read, and that the channel's access rules guard (`_identities/Get`, `_identities/List`; default: Readers).
pub const READING: [&str; 2] = ["Get", "List"];

/// Entries that one listing shows at most: some 100 kB.
pub const LISTED_MAX: u32 = 100;

/// Longest certificate that is registered, in PEM: real ones have about one kilobyte.
const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;

/// One call of the system chaincode.
#[derive(Debug)]
pub struct Call<'c> {
    /// Who signed the proposal; the signature holds.
    pub creator: &'c Arc<Identity>,
    /// Function and argument.
    pub arguments: &'c [Bytes],
    /// The channel's configuration.
    pub bundle: &'c ChannelBundle,
}

/// What a call answers.
#[derive(Debug, PartialEq)]
pub struct Answer {
    /// The encoded result.
    pub payload: Bytes,
    /// What is told to listeners: the event's name and the entry that changed.
    pub event: Option<(&'static str, Bytes)>,
}

/// Why a call changes nothing.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The caller or what it asks for is at fault.
    #[error("{0}")]
    Refused(String),
    /// There is no such entry.
    #[error("{0}")]
    NotFound(String),
    /// The state cannot be read.
    #[error("the table of identities cannot be read")]
    State(#[from] SimulationError),
    /// The state holds what no function wrote.
    #[error("the table of identities is damaged: {0}")]
    Damaged(String),
}

fn refused<T>(reason: impl Into<String>) -> Result<T, CallError> {
    Err(CallError::Refused(reason.into()))
}

/// Performs a call over a simulation.
///
/// # Errors
/// [`CallError`]; what was simulated so far is of no use then.
pub fn perform(call: &Call<'_>, simulator: &mut TxSimulator) -> Result<Answer, CallError> {
    let [function, argument] = call.arguments else {
        return refused(format!(
            "{IDENTITIES} takes a function and one argument, not {}",
            call.arguments.len()
        ));
    };
    let mut books = Books { simulator };
    let (event, entry) = match function.as_ref() {
        b"Register" => ("IdentityRegistered", register(call, &mut books, decode(argument)?)?),
        b"Renew" => ("IdentityRenewed", renew(call, &mut books, decode(argument)?)?),
        b"Retire" => ("IdentityRetired", retire(call, &mut books, &decode(argument)?)?),
        b"Get" => {
            let entry = get(call, &mut books, &decode(argument)?)?;
            return Ok(Answer { payload: result(entry), event: None });
        }
        b"List" => {
            let listed = list(&mut books, &decode(argument)?)?;
            return Ok(Answer { payload: listed.encode_to_vec().into(), event: None });
        }
        other => {
            return refused(format!("{IDENTITIES} has no function {:?}", String::from_utf8_lossy(other)));
        }
    };
    let told = entry.encode_to_vec().into();
    Ok(Answer { payload: result(entry), event: Some((event, told)) })
}

fn decode<M: Message + Default>(argument: &Bytes) -> Result<M, CallError> {
    M::decode(argument.clone())
        .map_err(|error| CallError::Refused(format!("the argument does not parse: {error}")))
}

fn result(entry: Entry) -> Bytes {
    EntryResult { entry: Some(entry) }.encode_to_vec().into()
}

fn register(call: &Call<'_>, books: &mut Books<'_>, input: RegisterArgs) -> Result<Entry, CallError> {
    check_administrator(call)?;
    add(call, books, &input.certificate, input.bls, None)
}

fn renew(call: &Call<'_>, books: &mut Books<'_>, input: RenewArgs) -> Result<Entry, CallError> {
    check_administrator(call)?;
    let mut old = books.own(call, input.number)?;
    if old.renewed_by != 0 {
        return refused(format!("entry {} is renewed by entry {} already", old.number, old.renewed_by - 1));
    }
    let new = add(call, books, &input.certificate, input.bls, Some(input.number))?;
    old.renewed_by = new.number + 1;
    books.put_entry(&old)?;
    Ok(new)
}

fn retire(call: &Call<'_>, books: &mut Books<'_>, input: &RetireArgs) -> Result<Entry, CallError> {
    check_administrator(call)?;
    let mut entry = books.own(call, input.number)?;
    entry.status = Status::Retired as i32;
    books.put_entry(&entry)?;
    Ok(entry)
}

fn get(call: &Call<'_>, books: &mut Books<'_>, input: &GetArgs) -> Result<Entry, CallError> {
    let number = if input.certificate.is_empty() {
        input.number
    } else {
        let identity = open(call.bundle, &input.msp_id, &input.certificate)?;
        let missing = || CallError::NotFound(format!("{identity} is not registered"));
        books.number(&state::certificate_key(identity.id()))?.ok_or_else(missing)?
    };
    books.entry(number)?.ok_or_else(|| CallError::NotFound(format!("there is no entry {number}")))
}

fn list(books: &mut Books<'_>, input: &ListArgs) -> Result<ListResult, CallError> {
    let total = books.number(state::TOTAL)?.unwrap_or_default();
    let count = if input.count == 0 { LISTED_MAX } else { input.count.min(LISTED_MAX) };
    let end = input.first.saturating_add(u64::from(count)).min(total);
    let mut entries = Vec::new();
    for number in input.first..end {
        let missing = || CallError::Damaged(format!("entry {number} of {total} is missing"));
        entries.push(books.entry(number)?.ok_or_else(missing)?);
    }
    Ok(ListResult { entries, total })
}

/// Only an administrator of an organisation that runs peers changes that organisation's entries.
fn check_administrator(call: &Call<'_>) -> Result<(), CallError> {
    let msp_id = call.creator.msp_id();
    let organisation = call.bundle.application().organisations.iter().find(|known| known.msp_id == *msp_id);
    let Some(organisation) = organisation else {
        return refused(format!("{msp_id} is no organisation of the channel's application"));
    };
    let path = format!("/Channel/Application/{}/Admins", organisation.name);
    let Some(policy) = call.bundle.policies().policy(&path) else {
        return refused(format!("the channel has no policy {path}, which guards the entries of {msp_id}"));
    };
    policy.evaluate_identities(std::slice::from_ref(call.creator)).map_err(|error| {
        CallError::Refused(format!("only an administrator of {msp_id} changes its entries: {error}"))
    })
}

/// Adds an entry for a certificate of the caller's organisation.
fn add(
    call: &Call<'_>,
    books: &mut Books<'_>,
    certificate: &Bytes,
    bls: Option<BlsKey>,
    renewed: Option<u64>,
) -> Result<Entry, CallError> {
    let identity = open(call.bundle, call.creator.msp_id().as_str(), certificate)?;
    identity.validate().map_err(|error| {
        CallError::Refused(format!("the certificate is not valid in {}: {error}", identity.msp_id()))
    })?;
    let index = state::certificate_key(identity.id());
    // The certificate may stay when the BLS key changes.
    if let Some(number) = books.number(&index)?.filter(|number| Some(*number) != renewed) {
        return refused(format!("{identity} is registered already, as entry {number}"));
    }
    let number = books.number(state::TOTAL)?.unwrap_or_default();
    if EntryNumber::new(number).is_none() {
        return refused("the table of identities is full");
    }
    let bls = proved_key(call, &identity, bls)?;
    if let Some(bls) = &bls {
        let index = state::bls_key(&bls.public_key);
        if let Some(owner) = books.number(&index)? {
            return refused(format!("the BLS key is registered already, with entry {owner}"));
        }
        books.put(&index, state::number(number))?;
    }
    let entry = Entry {
        msp_id: identity.msp_id().to_string(),
        certificate: identity.certificate().pem().into_bytes().into(),
        bls,
        status: Status::Active as i32,
        number,
        renewed_by: 0,
    };
    books.put(&index, state::number(number))?;
    books.put(state::TOTAL, state::number(number + 1))?;
    books.put_entry(&entry)?;
    Ok(entry)
}

/// The BLS key of an entry: the given one, whose proof must be for channel, organisation and the certificate's public key; or
/// the one that the certificate carries, whose proof is for organisation and public key.
fn proved_key(
    call: &Call<'_>,
    identity: &Identity,
    given: Option<BlsKey>,
) -> Result<Option<BlsKey>, CallError> {
    let unusable =
        |error: consort_crypto::Error| CallError::Refused(format!("the BLS key does not count: {error}"));
    let (certificate, msp_id) = (identity.certificate(), identity.msp_id().as_str());
    let Some(given) = given else {
        let Some(certified) = certificate.bls_key().map_err(unusable)? else { return Ok(None) };
        if certified.msp_id != msp_id {
            return refused(format!(
                "the certificate's BLS key is proved for {}, not for {msp_id}",
                certified.msp_id
            ));
        }
        let public_key = Bytes::copy_from_slice(certified.public_key.as_bytes());
        return Ok(Some(BlsKey { public_key, proof: Bytes::copy_from_slice(&certified.proof.to_bytes()) }));
    };
    let key = PublicKey::from_bytes(&given.public_key).map_err(unusable)?;
    let owner = Owner::new(msp_id, certificate.public_key(), call.bundle.channel().as_str());
    Proof::from_bytes(&given.proof).and_then(|proof| proof.verify(&key, &owner)).map_err(unusable)?;
    Ok(Some(given))
}

/// The identity that a certificate is under an MSP of the channel.
fn open(bundle: &ChannelBundle, msp_id: &str, certificate: &Bytes) -> Result<Arc<Identity>, CallError> {
    if certificate.len() > CERTIFICATE_BYTES_MAX {
        return refused(format!(
            "the certificate has {} bytes; {CERTIFICATE_BYTES_MAX} are allowed",
            certificate.len()
        ));
    }
    let serialized = SerializedIdentity {
        mspid: msp_id.to_owned(),
        id_bytes: certificate.clone(),
        ..SerializedIdentity::default()
    };
    bundle
        .msps()
        .deserialize(&serialized.encode_to_vec())
        .map_err(|error| CallError::Refused(format!("the certificate is none of {msp_id}: {error}")))
}

/// The namespace, through a recording simulation.
struct Books<'s> {
    simulator: &'s mut TxSimulator,
}

impl Books<'_> {
    fn number(&mut self, key: &str) -> Result<Option<u64>, CallError> {
        let stored = self.simulator.get(IDENTITIES, key)?;
        stored.map(|bytes| state::read_number(&bytes)).transpose().map_err(CallError::Damaged)
    }

    fn entry(&mut self, number: u64) -> Result<Option<Entry>, CallError> {
        let stored = self.simulator.get(IDENTITIES, &state::entry_key(number))?;
        stored.map(state::read_entry).transpose().map_err(CallError::Damaged)
    }

    /// An entry of the caller's organisation that is not retired.
    fn own(&mut self, call: &Call<'_>, number: u64) -> Result<Entry, CallError> {
        let entry =
            self.entry(number)?.ok_or_else(|| CallError::NotFound(format!("there is no entry {number}")))?;
        if entry.msp_id != call.creator.msp_id().as_str() {
            return refused(format!(
                "entry {number} is {}'s, whose administrators alone change it",
                entry.msp_id
            ));
        }
        if entry.status != Status::Active as i32 {
            return refused(format!("entry {number} is retired"));
        }
        Ok(entry)
    }

    fn put(&mut self, key: &str, value: Bytes) -> Result<(), CallError> {
        Ok(self.simulator.put(IDENTITIES, key, value)?)
    }

    fn put_entry(&mut self, entry: &Entry) -> Result<(), CallError> {
        self.put(&state::entry_key(entry.number), entry.encode_to_vec().into())
    }
}
