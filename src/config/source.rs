//! Where settings come from: the TOML file, the environment over it, flags over that. Keeps with every value where it was
//! given, so that a fault can be found, and collects all faults instead of stopping at the first.

use super::secret::SecretSource;
use super::setting::{Raw, Setting};
use secrecy::SecretString;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// What every environment variable of ours begins with.
pub const ENV_PREFIX: &str = "SCALE_LND_";

/// Variables of ours that are no settings: where the configuration is, the key with which `demo --at` calls an API, the programs
/// that `dev` and the tests run, and the faults of a build that has them.
const NOT_SETTINGS: [&str; 6] = ["CONFIG", "API_KEY", "NODE_BIN", "FIRESTORE_EMULATOR", "FAULT", "FAULT_DIR"];

/// Where a setting was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// In the file, on this line (from 1).
    File {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
    },
    /// By the environment variable of this name.
    Environment(String),
    /// By a flag of the command line.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => f.write_str(name),
            Self::Flag => f.write_str("--set"),
        }
    }
}

/// One thing that is wrong with the configuration. Never shows a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFault {
    /// Where it was given, if it was.
    pub origin: Option<Origin>,
    /// The setting, `section.key`; empty for a fault of the file as a whole.
    pub key: String,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = &self.origin {
            write!(f, "{origin}: ")?;
        }
        match self.key.as_str() {
            "" => f.write_str(&self.message),
            key => write!(f, "{key}: {}", self.message),
        }
    }
}

/// What a validation finds: (`section.key`, what is wrong).
pub(crate) type Found = Vec<(&'static str, String)>;

/// A section of a configuration.
pub(crate) trait Part: Sized {
    /// Its name.
    const NAME: &'static str;

    /// Reads it. `None` only where a fault was recorded.
    fn read(section: &mut Section<'_>) -> Option<Self>;

    /// Says which values make no sense, alone or together.
    fn validate(&self, _found: &mut Found) {}
}

struct Given {
    value: Raw,
    origin: Origin,
}

/// All settings of the sections asked for, merged, and the faults found so far.
pub(crate) struct Settings {
    sections: &'static [&'static str],
    given: BTreeMap<(String, String), Given>,
    seen: BTreeMap<(String, String), Origin>,
    faults: Vec<ConfigFault>,
    folder: PathBuf,
}

impl Settings {
    /// Reads the file (where there is one), the environment and the flags (`section.key`, value).
    pub fn gather(
        sections: &'static [&'static str],
        path: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
        flags: &[(String, String)],
    ) -> Self {
        let folder = path.and_then(Path::parent).map(Path::to_path_buf).unwrap_or_default();
        let mut settings = Self { sections, given: BTreeMap::new(), seen: BTreeMap::new(), faults: Vec::new(), folder };
        if let Some(path) = path {
            match std::fs::read_to_string(path) {
                Ok(text) => settings.read_toml(path, &text),
                Err(e) => settings.file_fault(None, format!("cannot read {}: {e}", path.display())),
            }
        }
        for (name, value) in env {
            settings.read_variable(name, value);
        }
        for (key, value) in flags {
            settings.read_flag(key, value);
        }
        settings
    }

    fn file_fault(&mut self, origin: Option<Origin>, message: impl Into<String>) {
        self.faults.push(ConfigFault { origin, key: String::new(), message: message.into() });
    }

    fn read_toml(&mut self, path: &Path, text: &str) {
        let line = |offset: usize| text.as_bytes().iter().take(offset).filter(|b| **b == b'\n').count() + 1;
        let at = |offset: usize| Origin::File { path: path.to_path_buf(), line: line(offset) };
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let origin = error.span().map(|span| at(span.start));
            self.file_fault(origin, error.message().to_owned());
        }
        for (section, value) in table.into_inner() {
            let origin = at(section.span().start);
            let section = section.into_inner().into_owned();
            if !self.sections.contains(&section.as_str()) {
                let message = format!("unknown section; there are {}", self.sections.join(", "));
                self.faults.push(ConfigFault { origin: Some(origin), key: section, message });
                continue;
            }
            let DeValue::Table(keys) = value.into_inner() else {
                let message = "is a section: [name], then one setting a line".to_owned();
                self.faults.push(ConfigFault { origin: Some(origin), key: section, message });
                continue;
            };
            for (key, value) in keys {
                let origin = at(key.span().start);
                let value = Raw::from_toml(&value.into_inner(), &self.folder);
                self.given.insert((section.clone(), key.into_inner().into_owned()), Given { value, origin });
            }
        }
    }

    fn read_variable(&mut self, name: String, value: String) {
        let Some(rest) = name.strip_prefix(ENV_PREFIX) else { return };
        let is_in =
            |section: &&&str| rest.strip_prefix(&section.to_uppercase()).is_some_and(|tail| tail.starts_with('_'));
        let Some(section) = self.sections.iter().find(is_in) else {
            // A master and an agent on one machine may share an environment.
            if !NOT_SETTINGS.contains(&rest) && !super::SECTIONS.iter().chain(super::agent::SECTIONS).any(|s| is_in(&s))
            {
                let message = format!("no such section; there are {}", self.sections.join(", "));
                let origin = Some(Origin::Environment(name));
                self.faults.push(ConfigFault { origin, key: String::new(), message });
            }
            return;
        };
        let key = rest.get(section.len() + 1..).unwrap_or_default().to_lowercase();
        let given = Given { value: Raw::Text(value), origin: Origin::Environment(name) };
        self.given.insert(((*section).to_owned(), key), given);
    }

    fn read_flag(&mut self, name: &str, value: &str) {
        match name.split_once('.') {
            Some((section, key)) if self.sections.contains(&section) => {
                let given = Given { value: Raw::Text(value.to_owned()), origin: Origin::Flag };
                self.given.insert((section.to_owned(), key.to_owned()), given);
            }
            _ => {
                let message = format!("no such section; there are {}", self.sections.join(", "));
                self.faults.push(ConfigFault { origin: Some(Origin::Flag), key: name.to_owned(), message });
            }
        }
    }

    /// Reads and validates one section; whatever of it was not asked for is a fault. `None` only after a fault was recorded.
    pub fn part<T: Part>(&mut self) -> Option<T> {
        let mut section = Section { settings: self, name: T::NAME, known: Vec::new() };
        let part = T::read(&mut section);
        let known = section.known.join(", ");
        self.refuse_unknown(T::NAME, &known);
        let mut found = Found::new();
        if let Some(part) = &part {
            part.validate(&mut found);
        }
        self.found(found);
        part
    }

    fn refuse_unknown(&mut self, section: &str, known: &str) {
        let unknown: Vec<_> = self.given.keys().filter(|(s, _)| s == section).cloned().collect();
        for place in unknown {
            if let Some(given) = self.given.remove(&place) {
                let message = format!("unknown key; [{section}] has {known}");
                let key = format!("{section}.{}", place.1);
                self.faults.push(ConfigFault { origin: Some(given.origin), key, message });
            }
        }
    }

    /// Whether anything of a section was given, for sections that may be left out altogether.
    #[must_use]
    pub fn is_given(&self, name: &str) -> bool {
        self.given.keys().any(|(section, _)| section == name)
    }

    /// Records what `validate` found: (`section.key`, what is wrong).
    pub fn found(&mut self, found: Found) {
        for (key, message) in found {
            let place = key.split_once('.').map(|(s, k)| (s.to_owned(), k.to_owned()));
            let origin = place.and_then(|place| self.seen.get(&place).cloned());
            self.faults.push(ConfigFault { origin, key: key.to_owned(), message });
        }
    }

    /// The faults found, in the order of the places where they were given.
    #[must_use]
    pub fn into_faults(mut self) -> Vec<ConfigFault> {
        let place = |fault: &ConfigFault| match &fault.origin {
            Some(Origin::File { line, .. }) => (0, *line),
            Some(Origin::Environment(_)) => (1, 0),
            Some(Origin::Flag) => (2, 0),
            None => (3, 0),
        };
        self.faults.sort_by(|a, b| place(a).cmp(&place(b)).then_with(|| a.key.cmp(&b.key)));
        self.faults
    }

    /// Whether nothing was found to be wrong.
    #[must_use]
    pub fn is_faultless(&self) -> bool {
        self.faults.is_empty()
    }
}

/// One section while it is read.
pub(crate) struct Section<'a> {
    settings: &'a mut Settings,
    name: &'static str,
    known: Vec<&'static str>,
}

impl Section<'_> {
    fn take(&mut self, key: &'static str) -> Option<Given> {
        self.known.push(key);
        let place = (self.name.to_owned(), key.to_owned());
        let given = self.settings.given.remove(&place)?;
        self.settings.seen.insert(place, given.origin.clone());
        Some(given)
    }

    /// Whether a setting was given and not asked for yet.
    pub fn is_given(&self, key: &str) -> bool {
        self.settings.given.contains_key(&(self.name.to_owned(), key.to_owned()))
    }

    /// Refuses a setting that is known but means nothing here, if it was given.
    pub fn refuse(&mut self, key: &'static str, message: impl Into<String>) {
        if let Some(given) = self.take(key) {
            self.fault_at(key, Some(given.origin), message);
        }
    }

    /// Passes over a setting of which nothing can be said.
    pub fn ignore(&mut self, key: &'static str) {
        self.take(key);
    }

    /// Records what is wrong with a setting that was asked for before.
    pub fn fault(&mut self, key: &str, message: impl Into<String>) {
        let origin = self.settings.seen.get(&(self.name.to_owned(), key.to_owned())).cloned();
        self.fault_at(key, origin, message);
    }

    fn fault_at(&mut self, key: &str, origin: Option<Origin>, message: impl Into<String>) {
        let key = format!("{}.{key}", self.name);
        self.settings.faults.push(ConfigFault { origin, key, message: message.into() });
    }

    fn parse<T: Setting>(&mut self, key: &'static str, given: Given) -> Option<T> {
        match T::parse(given.value) {
            Ok(value) => Some(value),
            Err(message) => {
                self.fault_at(key, Some(given.origin), message);
                None
            }
        }
    }

    /// A setting that may be left out.
    pub fn optional<T: Setting>(&mut self, key: &'static str) -> Option<T> {
        let given = self.take(key)?;
        self.parse(key, given)
    }

    /// A setting that must be there. `None` only after a fault was recorded.
    pub fn required<T: Setting>(&mut self, key: &'static str) -> Option<T> {
        match self.take(key) {
            Some(given) => self.parse(key, given),
            None => {
                self.fault_at(key, None, "is missing");
                None
            }
        }
    }

    /// A setting with a default (which also stands in for a faulty one, so that the reading can go on).
    pub fn or<T: Setting>(&mut self, key: &'static str, default: T) -> T {
        self.optional(key).unwrap_or(default)
    }

    /// A secret: from the environment only, since files are copied and command lines are seen by everybody.
    pub fn secret(&mut self, key: &'static str) -> Option<SecretString> {
        let given = self.take(key)?;
        if matches!(given.origin, Origin::Environment(_)) {
            return self.parse(key, given);
        }
        let variable = format!("{ENV_PREFIX}{}_{}", self.name.to_uppercase(), key.to_uppercase());
        let message = format!("is a secret: give it in the environment as {variable}, or use {key}_file");
        self.fault_at(key, Some(given.origin), message);
        None
    }

    /// A secret that may be left out, from the environment or else from a file of its own.
    pub fn secret_or_file(&mut self, key: &'static str, key_file: &'static str) -> Option<SecretSource> {
        // A file named in the configuration may stand for machines without the variable.
        let file: Option<PathBuf> = self.optional(key_file);
        self.secret(key).map(SecretSource::Value).or(file.map(SecretSource::File))
    }

    /// A secret that must be there, from the environment or else from a file of its own.
    pub fn required_secret(&mut self, key: &'static str, key_file: &'static str) -> Option<SecretSource> {
        if self.is_given(key) {
            return self.secret_or_file(key, key_file);
        }
        self.known.push(key);
        self.required(key_file).map(SecretSource::File)
    }
}
