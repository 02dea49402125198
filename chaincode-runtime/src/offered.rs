//! The functions of the interface, each paid for at its end.
//!
//! What a host call costs is known to the sandbox, and what is left to the store. Here both meet: a call begins with what is left, cannot
//! cost more, and what it cost is taken away before the chaincode goes on. An execution therefore ends with the very call that uses up
//! its fuel, on every endorser with the same one.

use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentNamedList, Lift, Linker, LinkerInstance, Lower, Resource};

use super::imports::TRANSACTION_INTERFACE;
use super::sandbox::bindings::consort::chaincode::{
    composite_keys, diagnostics, private_data, state, transaction,
};
use super::sandbox::{Cursor, HistoryCursor, PrivateCursor, Sandbox};

/// Puts the functions in the place of those that do not see the fuel.
pub(super) fn link(linker: &mut Linker<Sandbox>) -> wasmtime::Result<()> {
    transaction(&mut linker.instance(TRANSACTION_INTERFACE)?)?;
    state(&mut linker.instance("consort:chaincode/state@1.1.0")?)?;
    private_data(&mut linker.instance("consort:chaincode/private-data@1.1.0")?)?;
    composite_keys(&mut linker.instance("consort:chaincode/composite-keys@1.1.0")?)?;
    let diagnostics = &mut linker.instance("consort:chaincode/diagnostics@1.1.0")?;
    offer(diagnostics, "log", |sandbox, (level, message): (diagnostics::Level, String)| {
        diagnostics::Host::log(sandbox, level, message)
    })
}

/// Offers a function with its costs.
fn offer<P, R>(
    interface: &mut LinkerInstance<'_, Sandbox>,
    name: &str,
    function: impl Fn(&mut Sandbox, P) -> wasmtime::Result<R> + Send + Sync + 'static,
) -> wasmtime::Result<()>
where
    P: ComponentNamedList + Lift + 'static,
    R: ComponentNamedList + Lower + 'static,
{
    interface.func_wrap(name, move |mut store: StoreContextMut<'_, Sandbox>, parameters: P| {
        let left = store.get_fuel()?;
        let sandbox = store.data_mut();
        sandbox.resume(left);
        let result = function(sandbox, parameters)?;
        let left = sandbox.settle(left)?;
        store.set_fuel(left)?;
        Ok(result)
    })
}

fn transaction(interface: &mut LinkerInstance<'_, Sandbox>) -> wasmtime::Result<()> {
    offer(interface, "id", |sandbox, ()| Ok((transaction::Host::id(sandbox)?,)))?;
    offer(interface, "channel", |sandbox, ()| Ok((transaction::Host::channel(sandbox)?,)))?;
    offer(interface, "chaincode", |sandbox, ()| Ok((transaction::Host::chaincode(sandbox)?,)))?;
    offer(interface, "timestamp", |sandbox, ()| Ok((transaction::Host::timestamp(sandbox)?,)))?;
    offer(interface, "creator", |sandbox, ()| Ok((transaction::Host::creator(sandbox)?,)))?;
    offer(interface, "transient", |sandbox, (name,): (String,)| {
        Ok((transaction::Host::transient(sandbox, name)?,))
    })?;
    offer(interface, "transient-names", |sandbox, ()| Ok((transaction::Host::transient_names(sandbox)?,)))?;
    offer(interface, "peer-msp-id", |sandbox, ()| Ok((transaction::Host::peer_msp_id(sandbox)?,)))?;
    offer(interface, "arguments", |sandbox, ()| Ok((transaction::Host::arguments(sandbox)?,)))?;
    offer(interface, "signed-proposal", |sandbox, ()| Ok((transaction::Host::signed_proposal(sandbox)?,)))?;
    offer(interface, "binding", |sandbox, ()| Ok((transaction::Host::binding(sandbox)?,)))?;
    offer(interface, "set-event", |sandbox, (name, payload): (String, Vec<u8>)| {
        Ok((transaction::Host::set_event(sandbox, name, payload)?,))
    })?;
    Ok(())
}

fn state(interface: &mut LinkerInstance<'_, Sandbox>) -> wasmtime::Result<()> {
    offer(interface, "get", |sandbox, (key,): (String,)| Ok((state::Host::get(sandbox, key)?,)))?;
    offer(interface, "get-many", |sandbox, (keys,): (Vec<String>,)| {
        Ok((state::Host::get_many(sandbox, keys)?,))
    })?;
    offer(
        interface,
        "range-page",
        |sandbox, (start, end, size, bookmark): (String, String, u32, String)| {
            Ok((state::Host::range_page(sandbox, start, end, size, bookmark)?,))
        },
    )?;
    offer(interface, "history", |sandbox, (key,): (String,)| Ok((state::Host::history(sandbox, key)?,)))?;
    offer(interface, "put", |sandbox, (key, value): (String, Vec<u8>)| {
        Ok((state::Host::put(sandbox, key, value)?,))
    })?;
    offer(interface, "delete", |sandbox, (key,): (String,)| Ok((state::Host::delete(sandbox, key)?,)))?;
    offer(interface, "range", |sandbox, (start, end): (String, String)| {
        Ok((state::Host::range(sandbox, start, end)?,))
    })?;
    offer(interface, "validation-parameter", |sandbox, (key,): (String,)| {
        Ok((state::Host::validation_parameter(sandbox, key)?,))
    })?;
    offer(interface, "set-validation-parameter", |sandbox, (key, policy): (String, Vec<u8>)| {
        Ok((state::Host::set_validation_parameter(sandbox, key, policy)?,))
    })?;
    offer(interface, "[method]range-cursor.next", |sandbox, (cursor,): (Resource<Cursor>,)| {
        Ok((state::HostRangeCursor::next(sandbox, cursor)?,))
    })?;
    offer(interface, "[method]history-cursor.next", |sandbox, (cursor,): (Resource<HistoryCursor>,)| {
        Ok((state::HostHistoryCursor::next(sandbox, cursor)?,))
    })?;
    Ok(())
}

fn private_data(interface: &mut LinkerInstance<'_, Sandbox>) -> wasmtime::Result<()> {
    offer(interface, "get", |sandbox, (collection, key): (String, String)| {
        Ok((private_data::Host::get(sandbox, collection, key)?,))
    })?;
    offer(interface, "hash", |sandbox, (collection, key): (String, String)| {
        Ok((private_data::Host::hash(sandbox, collection, key)?,))
    })?;
    offer(interface, "put", |sandbox, (collection, key, value): (String, String, Vec<u8>)| {
        Ok((private_data::Host::put(sandbox, collection, key, value)?,))
    })?;
    offer(interface, "delete", |sandbox, (collection, key): (String, String)| {
        Ok((private_data::Host::delete(sandbox, collection, key)?,))
    })?;
    offer(interface, "purge", |sandbox, (collection, key): (String, String)| {
        Ok((private_data::Host::purge(sandbox, collection, key)?,))
    })?;
    offer(interface, "get-many", |sandbox, (collection, keys): (String, Vec<String>)| {
        Ok((private_data::Host::get_many(sandbox, collection, keys)?,))
    })?;
    offer(interface, "validation-parameter", |sandbox, (collection, key): (String, String)| {
        Ok((private_data::Host::validation_parameter(sandbox, collection, key)?,))
    })?;
    offer(
        interface,
        "set-validation-parameter",
        |sandbox, (collection, key, policy): (String, String, Vec<u8>)| {
            Ok((private_data::Host::set_validation_parameter(sandbox, collection, key, policy)?,))
        },
    )?;
    offer(interface, "range", |sandbox, (collection, start, end): (String, String, String)| {
        Ok((private_data::Host::range(sandbox, collection, start, end)?,))
    })?;
    offer(interface, "[method]range-cursor.next", |sandbox, (cursor,): (Resource<PrivateCursor>,)| {
        Ok((private_data::HostRangeCursor::next(sandbox, cursor)?,))
    })?;
    Ok(())
}

fn composite_keys(interface: &mut LinkerInstance<'_, Sandbox>) -> wasmtime::Result<()> {
    offer(interface, "create", |sandbox, (object_type, attributes): (String, Vec<String>)| {
        Ok((composite_keys::Host::create(sandbox, object_type, attributes)?,))
    })?;
    offer(interface, "split", |sandbox, (key,): (String,)| {
        Ok((composite_keys::Host::split(sandbox, key)?,))
    })?;
    offer(interface, "bounds", |sandbox, (object_type, attributes): (String, Vec<String>)| {
        Ok((composite_keys::Host::bounds(sandbox, object_type, attributes)?,))
    })?;
    Ok(())
}
