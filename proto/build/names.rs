//! The Rust names that prost gives to what a .proto file names; the same rules as prost-build's `ident`.

use heck::{ToSnakeCase, ToUpperCamelCase};

/// Words that prost writes as raw identifiers (those that lnd's fields could meet).
const KEYWORDS: &[&str] = &["abstract", "async", "final", "loop", "match", "move", "ref", "type", "use", "where"];

/// A field or module: `snake_case`, raw where it is a keyword.
pub fn field_name(proto: &str) -> String {
    let snake = proto.to_snake_case();
    if KEYWORDS.contains(&snake.as_str()) { format!("r#{snake}") } else { snake }
}

/// A message, an enum or a oneof's variant: `UpperCamelCase`.
pub fn type_name(proto: &str) -> String {
    proto.to_upper_camel_case()
}
