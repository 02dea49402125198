//! The sandbox's side of the door: the WIT interface as a [`Ledger`].
//!
//! Exists only in the build for WebAssembly. [`export!`](crate::export) makes use of it; authors do not.

use crate::contract::dispatch;
use crate::ledger::{
    ClientIdentity, Cursor, HistoryCursor, KeyValue, Ledger, Level, Modification, Page, Response,
    SignedProposal, Timestamp,
};
use crate::{Context, Contract, Error};

#[expect(missing_docs, reason = "generated from the WIT, which documents it")]
#[allow(
    unsafe_code,
    clippy::all,
    clippy::pedantic,
    reason = "the generated code crosses the border of the sandbox"
)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "wit",
        world: "chaincode",
        pub_export_macro: true,
        export_macro_name: "export_chaincode",
    });
}

use bindings::consort::chaincode::{diagnostics, private_data, state, transaction};

/// Runs one invocation of a contract.
pub fn run(contract: &dyn Contract, invocation: &bindings::Invocation) -> bindings::Response {
    std::panic::set_hook(Box::new(|panic| diagnostics::panicked(&panic.to_string())));
    match dispatch(contract, &Context::new(&Host), &invocation.arguments) {
        Ok(payload) => bindings::Response { status: 200, message: String::new(), payload },
        Err(error) => bindings::Response {
            status: error.status(),
            message: error.message().to_owned(),
            payload: Vec::new(),
        },
    }
}

/// The peer.
struct Host;

impl Ledger for Host {
    fn tx_id(&self) -> String {
        transaction::id()
    }

    fn channel(&self) -> String {
        transaction::channel()
    }

    fn chaincode(&self) -> String {
        transaction::chaincode()
    }

    fn timestamp(&self) -> Timestamp {
        let time = transaction::timestamp();
        Timestamp { seconds: time.seconds, nanoseconds: time.nanoseconds }
    }

    fn creator(&self) -> Result<ClientIdentity, Error> {
        let identity = transaction::creator()?;
        Ok(ClientIdentity {
            msp_id: identity.msp_id,
            certificate: identity.certificate,
            common_name: identity.common_name,
            id: identity.id,
            organizational_units: identity.organizational_units,
            attributes: identity.attributes,
        })
    }

    fn transient(&self, name: &str) -> Option<Vec<u8>> {
        transaction::transient(name)
    }

    fn transient_names(&self) -> Vec<String> {
        transaction::transient_names()
    }

    fn peer_msp_id(&self) -> String {
        transaction::peer_msp_id()
    }

    fn arguments(&self) -> Vec<Vec<u8>> {
        transaction::arguments()
    }

    fn signed_proposal(&self) -> SignedProposal {
        let signed = transaction::signed_proposal();
        SignedProposal { proposal: signed.proposal, signature: signed.signature }
    }

    fn binding(&self) -> Vec<u8> {
        transaction::binding()
    }

    fn set_event(&self, name: &str, payload: &[u8]) -> Result<(), Error> {
        Ok(transaction::set_event(name, payload)?)
    }

    fn invoke_chaincode(&self, name: &str, arguments: &[Vec<u8>], channel: &str) -> Result<Response, Error> {
        let response = transaction::invoke_chaincode(name, arguments, channel)?;
        Ok(Response { status: response.status, message: response.message, payload: response.payload })
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(state::get(key)?)
    }

    fn get_many(&self, keys: &[&str]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        Ok(state::get_many(&owned(keys))?)
    }

    fn page(&self, start: &str, end: &str, size: u32, bookmark: &str) -> Result<Page, Error> {
        let page = state::range_page(start, end, size, bookmark)?;
        Ok(Page { entries: page.entries.into_iter().map(key_value).collect(), bookmark: page.bookmark })
    }

    fn history(&self, key: &str) -> Result<Box<dyn HistoryCursor>, Error> {
        Ok(Box::new(state::history(key)?))
    }

    fn put(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        Ok(state::put(key, value)?)
    }

    fn delete(&self, key: &str) -> Result<(), Error> {
        Ok(state::delete(key)?)
    }

    fn range(&self, start: &str, end: &str) -> Result<Box<dyn Cursor>, Error> {
        Ok(Box::new(state::range(start, end)?))
    }

    fn validation_parameter(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(state::validation_parameter(key)?)
    }

    fn set_validation_parameter(&self, key: &str, policy: &[u8]) -> Result<(), Error> {
        Ok(state::set_validation_parameter(key, policy)?)
    }

    fn private_get(&self, collection: &str, key: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(private_data::get(collection, key)?)
    }

    fn private_hash(&self, collection: &str, key: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(private_data::hash(collection, key)?)
    }

    fn private_put(&self, collection: &str, key: &str, value: &[u8]) -> Result<(), Error> {
        Ok(private_data::put(collection, key, value)?)
    }

    fn private_get_many(&self, collection: &str, keys: &[&str]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        Ok(private_data::get_many(collection, &owned(keys))?)
    }

    fn private_validation_parameter(&self, collection: &str, key: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(private_data::validation_parameter(collection, key)?)
    }

    fn set_private_validation_parameter(
        &self,
        collection: &str,
        key: &str,
        policy: &[u8],
    ) -> Result<(), Error> {
        Ok(private_data::set_validation_parameter(collection, key, policy)?)
    }

    fn private_delete(&self, collection: &str, key: &str) -> Result<(), Error> {
        Ok(private_data::delete(collection, key)?)
    }

    fn private_purge(&self, collection: &str, key: &str) -> Result<(), Error> {
        Ok(private_data::purge(collection, key)?)
    }

    fn private_range(&self, collection: &str, start: &str, end: &str) -> Result<Box<dyn Cursor>, Error> {
        Ok(Box::new(private_data::range(collection, start, end)?))
    }

    fn log(&self, level: Level, message: &str) {
        let level = match level {
            Level::Debug => diagnostics::Level::Debug,
            Level::Info => diagnostics::Level::Info,
            Level::Warn => diagnostics::Level::Warn,
            Level::Error => diagnostics::Level::Error,
        };
        diagnostics::log(level, message);
    }
}

impl Cursor for state::RangeCursor {
    fn next_batch(&mut self) -> Result<Vec<KeyValue>, Error> {
        Ok(self.next()?.into_iter().map(key_value).collect())
    }
}

impl Cursor for private_data::RangeCursor {
    fn next_batch(&mut self) -> Result<Vec<KeyValue>, Error> {
        Ok(self.next()?.into_iter().map(key_value).collect())
    }
}

impl HistoryCursor for state::HistoryCursor {
    fn next_batch(&mut self) -> Result<Vec<Modification>, Error> {
        let batch = self.next()?;
        let modification = |change: state::Modification| Modification {
            tx_id: change.tx_id,
            timestamp: Timestamp { seconds: change.seconds, nanoseconds: change.nanoseconds },
            value: change.value,
            is_delete: change.is_delete,
        };
        Ok(batch.into_iter().map(modification).collect())
    }
}

fn owned(keys: &[&str]) -> Vec<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

fn key_value(pair: bindings::consort::chaincode::types::KeyValue) -> KeyValue {
    KeyValue { key: pair.key, value: pair.value }
}
