//! The types of parameters: each says what it accepts, once, for reading and for OpenAPI.

use super::host::HostPort;
use super::params::Parameter;
use crate::model::amount::{MAX_SAT, Sat};
use crate::model::ids::{OperationId, Uuid};
use crate::model::work::pay::OpenPolicy;
use bitcoin::secp256k1::PublicKey;
use serde_json::{Value, json};
use std::str::FromStr;
use std::time::Duration;

/// A whole number within bounds, from a query or from JSON.
fn whole(text: &str, min: u64, max: u64) -> Result<u64, String> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err("must be a whole number".to_owned());
    }
    let too_large = || format!("must be at most {max}");
    if digits.len() < text.len() {
        return Err(format!("must be at least {min}"));
    }
    match text.parse::<u64>() {
        Ok(number) if number < min => Err(format!("must be at least {min}")),
        Ok(number) if number <= max => Ok(number),
        _ => Err(too_large()),
    }
}

fn whole_json(value: &Value, min: u64, max: u64) -> Result<u64, String> {
    match value {
        Value::Number(number) if number.is_f64() => {
            // JSON knows no integers: 5.0 is 5. Beyond 2^53 it is not exact any more, and far beyond every bound.
            let float = number.as_f64().unwrap_or(f64::NAN);
            if float.fract() == 0.0 { whole(&format!("{float:.0}"), min, max) } else { whole("", min, max) }
        }
        Value::Number(number) => whole(&number.to_string(), min, max),
        _ => Err("must be a whole number".to_owned()),
    }
}

macro_rules! whole_number {
    ($(#[$doc:meta])* $name:ident($inner:ty), $min:expr, $max:expr, $wrap:expr $(, $extra:tt: $value:expr)?) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name(pub $inner);

        impl Parameter for $name {
            fn schema() -> Value {
                json!({"type": "integer", "minimum": $min, "maximum": $max $(, $extra: $value)?})
            }

            fn from_text(text: &str) -> Result<Self, String> {
                whole(text, $min, $max).map(|n| Self($wrap(n)))
            }

            fn from_json(value: &Value) -> Result<Self, String> {
                whole_json(value, $min, $max).map(|n| Self($wrap(n)))
            }
        }
    };
}

whole_number!(
    /// An amount of satoshi that is asked for: at least 1, at most all there can be.
    Amount(Sat), 1, MAX_SAT, Sat
);
whole_number!(
    /// A bound on fees, satoshi; zero is one too.
    FeeBound(Sat), 0, MAX_SAT, Sat
);
whole_number!(
    /// Seconds until an invoice expires; lnd allows up to a year.
    Expiry(i64), 1, 31_536_000, u64::cast_signed, "default": 86400
);
whole_number!(
    /// How long a call waits for its operation.
    Wait(Duration), 0, 50, Duration::from_secs, "default": 30
);
whole_number!(
    /// How many items a list shows at most.
    Limit(u16), 1, 1000, |n| u16::try_from(n).unwrap_or(1000), "default": 100
);

impl Wait {
    /// What was asked for, or 30 seconds.
    #[must_use]
    pub fn or_default(wait: Option<Self>) -> Duration {
        wait.map_or(Duration::from_secs(30), |wait| wait.0)
    }
}

impl Limit {
    /// What was asked for, or 100.
    #[must_use]
    pub fn or_default(limit: Option<Self>) -> u16 {
        limit.map_or(100, |limit| limit.0)
    }
}

impl Parameter for bool {
    fn schema() -> Value {
        json!({"type": "boolean"})
    }

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "must be true or false".to_owned())
    }

    fn from_json(value: &Value) -> Result<Self, String> {
        value.as_bool().ok_or_else(|| "must be true or false".to_owned())
    }
}

impl Parameter for Uuid {
    fn schema() -> Value {
        json!({"type": "string", "pattern": "^[A-Za-z0-9._~-]{1,128}$"})
    }

    fn from_text(text: &str) -> Result<Self, String> {
        Self::parse(text).ok_or_else(|| "must be 1 to 128 characters of A-Z a-z 0-9 . _ ~ -".to_owned())
    }
}

impl Parameter for OperationId {
    fn schema() -> Value {
        json!({"type": "string"})
    }

    fn from_text(text: &str) -> Result<Self, String> {
        Self::parse(text).ok_or_else(|| "is not the name of an operation".to_owned())
    }
}

/// The serial of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serial(pub u64);

impl Parameter for Serial {
    fn schema() -> Value {
        json!({"type": "integer", "minimum": 1})
    }

    fn from_text(text: &str) -> Result<Self, String> {
        let serial = text.parse().ok().filter(|serial| *serial > 0);
        serial.map(Self).ok_or_else(|| "must be the serial of a release, a number from 1".to_owned())
    }
}

impl Parameter for OpenPolicy {
    fn schema() -> Value {
        json!({"type": "string", "enum": ["auto", "never"], "default": "auto"})
    }

    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "never" => Ok(Self::Never),
            _ => Err("must be auto or never".to_owned()),
        }
    }
}

impl Parameter for HostPort {
    fn schema() -> Value {
        json!({"type": "string", "maxLength": 260, "examples": ["203.0.113.7:9735", "[2001:db8::7]:9735"]})
    }

    fn from_text(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }
}

macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $schema:tt, $read:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name(pub String);

        impl Parameter for $name {
            fn schema() -> Value {
                json!($schema)
            }

            fn from_text(text: &str) -> Result<Self, String> {
                let read: fn(&str) -> Result<String, &'static str> = $read;
                read(text).map(Self).map_err(str::to_owned)
            }
        }
    };
}

text!(
    /// A node's identity: a compressed point on the curve, as lower-case hexadecimal.
    Pubkey,
    {"type": "string", "pattern": "^0[23][0-9a-fA-F]{64}$"},
    |text| match PublicKey::from_str(text) {
        Ok(key) if text.len() == 66 => Ok(key.to_string()),
        _ => Err("must be a public key: 66 hexadecimal digits of a point on the curve"),
    }
);
text!(
    /// A BOLT 11 payment request; what it says is judged later.
    Payreq,
    {"type": "string", "minLength": 1, "maxLength": 4096},
    |text| {
        let bare = match text.get(..10) {
            Some(scheme) if scheme.eq_ignore_ascii_case("lightning:") => &text[10..],
            _ => text,
        };
        let fits = (1..=4096).contains(&bare.len());
        if fits { Ok(bare.to_owned()) } else { Err("must be a payment request of at most 4096 characters") }
    }
);
text!(
    /// What an invoice is for, as it stands in the payment request.
    Memo,
    {"type": "string", "maxLength": 639},
    |text| if text.len() <= 639 { Ok(text.to_owned()) } else { Err("must be at most 639 bytes") }
);
text!(
    /// A channel, `txid:index`.
    ChannelPoint,
    {"type": "string", "pattern": "^[0-9a-fA-F]{64}:[0-9]{1,5}$"},
    |text| match bitcoin::OutPoint::from_str(&text.to_ascii_lowercase()) {
        Ok(point) if point.vout <= u32::from(u16::MAX) => Ok(point.to_string()),
        _ => Err("must be a channel point: txid:index"),
    }
);
text!(
    /// An on-chain address; whether it is one of this network is judged later.
    Address,
    {"type": "string", "pattern": "^[A-Za-z0-9]{14,128}$"},
    |text| {
        let fits = (14..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric());
        if fits { Ok(text.to_owned()) } else { Err("must be an address") }
    }
);
text!(
    /// A payment hash, as lower-case hexadecimal.
    PaymentHash,
    {"type": "string", "pattern": "^[0-9a-fA-F]{64}$"},
    |text| {
        let fits = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        if fits { Ok(text.to_ascii_lowercase()) } else { Err("must be 64 hexadecimal digits") }
    }
);
text!(
    /// Where a page of one of our own lists begins: what the page before gave as `next_cursor`.
    Cursor,
    {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,200}$"},
    |text| {
        let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
        let fits = (1..=200).contains(&text.len()) && text.bytes().all(known) && !text.starts_with("__");
        if fits { Ok(text.to_owned()) } else { Err("is not a cursor of this list") }
    }
);

impl PaymentHash {
    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        // The digits were checked when it was read; anything else is the hash of nothing.
        let _checked = hex::decode_to_slice(&self.0, &mut bytes);
        bytes
    }
}

/// Where a page of one of lnd's lists begins: what the page before gave as `next_cursor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexCursor(pub u64);

impl Parameter for IndexCursor {
    fn schema() -> Value {
        json!({"type": "string", "pattern": "^[0-9]{1,18}$"})
    }

    fn from_text(text: &str) -> Result<Self, String> {
        whole(text, 0, 999_999_999_999_999_999).map(Self).map_err(|_| "is not a cursor of this list".to_owned())
    }
}
