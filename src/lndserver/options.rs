//! Further options of lnd that an operator may set, and those that nobody may: what the agent sets itself, and what
//! would undo what safety rests on.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Refused names. lnd's own spelling; a name that ends in a dot stands for the whole group.
const REFUSED: &[&str] = &[
    // Where things are: the agent finds, guards and backs them up there.
    "lnddir",
    "configfile",
    "datadir",
    "logdir",
    "backupfilepath",
    "bitcoin.chaindir",
    "logging.",
    // Who may speak to it, and how it proves who it is.
    "tlscertpath",
    "tlskeypath",
    "tlsextraip",
    "tlsextradomain",
    "tlsautorefresh",
    "tlsdisableautofill",
    "tlscertduration",
    "tlsencryptkey",
    "letsencryptdir",
    "letsencryptlisten",
    "letsencryptdomain",
    "no-macaroons",
    "rpclisten",
    "restlisten",
    "restcors",
    "norest",
    "no-rest-tls",
    "listen",
    "nolisten",
    "grpc.",
    "rpcmiddleware.",
    "profile",
    "cpuprofile",
    "blockingprofile",
    "mutexprofile",
    "pprof.",
    "prometheus.",
    // Whose keys and money it holds.
    "noseedbackup",
    "wallet-unlock-password-file",
    "wallet-unlock-allow-create",
    "remotesigner.",
    "autopilot.",
    "unsafe-disconnect",
    "unsafe-replay",
    "hodl.",
    "dev.",
    // On which chain and in which database.
    "bitcoin.active",
    "bitcoin.node",
    "bitcoin.mainnet",
    "bitcoin.testnet",
    "bitcoin.testnet4",
    "bitcoin.simnet",
    "bitcoin.regtest",
    "bitcoin.signet",
    "bitcoin.signetchallenge",
    "bitcoin.signetseednode",
    "btcd.",
    "bitcoind.",
    "neutrino.",
    "db.backend",
    "db.etcd.",
    "db.postgres.",
    "db.sqlite.",
    "db.use-native-sql",
    "dry-run-migration",
    "cluster.",
    // What makes it something other than a node.
    "alias",
    "version",
];

/// Refused endings: every sub-server can write macaroons somewhere.
const REFUSED_ENDINGS: &[&str] = &["macaroonpath"];

/// One further option of lnd, `name=value` or, for a switch, `name`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LndOption {
    name: String,
    value: String,
}

/// Why an option is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// Not of the form `name=value` or `name`, with lnd's long name.
    #[error("{0:?} is not an option of lnd as its long name and a value")]
    Form(String),
    /// It would undo what safety rests on, or is set by the agent.
    #[error("the option {0} may not be set")]
    Refused(String),
}

impl LndOption {
    /// Reads one, with or without `--` before it.
    ///
    /// Only lower case: an lnd.conf also knows options by the names of Go's fields, which begin with a capital, and by
    /// single letters; both would go around the names above.
    pub fn parse(text: &str) -> Result<Self, OptionError> {
        let bare = text.strip_prefix("--").unwrap_or(text);
        let (name, value) = bare.split_once('=').unwrap_or((bare, "true"));
        let form = name.len() > 1
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-'))
            && !value.is_empty()
            && !value.chars().any(char::is_control);
        if !form {
            return Err(OptionError::Form(name.to_owned()));
        }
        if is_refused(name) {
            return Err(OptionError::Refused(name.to_owned()));
        }
        Ok(Self { name: name.to_owned(), value: value.to_owned() })
    }

    /// lnd's long name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its value; `true` for a switch.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }
}

fn is_refused(name: &str) -> bool {
    let by_name = |refused: &&str| if refused.ends_with('.') { name.starts_with(*refused) } else { name == *refused };
    REFUSED.iter().any(by_name) || REFUSED_ENDINGS.iter().any(|ending| name.ends_with(*ending))
}

impl fmt::Display for LndOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.value)
    }
}

impl TryFrom<String> for LndOption {
    type Error = OptionError;

    fn try_from(text: String) -> Result<Self, OptionError> {
        Self::parse(&text)
    }
}

impl From<LndOption> for String {
    fn from(option: LndOption) -> Self {
        option.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harmless_options_pass() {
        for text in ["protocol.wumbo-channels", "--bitcoin.defaultchanconfs=1", "color=#ff0000", "feeurl=https://a/b=c"]
        {
            LndOption::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        }
        let switch = LndOption::parse("protocol.wumbo-channels").expect("parses");
        assert_eq!(switch.to_string(), "protocol.wumbo-channels=true");
        assert_eq!(LndOption::parse(&switch.to_string()), Ok(switch));
    }

    #[test]
    fn what_safety_rests_on_is_refused() {
        for text in [
            "tlscertpath=/tmp/x",
            "--tlsautorefresh",
            "no-macaroons",
            "rpclisten=0.0.0.0:1",
            "restlisten=0.0.0.0:1",
            "lnddir=/tmp",
            "wallet-unlock-password-file=/tmp/x",
            "invoicesrpc.invoicemacaroonpath=/tmp/x",
            "adminmacaroonpath=/tmp/x",
            "db.postgres.dsn=x",
            "btcd.rpchost=x",
            "bitcoin.mainnet",
        ] {
            assert!(matches!(LndOption::parse(text), Err(OptionError::Refused(_))), "{text}");
        }
    }

    #[test]
    fn other_spellings_do_not_get_around_it() {
        for text in
            ["NoMacaroons", "TLSCertPath=/x", "C=/x", "no-macaroons =1", "a\nno-macaroons=1", "x=1\n[y]", "=1", "ab="]
        {
            assert!(LndOption::parse(text).is_err(), "{text:?}");
        }
    }
}
