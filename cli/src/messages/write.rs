//! From messages to JSON.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, ReflectMessage, Value as Field};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Broken, DEPTH_MAX, descriptor, opaque};

/// Numbers of the fields that Consort adds to Fabric's messages begin here.
const OWN_FIELDS: u32 = 1_000;

/// Shows messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Writer {
    pub(super) broken: Broken,
}

impl Writer {
    /// Shows a message; `key` is its name when it is a configuration value.
    pub(super) fn message(self, message: &DynamicMessage, key: &str, depth: usize) -> anyhow::Result<Value> {
        ensure!(depth < DEPTH_MAX, "messages are nested deeper than {DEPTH_MAX} levels");
        if message.descriptor().full_name() == "google.protobuf.Timestamp" {
            return timestamp(message);
        }
        let mut shown = BTreeMap::new();
        for field in message.descriptor().fields() {
            if field.containing_oneof().is_some() && !message.has_field(&field) {
                continue;
            }
            // Fabric's tools do not know what is ours, so it shows only where it is used.
            if field.number() >= OWN_FIELDS && !message.has_field(&field) {
                continue;
            }
            let value = message.get_field(&field);
            let absent = matches!(field.kind(), Kind::Message(_))
                && !field.is_list()
                && !field.is_map()
                && !message.has_field(&field);
            let content = opaque::content(message, field.name(), key);
            let json = if absent { Value::Null } else { self.field(&field, &value, content, depth)? };
            shown.insert(field.name().to_owned(), json);
        }
        Ok(Value::Object(shown.into_iter().collect::<Map<_, _>>()))
    }

    fn field(
        self,
        field: &FieldDescriptor,
        value: &Field,
        content: Option<&str>,
        depth: usize,
    ) -> anyhow::Result<Value> {
        match value {
            Field::List(values) => values
                .iter()
                .map(|value| match value {
                    Field::Bytes(bytes) if bytes.is_empty() => Ok(Value::from("")),
                    value => self.single(&field.kind(), value, content, "", depth),
                })
                .collect::<anyhow::Result<Vec<_>>>()
                .map(Value::Array),
            Field::Map(entries) => {
                let Kind::Message(entry) = field.kind() else { return Ok(Value::Null) };
                let kind = entry.map_entry_value_field().kind();
                let shown = entries.iter().map(|(key, value)| {
                    let key = map_key(key);
                    let json = self.single(&kind, value, content, &key, depth)?;
                    Ok((key, json))
                });
                let shown = shown.collect::<anyhow::Result<BTreeMap<_, _>>>()?;
                Ok(Value::Object(shown.into_iter().collect()))
            }
            single => self.single(&field.kind(), single, content, "", depth),
        }
    }

    fn single(
        self,
        kind: &Kind,
        value: &Field,
        content: Option<&str>,
        key: &str,
        depth: usize,
    ) -> anyhow::Result<Value> {
        Ok(match value {
            Field::Bool(value) => Value::Bool(*value),
            Field::I32(value) => Value::from(*value),
            Field::U32(value) => Value::from(*value),
            Field::I64(value) => Value::from(value.to_string()),
            Field::U64(value) => Value::from(value.to_string()),
            Field::F32(value) => Value::from(*value),
            Field::F64(value) => Value::from(*value),
            Field::String(value) => Value::from(value.as_str()),
            Field::Bytes(bytes) => self.bytes(bytes, content, depth)?,
            Field::EnumNumber(number) => match kind {
                Kind::Enum(names) => names
                    .get_value(*number)
                    .map_or_else(|| Value::from(*number), |value| Value::from(value.name())),
                _ => Value::from(*number),
            },
            Field::Message(message) => self.message(message, key, depth + 1)?,
            Field::List(_) | Field::Map(_) => Value::Null,
        })
    }

    fn bytes(self, bytes: &[u8], content: Option<&str>, depth: usize) -> anyhow::Result<Value> {
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        let Some(content) = content else { return Ok(Value::from(STANDARD.encode(bytes))) };
        let inside = DynamicMessage::decode(descriptor(content)?, bytes)
            .with_context(|| format!("bytes that should hold a {content} hold none"))
            .and_then(|message| self.message(&message, "", depth + 1));
        match inside {
            Err(_) if self.broken == Broken::Show => Ok(Value::from(STANDARD.encode(bytes))),
            inside => inside,
        }
    }
}

fn map_key(key: &prost_reflect::MapKey) -> String {
    match key {
        prost_reflect::MapKey::Bool(key) => key.to_string(),
        prost_reflect::MapKey::I32(key) => key.to_string(),
        prost_reflect::MapKey::I64(key) => key.to_string(),
        prost_reflect::MapKey::U32(key) => key.to_string(),
        prost_reflect::MapKey::U64(key) => key.to_string(),
        prost_reflect::MapKey::String(key) => key.clone(),
    }
}

/// A time as protobuf's JSON mapping writes it.
fn timestamp(message: &DynamicMessage) -> anyhow::Result<Value> {
    let part = |name| message.get_field_by_name(name).map(std::borrow::Cow::into_owned);
    let seconds = part("seconds").and_then(|value| value.as_i64()).unwrap_or_default();
    let nanos = part("nanos").and_then(|value| value.as_i32()).unwrap_or_default();
    let time = OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|time| time.checked_add(time::Duration::nanoseconds(nanos.into())))
        .with_context(|| format!("{seconds} s is no time"))?;
    Ok(Value::from(time.format(&Rfc3339)?))
}
