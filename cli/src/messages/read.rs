//! From JSON to messages.

use std::collections::HashMap;

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value as Field};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{DEPTH_MAX, descriptor, opaque};

/// Reads a message; `key` is its name when it is a configuration value, `place` leads errors to it.
pub(super) fn message(
    descriptor: &MessageDescriptor,
    json: &Value,
    key: &str,
    place: &str,
    depth: usize,
) -> anyhow::Result<DynamicMessage> {
    ensure!(depth < DEPTH_MAX, "{place}: messages are nested deeper than {DEPTH_MAX} levels");
    if descriptor.full_name() == "google.protobuf.Timestamp" {
        return timestamp(descriptor, json, place);
    }
    let Some(object) = json.as_object() else { return Err(unexpected(place, "an object", json)) };
    let mut message = DynamicMessage::new(descriptor.clone());
    let mut opaque_fields = Vec::new();
    for (name, json) in object {
        let Some(field) =
            descriptor.get_field_by_name(name).or_else(|| descriptor.get_field_by_json_name(name))
        else {
            bail!("{} has no field {name}", if place.is_empty() { descriptor.full_name() } else { place });
        };
        if json.is_null() {
            continue;
        }
        // What bytes hold may depend on the other fields, so bytes come last.
        if matches!(field.kind(), Kind::Bytes) {
            opaque_fields.push((field, json));
        } else {
            let value = value(&field, json, None, &format!("{place}.{name}"), depth)?;
            message.set_field(&field, value);
        }
    }
    for (field, json) in opaque_fields {
        let content = opaque::content(&message, field.name(), key);
        let value = value(&field, json, content, &format!("{place}.{}", field.name()), depth)?;
        message.set_field(&field, value);
    }
    Ok(message)
}

fn value(
    field: &FieldDescriptor,
    json: &Value,
    content: Option<&str>,
    place: &str,
    depth: usize,
) -> anyhow::Result<Field> {
    if field.is_map() {
        let Kind::Message(entry) = field.kind() else { bail!("{place}: not a map") };
        let (keys, values) = (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
        let Some(object) = json.as_object() else { return Err(unexpected(place, "an object", json)) };
        let entries = object.iter().map(|(key, json)| {
            let place = format!("{place}[{key:?}]");
            Ok((map_key(&keys, key, &place)?, single(&values, json, content, key, &place, depth)?))
        });
        return Ok(Field::Map(entries.collect::<anyhow::Result<HashMap<_, _>>>()?));
    }
    if field.is_list() {
        let Some(items) = json.as_array() else { return Err(unexpected(place, "a list", json)) };
        let items = items.iter().enumerate().map(|(index, json)| {
            single(&field.kind(), json, content, "", &format!("{place}[{index}]"), depth)
        });
        return Ok(Field::List(items.collect::<anyhow::Result<_>>()?));
    }
    single(&field.kind(), json, content, "", place, depth)
}

fn single(
    kind: &Kind,
    json: &Value,
    content: Option<&str>,
    key: &str,
    place: &str,
    depth: usize,
) -> anyhow::Result<Field> {
    Ok(match kind {
        Kind::Bool => Field::Bool(json.as_bool().ok_or_else(|| unexpected(place, "true or false", json))?),
        Kind::String => Field::String(text(json, place)?.to_owned()),
        Kind::Bytes => Field::Bytes(bytes(json, content, place, depth)?.into()),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Field::I32(number(json, place)?),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Field::I64(number(json, place)?),
        Kind::Uint32 | Kind::Fixed32 => Field::U32(number(json, place)?),
        Kind::Uint64 | Kind::Fixed64 => Field::U64(number(json, place)?),
        Kind::Float => Field::F32(number(json, place)?),
        Kind::Double => Field::F64(number(json, place)?),
        Kind::Enum(names) => match json.as_str() {
            Some(name) => {
                let found = names.get_value_by_name(name);
                Field::EnumNumber(found.map(|value| value.number()).ok_or_else(|| {
                    let known: Vec<String> = names.values().map(|value| value.name().to_owned()).collect();
                    unexpected(place, &format!("one of {}", known.join(", ")), json)
                })?)
            }
            None => Field::EnumNumber(number(json, place)?),
        },
        Kind::Message(descriptor) => Field::Message(message(descriptor, json, key, place, depth + 1)?),
    })
}

fn bytes(json: &Value, content: Option<&str>, place: &str, depth: usize) -> anyhow::Result<Vec<u8>> {
    match (json, content) {
        (Value::Null, _) => Ok(Vec::new()),
        (Value::String(text), _) => STANDARD.decode(text).map_err(|_| unexpected(place, "Base64", json)),
        (json, Some(content)) => {
            Ok(message(&descriptor(content)?, json, "", place, depth + 1)?.encode_to_vec())
        }
        (json, None) => Err(unexpected(place, "Base64", json)),
    }
}

fn text<'a>(json: &'a Value, place: &str) -> anyhow::Result<&'a str> {
    json.as_str().ok_or_else(|| unexpected(place, "a text", json))
}

/// A number, or a text that is one: 64-bit numbers are written so.
fn number<N: std::str::FromStr>(json: &Value, place: &str) -> anyhow::Result<N> {
    let text = match json {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    };
    text.parse().map_err(|_| unexpected(place, "a whole number", json))
}

fn map_key(kind: &Kind, key: &str, place: &str) -> anyhow::Result<MapKey> {
    let wrong = || format!("{place}: the key does not fit");
    Ok(match kind {
        Kind::String => MapKey::String(key.to_owned()),
        Kind::Bool => MapKey::Bool(key.parse().with_context(wrong)?),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => MapKey::I32(key.parse().with_context(wrong)?),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => MapKey::I64(key.parse().with_context(wrong)?),
        Kind::Uint32 | Kind::Fixed32 => MapKey::U32(key.parse().with_context(wrong)?),
        _ => MapKey::U64(key.parse().with_context(wrong)?),
    })
}

fn timestamp(descriptor: &MessageDescriptor, json: &Value, place: &str) -> anyhow::Result<DynamicMessage> {
    let time = OffsetDateTime::parse(text(json, place)?, &Rfc3339)
        .map_err(|_| unexpected(place, "a time such as 2026-01-31T12:00:00Z", json))?;
    let mut message = DynamicMessage::new(descriptor.clone());
    message.set_field_by_name("seconds", Field::I64(time.unix_timestamp()));
    message.set_field_by_name("nanos", Field::I32(i32::try_from(time.nanosecond()).unwrap_or_default()));
    Ok(message)
}

fn unexpected(place: &str, expected: &str, json: &Value) -> anyhow::Error {
    let shown: String = json.to_string().chars().take(60).collect();
    anyhow::anyhow!("{place}: expected {expected}, found {shown}")
}
