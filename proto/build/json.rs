//! Writes `serde::Serialize` for messages so that the JSON is what lnd's REST gateway answers.
//!
//! The gateway is grpc-gateway with `UseProtoNames` and `EmitUnpopulated`: proto field names in the order of
//! declaration, 64-bit integers as strings, bytes as base64, enums by name, every list and map, `null` for an unset
//! message; members of a oneof and `optional` fields only when they are set. The values are written by the wrappers in
//! `src/lnd/json.rs`, which the code made here calls `json`.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};

use crate::names::{field_name, type_name};

/// Code for each package, by its name. Messages named in `secret` get no serializer.
pub fn generate(set: &FileDescriptorSet, secret: &[&str]) -> BTreeMap<String, String> {
    let maps = map_entries(set);
    let mut packages = BTreeMap::<String, String>::new();
    for file in &set.file {
        let package = file.package();
        let mut writer = Writer { package, secret, maps: &maps, code: String::new() };
        for message in &file.message_type {
            writer.message(&[], message);
        }
        for values in &file.enum_type {
            writer.enumeration(&[], values);
        }
        packages.entry(package.to_owned()).or_default().push_str(&writer.code);
    }
    packages
}

/// The synthetic messages behind map fields, by full name (".pkg.Message.FieldEntry").
fn map_entries(set: &FileDescriptorSet) -> HashMap<String, &DescriptorProto> {
    fn collect<'a>(prefix: &str, message: &'a DescriptorProto, into: &mut HashMap<String, &'a DescriptorProto>) {
        let name = format!("{prefix}.{}", message.name());
        for nested in &message.nested_type {
            collect(&name, nested, into);
        }
        if is_map_entry(message) {
            into.insert(name, message);
        }
    }
    let mut into = HashMap::new();
    for file in &set.file {
        for message in &file.message_type {
            collect(&format!(".{}", file.package()), message, &mut into);
        }
    }
    into
}

fn is_map_entry(message: &DescriptorProto) -> bool {
    message.options.as_ref().is_some_and(|options| options.map_entry())
}

struct Writer<'a> {
    package: &'a str,
    secret: &'a [&'a str],
    maps: &'a HashMap<String, &'a DescriptorProto>,
    code: String,
}

impl Writer<'_> {
    fn message(&mut self, parents: &[&str], message: &DescriptorProto) {
        if is_map_entry(message) {
            return;
        }
        let path = [parents, &[message.name()]].concat();
        for nested in &message.nested_type {
            self.message(&path, nested);
        }
        for values in &message.enum_type {
            self.enumeration(&path, values);
        }
        if self.secret.contains(&format!("{}.{}", self.package, path.join(".")).as_str()) {
            return;
        }
        let rust = rust_path(&path);
        let fields: String =
            message.field.iter().map(|field| self.field(&rust_module(&path), message, field)).collect();
        // No write!: a String takes everything.
        self.code.push_str(&format!(
            "impl ::serde::Serialize for {rust} {{\n\
             fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {{\n\
             use ::serde::ser::SerializeStruct as _;\n\
             let {mutable}out = serializer.serialize_struct(\"{rust}\", {count})?;\n\
             {fields}out.end()\n}}\n}}\n",
            mutable = if message.field.is_empty() { "" } else { "mut " },
            count = message.field.len(),
        ));
    }

    /// One field's part of `serialize`.
    fn field(&self, module: &str, message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
        let name = field.name();
        let rust = field_name(name);
        if let Some(entry) = self.maps.get(field.type_name()) {
            let value = self.dressed(&entry.field[1]).unwrap_or_else(|| "value".to_owned());
            return put(name, &format!("json::Map(&self.{rust}, |value| {value})"));
        }
        if field.label() == Label::Repeated {
            return match self.dressed(field) {
                Some(value) => put(name, &format!("json::List(&self.{rust}, |value| {value})")),
                None => put(name, &format!("self.{rust}")),
            };
        }
        let value = self.dressed(field).unwrap_or_else(|| "value".to_owned());
        if field.proto3_optional() {
            return format!("if let Some(value) = &self.{rust} {{ {} }}\n", put(name, &value));
        }
        if let Some(index) = field.oneof_index {
            let oneof = message.oneof_decl[index as usize].name();
            return format!(
                "if let Some({module}{}::{}(value)) = &self.{} {{ {} }}\n",
                type_name(oneof),
                type_name(name),
                field_name(oneof),
                put(name, &value),
            );
        }
        format!("{{ let value = &self.{rust}; {} }}\n", put(name, &value))
    }

    /// `value`, a reference to this field's type, dressed for JSON; none where serde's own form is right.
    fn dressed(&self, field: &FieldDescriptorProto) -> Option<String> {
        let dressed = match field.r#type() {
            Type::Int64 | Type::Sint64 | Type::Sfixed64 | Type::Uint64 | Type::Fixed64 => {
                "json::Integer(*value)".to_owned()
            }
            Type::Double => "json::Double(*value)".to_owned(),
            Type::Float => {
                panic!("no message here has a float yet: give lnd/json.rs a wrapper for it")
            }
            Type::Bytes => "json::Base64(value)".to_owned(),
            Type::Enum => format!("json::Enum(*value, {})", self.enum_function(field.type_name())),
            Type::Message | Type::Group => return None,
            Type::Bool | Type::String | Type::Int32 | Type::Sint32 | Type::Sfixed32 | Type::Uint32 | Type::Fixed32 => {
                return None;
            }
        };
        Some(dressed)
    }

    /// The function that knows an enum's names: it lies in the module of the enum's package.
    fn enum_function(&self, full_name: &str) -> String {
        let local = full_name.strip_prefix(&format!(".{}.", self.package));
        match local {
            Some(local) => enum_function_name(&local.split('.').collect::<Vec<_>>()),
            None => {
                let mut parts = full_name.trim_start_matches('.').split('.');
                let package = parts.next().unwrap_or_default();
                format!("super::{package}::{}", enum_function_name(&parts.collect::<Vec<_>>()))
            }
        }
    }

    /// Names by number; where two names share a number, the first declared, as lnd does it.
    fn enumeration(&mut self, parents: &[&str], values: &EnumDescriptorProto) {
        let path = [parents, &[values.name()]].concat();
        let mut seen = Vec::new();
        let mut arms = String::new();
        for value in &values.value {
            if !seen.contains(&value.number()) {
                seen.push(value.number());
                let _ = write!(arms, "{} => \"{}\", ", value.number(), value.name());
            }
        }
        self.code.push_str(&format!(
            "pub(super) fn {}(number: i32) -> Option<&'static str> {{ Some(match number {{ {arms} _ => return None }}) }}\n",
            enum_function_name(&path),
        ));
    }
}

fn put(name: &str, value: &str) -> String {
    format!("out.serialize_field(\"{name}\", &{value})?;\n")
}

fn enum_function_name(path: &[&str]) -> String {
    format!("name_of_{}", path.iter().map(|part| field_name(part).replace("r#", "")).collect::<Vec<_>>().join("_"))
}

/// Where prost puts what is nested in the message at `path`: "outer::inner::".
fn rust_module(path: &[&str]) -> String {
    path.iter().map(|part| format!("{}::", field_name(part))).collect()
}

fn rust_path(path: &[&str]) -> String {
    match path.split_last() {
        Some((last, parents)) => format!("{}{}", rust_module(parents), type_name(last)),
        None => String::new(),
    }
}
