//! Executions in the sandbox of `consort chaincode test`, which has the compiled component.
//!
//! One connection per execution: a line of JSON with everything that the execution can see, and a line of JSON with what came of it. Bytes
//! are texts in which each character is one byte (U+0000 to U+00FF).

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use super::execution::{RangeRead, Record};
use super::{Event, MemoryLedger, Place, Simulated};
use crate::Error;
use crate::chaincode::Kind;

/// Bytes as a text, one character each.
fn text(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// The bytes of such a text.
fn bytes(value: &Value) -> Vec<u8> {
    value
        .as_str()
        .unwrap_or_default()
        .chars()
        .map(|character| u8::try_from(character).unwrap_or(b'?'))
        .collect()
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn place(value: &Value) -> Place {
    (word(&value[0]), word(&value[1]), word(&value[2]))
}

/// Executes a function of the component; `None` if the sandbox lacks a chaincode that may be called, and this process has it.
pub(super) fn execute(
    ledger: &MemoryLedger,
    address: &str,
    tx_id: &str,
    arguments: &[Vec<u8>],
    kind: Kind,
) -> Result<Option<Simulated>, Error> {
    let answer = ask(address, &request(ledger, tx_id, arguments, kind)).map_err(|error| {
        Error::new(format!("the sandbox of `consort chaincode test` at {address} does not answer: {error}"))
    })?;
    if answer["native"] == true {
        return Ok(None);
    }
    let status = u32::try_from(answer["status"].as_u64().unwrap_or(500)).unwrap_or(500);
    if status >= 400 {
        return Err(Error::with_status(status, word(&answer["message"])));
    }
    let mut record = Record::default();
    let entries = |name: &str| answer[name].as_array().cloned().unwrap_or_default();
    for read in entries("reads") {
        let place = place(&read);
        let version = ledger.values.get(&place).map(|versioned| versioned.version);
        record.reads.insert(place, version);
    }
    for range in entries("ranges") {
        let (namespace, start, end) = place(&range);
        let results = super::execution::pairs(&ledger.values, &namespace, "", &start, &end)
            .map(|(key, versioned)| (key.to_owned(), versioned.version))
            .collect();
        record.ranges.push(RangeRead { namespace: namespace.clone(), start, end: end.clone(), results });
    }
    record.writes = entries("writes").iter().map(|write| (place(write), bytes(&write[3]))).collect();
    record.policies = entries("policies").iter().map(|write| (place(write), bytes(&write[3]))).collect();
    let event = answer["event"]
        .as_object()
        .map(|event| Event { name: word(&event["name"]), payload: bytes(&event["payload"]) });
    Ok(Some(Simulated {
        payload: bytes(&answer["payload"]),
        event,
        record,
        tx_id: tx_id.to_owned(),
        timestamp: ledger.timestamp,
    }))
}

fn ask(address: &str, request: &Value) -> std::io::Result<Value> {
    let mut stream = TcpStream::connect(address)?;
    let mut line = request.to_string();
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(serde_json::from_str(&answer)?)
}

fn request(ledger: &MemoryLedger, tx_id: &str, arguments: &[Vec<u8>], kind: Kind) -> Value {
    let (client, held) = (&ledger.client, ledger.held.as_ref());
    let values: Vec<Value> = ledger
        .values
        .iter()
        .map(|((namespace, collection, key), found)| json!([namespace, collection, key, text(&found.value)]))
        .collect();
    let policies: Vec<Value> = ledger
        .policies
        .iter()
        .map(|((namespace, collection, key), policy)| json!([namespace, collection, key, text(policy)]))
        .collect();
    let history: Vec<Value> = ledger
        .history
        .iter()
        .flat_map(|((namespace, collection, key), changes)| {
            changes.iter().map(move |change| {
                json!([
                    namespace,
                    collection,
                    key,
                    text(&change.value),
                    change.tx_id,
                    change.timestamp.seconds,
                    change.timestamp.nanoseconds,
                    change.is_delete
                ])
            })
        })
        .collect();
    let attributes: BTreeMap<&str, &str> =
        client.attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let transient: BTreeMap<&str, String> =
        ledger.transient.iter().map(|(name, value)| (name.as_str(), text(value))).collect();
    json!({
        "chaincode": ledger.chaincode,
        "kind": if kind == Kind::Submit { "submit" } else { "evaluate" },
        "tx_id": tx_id,
        "arguments": arguments.iter().map(|argument| text(argument)).collect::<Vec<_>>(),
        "timestamp": [ledger.timestamp.seconds, ledger.timestamp.nanoseconds],
        "peer_msp_id": ledger.peer_msp_id,
        "proposal": [text(&ledger.proposal.proposal), text(&ledger.proposal.signature)],
        "transient": transient,
        "held": held,
        "callees": ledger.contracts.keys().collect::<Vec<_>>(),
        "client": {
            "msp_id": client.msp_id,
            "certificate": text(&client.certificate),
            "common_name": client.common_name,
            "id": client.id,
            "organizational_units": client.organizational_units,
            "attributes": attributes,
        },
        "values": values,
        "policies": policies,
        "history": history,
    })
}
