//! Macaroons, baked offline from the root key that the wallet was initialised with.
//!
//! Whoever holds the root key needs no lnd to make a macaroon of any width, which is what lets every call carry the
//! narrowest one that does the job (see [`Grant`]) and a lost `InitWallet` answer cost nothing. The format is
//! bakery's: a version 2 binary macaroon whose identifier names the nonce, storage id "0" and the allowed operations.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use prost::Message;
use sha2::Sha256;
use time::{OffsetDateTime, UtcOffset};
use zeroize::Zeroizing;

pub use super::grant::Grant;

/// The version byte of the binary format, and of bakery's identifier within it.
const FORMAT_V2: u8 = 2;
const BAKERY_ID_V3: u8 = 3;
const FIELD_END: u64 = 0;
const FIELD_LOCATION: u64 = 1;
const FIELD_IDENTIFIER: u64 = 2;
const FIELD_VERIFICATION_ID: u64 = 4;
const FIELD_SIGNATURE: u64 = 6;
const SIGNATURE_LEN: usize = 32;
/// What follows the caveats: an end of section, then the signature's tag, length and bytes.
const TRAILER_LEN: usize = 3 + SIGNATURE_LEN;
const LOCATION: &[u8] = b"lnd";
/// The only root key of an lnd that `InitWallet.macaroon_root_key` sets.
const STORAGE_ID: &[u8] = b"0";

/// The key that signs every macaroon of one node. It can do anything to that node.
#[derive(Clone)]
pub struct RootKey(Zeroizing<[u8; 32]>);

impl RootKey {
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// None unless `bytes` are exactly 32.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self::from_bytes)
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RootKey(redacted)")
    }
}

/// One thing a macaroon allows: an action on an entity, or (entity `uri`) one gRPC method.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Op {
    pub entity: String,
    pub action: String,
}

impl Op {
    pub fn new(entity: impl Into<String>, action: impl Into<String>) -> Self {
        Self { entity: entity.into(), action: action.into() }
    }

    /// Allows exactly one method, by its full gRPC path, such as `/lnrpc.Lightning/GetInfo`.
    pub fn uri(method: impl Into<String>) -> Self {
        Self::new("uri", method)
    }
}

/// A condition under which a macaroon is valid; lnd checks all of them at each call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caveat {
    /// Refused at or after this instant by the clock of the lnd's host.
    TimeBefore(OffsetDateTime),
}

impl Caveat {
    fn condition(self) -> String {
        let Self::TimeBefore(at) = self;
        // Only the last hours of the year 9999 have no UTC form; the macaroon is then as good as expired.
        let at = at.checked_to_offset(UtcOffset::UTC).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let (date, time) = (at.date(), at.time());
        let mut text = format!(
            "time-before {:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
            date.year(),
            u8::from(date.month()),
            date.day(),
            time.hour(),
            time.minute(),
            time.second(),
        );
        if time.nanosecond() != 0 {
            text.push_str(&format!(".{:09}", time.nanosecond()));
        }
        text.push('Z');
        text
    }
}

/// A bearer token for one lnd. `Debug` shows nothing of it, and it is wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Macaroon {
    bytes: Zeroizing<Vec<u8>>,
    hex: Zeroizing<String>,
}

impl Macaroon {
    /// Reads a macaroon in the version 2 binary format, which is what lnd writes to its `*.macaroon` files. Its
    /// signature cannot be checked without the root key; only lnd does that.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader(bytes);
        if reader.byte()? != FORMAT_V2 {
            return Err(ParseError::Version);
        }
        reader.section(&[FIELD_IDENTIFIER])?;
        while reader.0.first().is_some_and(|&tag| u64::from(tag) != FIELD_END) {
            reader.section(&[FIELD_IDENTIFIER, FIELD_VERIFICATION_ID])?;
        }
        reader.byte()?;
        let (tag, signature) = reader.field()?;
        if tag != FIELD_SIGNATURE || signature.len() != SIGNATURE_LEN || !reader.0.is_empty() {
            return Err(ParseError::Malformed);
        }
        Ok(Self::from_vec(Zeroizing::new(bytes.to_vec())))
    }

    /// The value of lnd's `macaroon` gRPC metadata, made once.
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// The content of a `*.macaroon` file.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A copy that is valid under one more condition. Needs no root key, so it also narrows an operator's macaroon.
    #[must_use]
    pub fn with_caveat(&self, caveat: Caveat) -> Self {
        let condition = caveat.condition();
        let (body, trailer) = self.bytes.split_at(self.bytes.len() - TRAILER_LEN);
        let signature = hmac(&trailer[3..], condition.as_bytes());
        // Reserved in full, so that no copy of the token is left behind by a reallocation.
        let mut bytes = Zeroizing::new(Vec::with_capacity(self.bytes.len() + condition.len() + 12));
        bytes.extend_from_slice(body);
        put_field(&mut bytes, FIELD_IDENTIFIER, condition.as_bytes());
        put_varint(&mut bytes, FIELD_END);
        put_trailer(&mut bytes, &signature);
        Self::from_vec(bytes)
    }

    fn from_vec(bytes: Zeroizing<Vec<u8>>) -> Self {
        let hex = Zeroizing::new(hex::encode(bytes.as_slice()));
        Self { bytes, hex }
    }
}

impl fmt::Debug for Macaroon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Macaroon(redacted)")
    }
}

/// Makes the macaroon that lnd itself would make from `root` for these operations, in whatever order and however
/// often they are given. The nonce only tells macaroons apart.
pub fn bake(root: &RootKey, nonce: [u8; 16], ops: &[Op], caveats: &[Caveat]) -> Macaroon {
    let mut identifier = vec![BAKERY_ID_V3];
    identifier.extend(MacaroonId::new(nonce, ops).encode_to_vec());
    let key = Zeroizing::new(hmac(b"macaroons-key-generator", root.as_bytes()));
    let signature = hmac(key.as_slice(), &identifier);

    let mut bytes = Zeroizing::new(Vec::with_capacity(identifier.len() + LOCATION.len() + TRAILER_LEN + 12));
    bytes.push(FORMAT_V2);
    put_field(&mut bytes, FIELD_LOCATION, LOCATION);
    put_field(&mut bytes, FIELD_IDENTIFIER, &identifier);
    put_varint(&mut bytes, FIELD_END);
    put_trailer(&mut bytes, &signature);
    caveats.iter().fold(Macaroon::from_vec(bytes), |macaroon, &caveat| macaroon.with_caveat(caveat))
}

/// Why some bytes are not a macaroon. Shows nothing of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("the macaroon is not in the version 2 binary format")]
    Version,
    #[error("the macaroon is malformed or cut short")]
    Malformed,
}

/// Bakery's identifier (version 3), as protobuf.
#[derive(Clone, PartialEq, Message)]
struct MacaroonId {
    #[prost(bytes = "vec", tag = "1")]
    nonce: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    storage_id: Vec<u8>,
    #[prost(message, repeated, tag = "3")]
    ops: Vec<IdOp>,
}

#[derive(Clone, PartialEq, Message)]
struct IdOp {
    #[prost(string, tag = "1")]
    entity: String,
    #[prost(string, repeated, tag = "2")]
    actions: Vec<String>,
}

impl MacaroonId {
    /// Sorts, drops repetitions, and groups by entity, as bakery does before it signs.
    fn new(nonce: [u8; 16], ops: &[Op]) -> Self {
        let mut sorted: Vec<&Op> = ops.iter().collect();
        sorted.sort();
        sorted.dedup();
        let ops = sorted
            .chunk_by(|a, b| a.entity == b.entity)
            .map(|group| IdOp {
                entity: group[0].entity.clone(),
                actions: group.iter().map(|op| op.action.clone()).collect(),
            })
            .collect();
        Self { nonce: nonce.to_vec(), storage_id: STORAGE_ID.to_vec(), ops }
    }
}

fn hmac(key: &[u8], data: &[u8]) -> [u8; 32] {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(data);
    mac.finalize().into_bytes().into()
}

fn put_varint(out: &mut Vec<u8>, value: u64) {
    prost::encoding::encode_varint(value, out);
}

fn put_field(out: &mut Vec<u8>, tag: u64, data: &[u8]) {
    put_varint(out, tag);
    put_varint(out, data.len() as u64);
    out.extend_from_slice(data);
}

fn put_trailer(out: &mut Vec<u8>, signature: &[u8; SIGNATURE_LEN]) {
    put_varint(out, FIELD_END);
    put_field(out, FIELD_SIGNATURE, signature);
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Result<u8, ParseError> {
        let (&first, rest) = self.0.split_first().ok_or(ParseError::Malformed)?;
        self.0 = rest;
        Ok(first)
    }

    fn varint(&mut self) -> Result<u64, ParseError> {
        prost::encoding::decode_varint(&mut self.0).map_err(|_| ParseError::Malformed)
    }

    fn field(&mut self) -> Result<(u64, &'a [u8]), ParseError> {
        let tag = self.varint()?;
        let len = usize::try_from(self.varint()?).map_err(|_| ParseError::Malformed)?;
        let (data, rest) = self.0.split_at_checked(len).ok_or(ParseError::Malformed)?;
        self.0 = rest;
        Ok((tag, data))
    }

    /// Fields up to an end of section: an optional location, an identifier, then at most what else is `allowed`.
    fn section(&mut self, allowed: &[u64]) -> Result<(), ParseError> {
        let mut last = 0;
        let mut identified = false;
        loop {
            if self.0.first().is_some_and(|&tag| u64::from(tag) == FIELD_END) {
                self.byte()?;
                return if identified { Ok(()) } else { Err(ParseError::Malformed) };
            }
            let (tag, _) = self.field()?;
            if tag <= last || !(tag == FIELD_LOCATION || allowed.contains(&tag)) {
                return Err(ParseError::Malformed);
            }
            identified |= tag == FIELD_IDENTIFIER;
            last = tag;
        }
    }
}

#[cfg(test)]
#[path = "macaroon_tests.rs"]
mod tests;
