//! How a document of ours looks in Firestore: its body's fields by their own names and types, so that people can read them
//! in the console, and beside them fields of the Store's own, whose names begin with `_`:
//!
//! - `_index`: the index entries as `name=value`, and `*`, which every document has: listings ask for one of these.
//! - `_changed`: when the server was asked for the last write; what the feed follows.
//! - `_write`: a random number for each commit. Firestore leaves the version of a document alone when a write changes
//!   nothing of it; the contract wants a new one.
//!
//! What Firestore cannot hold as it is (a list in a list, a number over 2^63, a deep nest, a strange name) is kept as JSON
//! text: `{"_json": "…"}`.

use crate::error::StoreError;
use crate::store::{Document, IndexEntry, Key, Result, Version};
use firestore::gcloud_sdk::google::firestore::v1 as proto;
use firestore::gcloud_sdk::prost_types::Timestamp;
use proto::value::ValueType;
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};

/// The field of index entries.
pub(super) const INDEX: &str = "_index";
/// The field of the server's time of the last write.
pub(super) const CHANGED: &str = "_changed";
const WRITE: &str = "_write";
const JSON: &str = "_json";

/// The index entry of every document.
pub(super) const ALL: &str = "*";

/// Firestore takes 20 levels of lists and maps; the wrapping needs one, the top level another.
const DEEPEST: usize = 16;
/// Firestore's bound for a name of a field.
const LONGEST_NAME: usize = 1500;
/// Firestore cuts indexed text off after 1,500 bytes, names included: longer ones would be found as one another.
const LONGEST_ENTRY: usize = 1400;

/// The fields of a document with this body. `CHANGED` is added by the write.
pub(super) fn fields(
    collection: &'static str,
    body: &Value,
    index: &[IndexEntry],
    nonce: i64,
) -> Result<HashMap<String, proto::Value>> {
    let object = body.as_object().ok_or(StoreError::Invalid { collection, reason: "a body is a JSON object" })?;
    let mut fields = match plain_map(object, 0) {
        Some(map) => map.fields,
        None => HashMap::from([(JSON.to_owned(), string(body.to_string()))]),
    };
    let entries: BTreeSet<String> = index.iter().map(entry).collect();
    if entries.iter().any(|entry| entry.len() > LONGEST_ENTRY) {
        return Err(StoreError::Invalid { collection, reason: "an index value has at most 1,400 bytes" });
    }
    let entries = std::iter::once(ALL.to_owned()).chain(entries).map(string).collect();
    fields.insert(INDEX.to_owned(), array(entries));
    fields.insert(WRITE.to_owned(), integer(nonce));
    Ok(fields)
}

/// An index entry as it is kept and asked for.
pub(super) fn entry(entry: &IndexEntry) -> String {
    format!("{}={}", entry.name, entry.value)
}

/// Reads a document.
pub(super) fn document(key: Key, document: proto::Document) -> Result<Document> {
    let corrupt = |key: Key, reason: &str| StoreError::Corrupt {
        collection: key.collection,
        id: key.id,
        reason: reason.to_owned(),
    };
    let Some(version) = document.update_time.as_ref().and_then(version) else {
        return Err(corrupt(key, "it has no version"));
    };
    let mut fields = document.fields;
    let body = match fields.remove(JSON).and_then(|value| value.value_type) {
        Some(ValueType::StringValue(text)) => serde_json::from_str(&text).ok(),
        Some(_) => None,
        None => {
            fields.retain(|name, _| !name.starts_with('_'));
            map(fields)
        }
    };
    match body {
        Some(body) => Ok(Document { key, version, body }),
        None => Err(corrupt(key, "a field has a type that scale-lnd does not write")),
    }
}

/// Firestore's times have microseconds: as such they are versions. `None` for anything finer, which could not be sent back.
pub(super) fn version(time: &Timestamp) -> Option<Version> {
    let seconds = u64::try_from(time.seconds).ok()?;
    let nanos = u64::try_from(time.nanos).ok()?;
    if !nanos.is_multiple_of(1000) {
        return None;
    }
    Some(Version(seconds.checked_mul(1_000_000)?.checked_add(nanos / 1000)?))
}

/// The time that a version is. `None` for one that Firestore cannot have given.
pub(super) fn timestamp(version: Version) -> Option<Timestamp> {
    /// The last second of the year 9999, where Firestore's times end.
    const LAST: i64 = 253_402_300_799;
    let seconds = i64::try_from(version.0 / 1_000_000).ok().filter(|seconds| *seconds <= LAST)?;
    let nanos = i32::try_from(version.0 % 1_000_000 * 1000).ok()?;
    Some(Timestamp { seconds, nanos })
}

pub(super) fn string(text: impl Into<String>) -> proto::Value {
    value(ValueType::StringValue(text.into()))
}

pub(super) fn integer(number: i64) -> proto::Value {
    value(ValueType::IntegerValue(number))
}

pub(super) fn time(at: Timestamp) -> proto::Value {
    value(ValueType::TimestampValue(at))
}

fn array(values: Vec<proto::Value>) -> proto::Value {
    value(ValueType::ArrayValue(proto::ArrayValue { values }))
}

fn value(value: ValueType) -> proto::Value {
    proto::Value { value_type: Some(value) }
}

fn encode(json: &Value, depth: usize) -> proto::Value {
    let plain = match json {
        Value::Null => Some(ValueType::NullValue(0)),
        Value::Bool(truth) => Some(ValueType::BooleanValue(*truth)),
        Value::String(text) => Some(ValueType::StringValue(text.clone())),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => Some(ValueType::IntegerValue(integer)),
            // A whole number over 2^63 is one that a double would round.
            None => number.as_f64().filter(|_| number.is_f64()).map(ValueType::DoubleValue),
        },
        Value::Array(list) if depth < DEEPEST && !list.iter().any(Value::is_array) => {
            let values = list.iter().map(|item| encode(item, depth + 1)).collect();
            Some(ValueType::ArrayValue(proto::ArrayValue { values }))
        }
        Value::Array(_) => None,
        Value::Object(object) => plain_map(object, depth).map(ValueType::MapValue),
    };
    let wrapped = || {
        let fields = HashMap::from([(JSON.to_owned(), string(json.to_string()))]);
        ValueType::MapValue(proto::MapValue { fields })
    };
    value(plain.unwrap_or_else(wrapped))
}

/// The object as a map, if Firestore can hold it. Names that begin with `_` are the Store's.
fn plain_map(object: &serde_json::Map<String, Value>, depth: usize) -> Option<proto::MapValue> {
    let strange = |name: &String| name.is_empty() || name.starts_with('_') || name.len() > LONGEST_NAME;
    if depth >= DEEPEST || object.keys().any(strange) {
        return None;
    }
    let fields = object.iter().map(|(name, value)| (name.clone(), encode(value, depth + 1))).collect();
    Some(proto::MapValue { fields })
}

fn map(fields: HashMap<String, proto::Value>) -> Option<Value> {
    fields.into_iter().map(|(name, value)| Some((name, decode(value)?))).collect::<Option<_>>().map(Value::Object)
}

fn decode(value: proto::Value) -> Option<Value> {
    match value.value_type? {
        ValueType::NullValue(_) => Some(Value::Null),
        ValueType::BooleanValue(truth) => Some(truth.into()),
        ValueType::IntegerValue(number) => Some(number.into()),
        ValueType::DoubleValue(number) => serde_json::Number::from_f64(number).map(Value::Number),
        ValueType::StringValue(text) => Some(text.into()),
        ValueType::ArrayValue(list) => list.values.into_iter().map(decode).collect::<Option<_>>().map(Value::Array),
        ValueType::MapValue(mut map_value) => match map_value.fields.remove(JSON).map(|json| json.value_type) {
            None => map(map_value.fields),
            Some(Some(ValueType::StringValue(text))) => serde_json::from_str(&text).ok(),
            Some(_) => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const KEY: &str = "things";

    fn there_and_back(body: &Value) -> Value {
        let fields = fields(KEY, body, &[], 7).unwrap();
        let update_time = timestamp(Version(1_700_000_000_123_456));
        let found = proto::Document { fields, update_time, ..Default::default() };
        let read = document(Key { collection: KEY, id: "a".to_owned() }, found).unwrap();
        assert_eq!(read.version, Version(1_700_000_000_123_456));
        read.body
    }

    #[test]
    fn what_firestore_cannot_hold_comes_back_all_the_same() {
        let mut deep = json!(1);
        for _ in 0..40 {
            deep = json!({"a": [deep]});
        }
        let bodies = [
            json!({}),
            json!({"list": [[1, [2]], [], {"a": [[]]}]}),
            json!({"big": u64::MAX, "edge": 1_u64 << 63, "small": i64::MIN, "float": 1.0, "tiny": 5e-324}),
            json!({"deep": deep}),
            json!({"map": {"": 1}}),
            json!({"map": {"__name__": 1, "_json": "{}", "_index": 2}}),
            json!({"_index": [1], "_json": 3, "n": null}),
            json!({"map": {"x".repeat(2000): true}}),
        ];
        for body in bodies {
            assert_eq!(there_and_back(&body), body);
        }
    }

    #[test]
    fn fields_keep_their_names_and_types() {
        let body = json!({"n": 1, "text": "a", "list": ["x"], "map": {"truth": true}});
        let index = [IndexEntry { name: "state", value: "running".to_owned() }];
        let fields = fields(KEY, &body, &index, 7).unwrap();
        let mut names: Vec<_> = fields.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["_index", "_write", "list", "map", "n", "text"]);
        assert_eq!(fields["n"], integer(1));
        assert_eq!(fields["text"], string("a"));
        assert_eq!(fields[INDEX], array(vec![string("*"), string("state=running")]));
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        let long = [IndexEntry { name: "state", value: "x".repeat(1500) }];
        for refused in [fields(KEY, &json!([1]), &[], 7), fields(KEY, &json!({}), &long, 7)] {
            assert!(matches!(refused, Err(StoreError::Invalid { .. })));
        }
    }

    #[test]
    fn a_field_of_another_hand_is_corrupt_and_not_quoted() {
        let secret = value(ValueType::BytesValue(b"hunter2".to_vec()));
        let not_json = string("{\"hunter2");
        for (name, value) in [("blob", secret), (JSON, not_json)] {
            let fields = HashMap::from([(name.to_owned(), value)]);
            let update_time = timestamp(Version(1));
            let found = proto::Document { fields, update_time, ..Default::default() };
            let error = document(Key { collection: KEY, id: "a".to_owned() }, found).unwrap_err();
            assert!(matches!(&error, StoreError::Corrupt { collection: KEY, id, .. } if id == "a"));
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
    }

    #[test]
    fn versions_are_exact() {
        for version_ in [1, 999_999, 1_000_000, 1_795_434_863_995_452] {
            assert_eq!(timestamp(Version(version_)).as_ref().and_then(version), Some(Version(version_)));
        }
        assert_eq!(timestamp(Version(u64::MAX)), None);
        assert_eq!(version(&Timestamp { seconds: 1, nanos: 1 }), None);
        assert_eq!(version(&Timestamp { seconds: -1, nanos: 0 }), None);
    }
}
