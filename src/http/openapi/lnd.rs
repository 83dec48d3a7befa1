//! Schemas of lnd's messages, from the descriptors that the wire types are compiled from: what they say is what
//! `lnd/json.rs` writes. 64-bit integers are strings, bytes base64, enums names, unset messages null.

use super::schemas::key;
use crate::lnd::proto::DESCRIPTOR_SET;
use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The schemas of these messages and of all that they hold, by name.
pub(super) fn schemas(messages: &BTreeSet<&str>) -> Map<String, Value> {
    // The bytes are made by the same build.
    let set = FileDescriptorSet::decode(DESCRIPTOR_SET).unwrap_or_default();
    let known = Known::read(&set);
    let mut schemas = Map::new();
    let mut todo: Vec<String> = messages.iter().map(|name| format!(".{name}")).collect();
    while let Some(name) = todo.pop() {
        if schemas.contains_key(&key(&name)) {
            continue;
        }
        if let Some(message) = known.messages.get(&name) {
            schemas.insert(key(&name), known.message(message, &mut todo));
        } else if let Some(values) = known.enums.get(&name) {
            schemas.insert(key(&name), enumeration(values));
        }
    }
    schemas
}

/// Everything in the set, by full name with a leading dot.
#[derive(Default)]
struct Known<'a> {
    messages: BTreeMap<String, &'a DescriptorProto>,
    enums: BTreeMap<String, &'a EnumDescriptorProto>,
}

impl<'a> Known<'a> {
    fn read(set: &'a FileDescriptorSet) -> Self {
        let mut known = Self::default();
        for file in &set.file {
            let package = format!(".{}", file.package());
            known.add_enums(&package, &file.enum_type);
            for message in &file.message_type {
                known.add(&package, message);
            }
        }
        known
    }

    fn add(&mut self, prefix: &str, message: &'a DescriptorProto) {
        let name = format!("{prefix}.{}", message.name());
        self.add_enums(&name, &message.enum_type);
        for nested in &message.nested_type {
            self.add(&name, nested);
        }
        self.messages.insert(name, message);
    }

    fn add_enums(&mut self, prefix: &str, enums: &'a [EnumDescriptorProto]) {
        self.enums.extend(enums.iter().map(|values| (format!("{prefix}.{}", values.name()), values)));
    }

    fn message(&self, message: &DescriptorProto, todo: &mut Vec<String>) -> Value {
        let mut properties = Map::new();
        let mut required = Vec::new();
        for field in &message.field {
            properties.insert(field.name().to_owned(), self.field(field, todo));
            // Members of a oneof and `optional` fields are left out unless they are set.
            if field.oneof_index.is_none() {
                required.push(field.name());
            }
        }
        let mut schema = json!({"type": "object", "properties": properties});
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        schema
    }

    fn field(&self, field: &FieldDescriptorProto, todo: &mut Vec<String>) -> Value {
        if let Some(entry) = self.map_entry(field) {
            let value = entry.field.iter().find(|part| part.name() == "value");
            let values = value.map_or(Value::Bool(true), |value| single(value, todo));
            return json!({"type": "object", "additionalProperties": values});
        }
        if field.label() == Label::Repeated {
            return json!({"type": "array", "items": single(field, todo)});
        }
        let schema = single(field, todo);
        let is_message = field.r#type() == Type::Message;
        if is_message && field.oneof_index.is_none() { json!({"anyOf": [schema, {"type": "null"}]}) } else { schema }
    }

    fn map_entry(&self, field: &FieldDescriptorProto) -> Option<&'a DescriptorProto> {
        let entry = self.messages.get(field.type_name())?;
        entry.options.as_ref().is_some_and(|options| options.map_entry()).then_some(*entry)
    }
}

fn single(field: &FieldDescriptorProto, todo: &mut Vec<String>) -> Value {
    match field.r#type() {
        Type::Bool => json!({"type": "boolean"}),
        Type::String => json!({"type": "string"}),
        Type::Bytes => json!({"type": "string", "contentEncoding": "base64"}),
        Type::Double | Type::Float => json!({"type": "number"}),
        Type::Int64 | Type::Sint64 | Type::Sfixed64 => json!({"type": "string", "pattern": "^-?[0-9]+$"}),
        Type::Uint64 | Type::Fixed64 => json!({"type": "string", "pattern": "^[0-9]+$"}),
        Type::Int32 | Type::Sint32 | Type::Sfixed32 => json!({"type": "integer", "format": "int32"}),
        Type::Uint32 | Type::Fixed32 => json!({"type": "integer", "minimum": 0, "maximum": u32::MAX}),
        Type::Message | Type::Group | Type::Enum => {
            todo.push(field.type_name().to_owned());
            json!({"$ref": format!("#/components/schemas/{}", key(field.type_name()))})
        }
    }
}

/// A newer lnd may send a value that has no name here; it is then shown as its number.
fn enumeration(values: &EnumDescriptorProto) -> Value {
    let names: Vec<&str> = values.value.iter().map(|value| value.name()).collect();
    json!({"anyOf": [{"type": "string", "enum": names}, {"type": "integer"}]})
}
