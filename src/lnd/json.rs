//! lnd's JSON: how single values are written, for the serializers that `proto/build.rs` generates.
//!
//! The rules are protojson's, as lnd's REST gateway uses it: 64-bit integers and bytes are strings, enums go by name
//! (by number where the name is unknown), and a float that is no number is a string.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::ser::{Serialize, Serializer};

/// A 64-bit integer, written as a string.
pub(super) struct Integer<I>(pub I);

impl<I: itoa::Integer + Copy> Serialize for Integer<I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(itoa::Buffer::new().format(self.0))
    }
}

/// Bytes, written as standard base64 with padding.
pub(super) struct Base64<'a>(pub &'a [u8]);

/// Hashes, keys and signatures fit; they are encoded without an allocation.
const SMALL_BYTES: usize = 96;

impl Serialize for Base64<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut buffer = [0; SMALL_BYTES / 3 * 4];
        let small = STANDARD.encode_slice(self.0, &mut buffer).ok().and_then(|len| str::from_utf8(&buffer[..len]).ok());
        match small {
            Some(text) => serializer.serialize_str(text),
            None => serializer.serialize_str(&STANDARD.encode(self.0)),
        }
    }
}

/// An enum's number, written as the name the function gives it.
pub(super) struct Enum(pub i32, pub fn(i32) -> Option<&'static str>);

impl Serialize for Enum {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self.1)(self.0) {
            Some(name) => serializer.serialize_str(name),
            None => serializer.serialize_i32(self.0),
        }
    }
}

/// A double. Whole numbers are written without a fraction, as Go writes them.
pub(super) struct Double(pub f64);

impl Serialize for Double {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        /// Up to here every whole f64 is exact as an i64.
        const WHOLE: f64 = 9_007_199_254_740_992.0;
        match self.0 {
            value if value.is_nan() => serializer.serialize_str("NaN"),
            f64::INFINITY => serializer.serialize_str("Infinity"),
            f64::NEG_INFINITY => serializer.serialize_str("-Infinity"),
            #[expect(clippy::cast_possible_truncation, reason = "whole and small enough")]
            value if value.fract() == 0.0 && value.abs() < WHOLE => serializer.serialize_i64(value as i64),
            value => serializer.serialize_f64(value),
        }
    }
}

/// A list whose elements are not in serde's own form.
pub(super) struct List<'a, T, W>(pub &'a [T], pub fn(&'a T) -> W);

impl<T, W: Serialize> Serialize for List<'_, T, W> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(self.1))
    }
}

/// A map. Its keys are written as strings whatever they are, in their own order.
pub(super) struct Map<'a, K, V, W>(pub &'a BTreeMap<K, V>, pub fn(&'a V) -> W);

impl<K: Serialize, V, W: Serialize> Serialize for Map<'_, K, V, W> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, (self.1)(value))))
    }
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
