//! How one value is read: from TOML with its type, or from the text of a variable or flag. The messages name what was
//! expected and never quote the value, which may be a secret in the wrong place.

use crate::model::Network;
use secrecy::SecretString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use toml::de::DeValue;

/// A value as it was given.
pub(crate) enum Raw {
    /// A string of the file; relative paths in it are relative to this folder.
    String {
        /// The text.
        text: String,
        /// The folder of the file.
        folder: PathBuf,
    },
    /// A whole number of the file.
    Integer(i64),
    /// A truth value of the file.
    Boolean(bool),
    /// A list of the file.
    Array(Vec<Raw>),
    /// Anything else of the file, by the name of its type.
    Other(&'static str),
    /// The text of a variable or flag; lists are separated by commas.
    Text(String),
}

impl Raw {
    pub(super) fn from_toml(value: &DeValue<'_>, folder: &Path) -> Self {
        match value {
            DeValue::String(text) => Self::String { text: text.to_string(), folder: folder.to_path_buf() },
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or(Self::Other("too large a number"), Self::Integer),
            DeValue::Boolean(value) => Self::Boolean(*value),
            DeValue::Array(items) => {
                Self::Array(items.iter().map(|item| Self::from_toml(item.get_ref(), folder)).collect())
            }
            other => Self::Other(other.type_str()),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::String { .. } => "a string",
            Self::Integer(_) => "a number",
            Self::Boolean(_) => "true or false",
            Self::Array(_) => "a list",
            Self::Other(kind) => kind,
            Self::Text(_) => "something else",
        }
    }

    fn text(self) -> Result<String, String> {
        match self {
            Self::String { text, .. } | Self::Text(text) => Ok(text),
            other => Err(format!("must be a string, not {}", other.kind())),
        }
    }
}

/// Something that can be set.
pub(crate) trait Setting: Sized {
    /// Reads it.
    ///
    /// # Errors
    /// What was expected, without quoting what was given.
    fn parse(raw: Raw) -> Result<Self, String>;
}

fn from_text<T: FromStr>(raw: Raw, expected: &str) -> Result<T, String> {
    raw.text()?.parse().map_err(|_| format!("must be {expected}"))
}

impl Setting for String {
    fn parse(raw: Raw) -> Result<Self, String> {
        match raw.text()? {
            text if text.trim().is_empty() => Err("must not be empty".to_owned()),
            text => Ok(text),
        }
    }
}

impl Setting for SecretString {
    fn parse(raw: Raw) -> Result<Self, String> {
        String::parse(raw).map(Self::from)
    }
}

impl Setting for PathBuf {
    fn parse(raw: Raw) -> Result<Self, String> {
        let folder = match &raw {
            Raw::String { folder, .. } => folder.clone(),
            _ => Self::new(),
        };
        String::parse(raw).map(|text| folder.join(text))
    }
}

impl Setting for SocketAddr {
    fn parse(raw: Raw) -> Result<Self, String> {
        from_text(raw, "an IP address with a port, such as 127.0.0.1:8080")
    }
}

impl Setting for Network {
    fn parse(raw: Raw) -> Result<Self, String> {
        let text = raw.text()?;
        Self::parse(&text).ok_or_else(|| format!("must be one of {}", Self::ALL.map(Self::as_str).join(", ")))
    }
}

impl Setting for bool {
    fn parse(raw: Raw) -> Result<Self, String> {
        match raw {
            Raw::Boolean(value) => Ok(value),
            Raw::Text(text) => text.parse().map_err(|_| "must be true or false".to_owned()),
            other => Err(format!("must be true or false, not {}", other.kind())),
        }
    }
}

macro_rules! whole_number {
    ($($type:ty),*) => {$(
        impl Setting for $type {
            fn parse(raw: Raw) -> Result<Self, String> {
                let expected = || format!("must be a whole number from {} to {}", Self::MIN, Self::MAX);
                match raw {
                    Raw::Integer(number) => number.try_into().map_err(|_| expected()),
                    Raw::Text(text) => text.parse().map_err(|_| expected()),
                    other => Err(format!("{}, not {}", expected(), other.kind())),
                }
            }
        }
    )*};
}
whole_number!(u16, u32, u64, usize);

impl<T: Setting> Setting for Vec<T> {
    fn parse(raw: Raw) -> Result<Self, String> {
        match raw {
            Raw::Array(items) => items.into_iter().map(T::parse).collect(),
            Raw::Text(text) if text.is_empty() => Ok(Self::new()),
            Raw::Text(text) => text.split(',').map(|item| T::parse(Raw::Text(item.trim().to_owned()))).collect(),
            other => Err(format!("must be a list, not {}", other.kind())),
        }
    }
}
