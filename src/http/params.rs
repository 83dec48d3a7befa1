//! What a call is given: the same names by GET in the query and by POST in a JSON object.
//!
//! A call's parameters are a struct made by [`params!`]; the struct both reads them and describes them for OpenAPI. All
//! faults of a request are found before any is told.

use crate::model::problem::{Code, Fault, Refusal};
use percent_encoding::percent_decode;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use std::collections::HashSet;

/// Parameters in one request. No call has half as many, and what is done for each of them, refusals included, is bounded
/// with their number.
const MOST: usize = 64;

/// A value as it came in: text in a query or a path, typed in JSON.
#[derive(Debug, Clone, PartialEq)]
pub enum Raw {
    /// From a query or a path.
    Text(String),
    /// From a JSON body.
    Json(Value),
}

impl Raw {
    /// A form that is the same for the same value, however it came in.
    fn canonical(&self) -> String {
        match self {
            Self::Text(text) | Self::Json(Value::String(text)) => text.clone(),
            Self::Json(value) => value.to_string(),
        }
    }
}

/// A type that a single value can be read as. Errors complete the sentence "amt …".
pub trait Parameter: Sized {
    /// Its JSON schema.
    fn schema() -> Value;

    /// Reads it from a query, a path or a JSON string.
    ///
    /// # Errors
    /// What is wrong with it.
    fn from_text(text: &str) -> Result<Self, String>;

    /// Reads it from JSON; by default only strings will do.
    ///
    /// # Errors
    /// What is wrong with it.
    fn from_json(value: &Value) -> Result<Self, String> {
        match value {
            Value::String(text) => Self::from_text(text),
            _ => Err("must be a string".to_owned()),
        }
    }
}

/// A [`Parameter`] that must be given, or an `Option` of one.
pub trait Slot: Sized {
    /// Whether it must be given.
    const REQUIRED: bool;
    /// Its JSON schema.
    fn schema() -> Value;
    /// What it is when it is not given.
    fn missing() -> Option<Self>;
    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with it.
    fn read(raw: &Raw) -> Result<Self, String>;
}

impl<T: Parameter> Slot for T {
    const REQUIRED: bool = true;

    fn schema() -> Value {
        <T as Parameter>::schema()
    }

    fn missing() -> Option<Self> {
        None
    }

    fn read(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::Text(text) => T::from_text(text),
            Raw::Json(value) => T::from_json(value),
        }
    }
}

impl<T: Parameter> Slot for Option<T> {
    const REQUIRED: bool = false;

    fn schema() -> Value {
        <T as Parameter>::schema()
    }

    fn missing() -> Option<Self> {
        Some(None)
    }

    fn read(raw: &Raw) -> Result<Self, String> {
        <T as Slot>::read(raw).map(Some)
    }
}

/// A parameter as OpenAPI tells it.
#[derive(Debug, Clone)]
pub struct Described {
    /// Its name.
    pub name: &'static str,
    /// Whether it must be given.
    pub required: bool,
    /// Its JSON schema.
    pub schema: Value,
    /// What it means.
    pub about: &'static str,
}

/// The parameters of one call.
pub trait Params: Sized + Send + 'static {
    /// All of them, in order.
    fn describe() -> Vec<Described>;
    /// Takes them out of what was given; `None` where the reader has found a fault.
    fn take(reader: &mut Reader) -> Option<Self>;
}

/// Makes a struct of parameters: `params! { /// About. pub struct Name { /// About. field: Type, } }`. A field of type
/// `Option` may be left out.
macro_rules! params {
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($(#[doc = $about:literal])+ $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug)]
        $vis struct $name {
            $($(#[doc = $about])+ pub $field: $type,)*
        }

        impl $crate::http::params::Params for $name {
            fn describe() -> Vec<$crate::http::params::Described> {
                vec![$($crate::http::params::Described {
                    name: stringify!($field),
                    required: <$type as $crate::http::params::Slot>::REQUIRED,
                    schema: <$type as $crate::http::params::Slot>::schema(),
                    about: concat!($($about),+).trim_ascii(),
                },)*]
            }

            #[allow(unused_variables, reason = "a call without parameters reads none")]
            fn take(reader: &mut $crate::http::params::Reader) -> Option<Self> {
                $(let $field = reader.take::<$type>(stringify!($field));)*
                Some(Self { $($field: $field?,)* })
            }
        }
    };
}
pub(crate) use params;

/// What was given, by name, duplicates and all.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Given(Vec<(String, Raw)>);

impl Given {
    /// Reads a query (without the question mark).
    ///
    /// # Errors
    /// Names every parameter that is not UTF-8; or there are too many.
    pub fn from_query(query: Option<&str>) -> Result<Self, Refusal> {
        not_too_many(query.unwrap_or_default())?;
        let mut given = Vec::new();
        let mut faults = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name).unwrap_or_else(|| name.to_owned());
            match decode(value) {
                Some(text) => given.push((name, Raw::Text(text))),
                None => faults.push(Fault { parameter: name, message: "is not UTF-8".to_owned() }),
            }
        }
        if faults.is_empty() { Ok(Self(given)) } else { Err(invalid(faults)) }
    }

    /// Reads a JSON object. Nothing at all is as good as an empty one; `null` is as good as leaving the name out.
    ///
    /// # Errors
    /// [`Code::MalformedBody`] where it is none; or it has too many members.
    pub fn from_json(body: &[u8]) -> Result<Self, Refusal> {
        if body.is_empty() {
            return Ok(Self::default());
        }
        let members: Members = serde_json::from_slice(body).map_err(|error| {
            let what = if error.is_data() { "not a JSON object" } else { "not JSON" };
            let (line, column) = (error.line(), error.column());
            Refusal::new(Code::MalformedBody, format!("the body is {what} (line {line}, column {column})"))
        })?;
        let Members(Some(members)) = members else { return Err(too_many()) };
        let given = members.into_iter().filter(|(_, value)| !value.is_null());
        Ok(Self(given.map(|(name, value)| (name, Raw::Json(value))).collect()))
    }

    /// Adds a part of the path, which counts as a parameter.
    #[must_use]
    pub fn with_path(mut self, name: &str, value: String) -> Self {
        self.0.push((name.to_owned(), Raw::Text(value)));
        self
    }

    /// Reads all of it as `P`.
    ///
    /// # Errors
    /// [`Code::InvalidParameters`], with every fault there is.
    pub fn read<P: Params>(self) -> Result<P, Refusal> {
        let mut reader = Reader { given: self.0, faults: Vec::new() };
        let params = P::take(&mut reader);
        let Reader { given, mut faults } = reader;
        let mut told: HashSet<String> = faults.iter().map(|fault| fault.parameter.clone()).collect();
        for (name, _) in given {
            if told.insert(name.clone()) {
                faults.push(Fault { parameter: name, message: "is not a parameter of this call".to_owned() });
            }
        }
        match params {
            Some(params) if faults.is_empty() => Ok(params),
            _ => Err(invalid(faults)),
        }
    }

    /// What stands for this request in an idempotency record: the same values give the same text by GET and by POST, in
    /// any order. How long the caller waits is no part of what is asked for.
    #[must_use]
    pub fn canonical(&self) -> Vec<String> {
        let mut pairs: Vec<(&str, String)> = self
            .0
            .iter()
            .filter(|(name, _)| name != "wait")
            .map(|(name, raw)| (name.as_str(), raw.canonical()))
            .collect();
        pairs.sort();
        pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
    }
}

/// Takes parameters out of what was given and notes what is wrong with them.
#[derive(Debug)]
pub struct Reader {
    given: Vec<(String, Raw)>,
    faults: Vec<Fault>,
}

impl Reader {
    /// Takes the one called `name`.
    pub fn take<S: Slot>(&mut self, name: &str) -> Option<S> {
        let mut raws = self.given.extract_if(.., |(given, _)| given == name).map(|(_, raw)| raw);
        let (first, second) = (raws.next(), raws.next());
        drop(raws);
        let outcome = match (first, second) {
            (Some(_), Some(_)) => Err("is given more than once".to_owned()),
            (Some(raw), None) => S::read(&raw),
            (None, _) => S::missing().ok_or_else(|| "is missing".to_owned()),
        };
        outcome.map_err(|message| self.faults.push(Fault { parameter: name.to_owned(), message })).ok()
    }
}

/// The refusal that names all `faults`.
#[must_use]
pub fn invalid(faults: Vec<Fault>) -> Refusal {
    let told: Vec<String> = faults.iter().map(|fault| format!("{} {}", fault.parameter, fault.message)).collect();
    Refusal { faults, ..Refusal::new(Code::InvalidParameters, told.join("; ")) }
}

/// The refusal of one parameter for a reason that only shows when all are known.
#[must_use]
pub fn fault(parameter: &str, message: impl Into<String>) -> Refusal {
    invalid(vec![Fault { parameter: parameter.to_owned(), message: message.into() }])
}

/// Refuses a query with more parameters than any call has, before anything is done for each of them.
///
/// # Errors
/// [`Code::InvalidParameters`].
pub fn not_too_many(query: &str) -> Result<(), Refusal> {
    if query.split('&').filter(|pair| !pair.is_empty()).nth(MOST).is_some() { Err(too_many()) } else { Ok(()) }
}

fn too_many() -> Refusal {
    Refusal::new(Code::InvalidParameters, format!("more than {MOST} parameters are given, and no call takes as many"))
}

fn decode(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    percent_decode(spaced.as_bytes()).decode_utf8().ok().map(|text| text.into_owned())
}

/// A JSON object that keeps duplicate names, which a map would hide. `None`: there are more than [`MOST`].
struct Members(Option<Vec<(String, Value)>>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while members.len() < MOST {
                    let Some(member) = map.next_entry()? else { return Ok(Members(Some(members))) };
                    members.push(member);
                }
                let mut more = false;
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    more = true;
                }
                Ok(Members((!more).then_some(members)))
            }
        }
        from.deserialize_map(Collect)
    }
}

#[cfg(test)]
#[path = "params_tests.rs"]
mod tests;
