//! Telling programs (the ready file) and people (the terminal) that the local system is up, and how to use it.

use std::{io, path::Path};

use secrecy::ExposeSecret;
use serde_json::json;

use super::{deployment::APP, error::DevError, files::write_private, progress::print, system::System};

/// Writes what a program needs to use the system: whole or not at all, readable by its owner only.
pub fn write_file(path: &Path, system: &System) -> Result<(), DevError> {
    let (chain, treasury) = (&system.btcd().access, system.treasury_access());
    let ready = json!({
        "url": system.url,
        "api_key": system.keys.app.expose_secret(),
        "operator_key": system.keys.operator.expose_secret(),
        "network": "simnet",
        "app": APP,
        "data_dir": system.home.path(),
        "config": system.home.dir("master.toml"),
        "chain": {
            "rpc": chain.rpc,
            "p2p": chain.p2p,
            "user": chain.user,
            "password": chain.password.expose_secret(),
            "certificate": chain.certificate,
        },
        "treasury": {
            "address": treasury.rpc,
            "certificate": treasury.certificate,
            "macaroon": treasury.admin_macaroon,
            "funding_macaroon": treasury.funding_macaroon,
            "identity_pubkey": system.treasury().identity_pubkey,
            "p2p_address": treasury.p2p,
            "rest": treasury.rest,
        },
    });
    write_private(path, format!("{ready:#}\n").as_bytes())
}

/// Takes the file away: whoever waits for it must not find that of an earlier run.
pub fn remove_file(path: &Path) -> Result<(), DevError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(DevError::file("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Prints where everything is, and lines to paste.
pub fn print_welcome(system: &System) {
    let data = system.home.path().display().to_string();
    print(welcome(&system.url, system.keys.app.expose_secret(), &data));
}

/// The README shows the lines to paste, too.
fn welcome(url: &str, key: &str, data: &str) -> String {
    format!(
        r#"
  API   {url}/lnd/v1   (described at {url}/lnd/v1/docs)
  key   {key}   (app {APP})
  data  {data}   (logs in logs/)

Paste this into another terminal: two users get lnds, and alice pays bob.

  URL={url}/lnd/v1 AUTH="Authorization: Bearer {key}"
  curl -sS -H "$AUTH" "$URL/create?uuid=alice&wait=50"; echo
  curl -sS -H "$AUTH" "$URL/create?uuid=bob&wait=50"; echo
  INVOICE=$(curl -sS -H "$AUTH" "$URL/invoice?uuid=bob&amt=1000"); echo "$INVOICE"
  PAYREQ=$(sed 's/.*"payment_request":"\([^"]*\)".*/\1/' <<<"$INVOICE")
  curl -sS -H "$AUTH" "$URL/pay?uuid=alice&payreq=$PAYREQ&wait=50"; echo

Ctrl-C stops everything; the next start finds it as it was.

"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_shows_the_lines_that_are_printed() {
        let readme = include_str!("../../README.md");
        let printed = welcome("http://127.0.0.1:8080", "slnd_simnet_…", "/data");
        let is_to_paste =
            |line: &&str| ["  URL=", "  curl ", "  INVOICE=", "  PAYREQ="].iter().any(|s| line.starts_with(s));
        let lines: Vec<String> = printed.lines().filter(is_to_paste).map(|line| format!("  {line}\n")).collect();
        assert_eq!(lines.len(), 6, "{printed}");
        // A sentence stands between the first and the others.
        assert!(readme.contains(&lines[0]), "{}", lines[0]);
        assert!(readme.contains(&lines[1..].concat()), "{}", lines[1..].concat());
    }
}
