//! The configuration of a host's agent (`scale-lnd lndserver`): the sections `[agent]` and `[log]`, read as a master's are.

use super::sections::is_host_and_port;
use super::setting::{Raw, Setting};
use super::source::{ConfigFault, Found, Part, Section, Settings};
use super::{LogSection, SecretSource};
use crate::backoff::Backoff;
use crate::lndserver::config::PORT_BASE;
use crate::lndserver::{AgentConfig, Believed, LndStart};
use crate::pki::Pins;
use crate::release::{TrustedKey, TrustedKeys};
use secrecy::SecretString;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) const SECTIONS: &[&str] = &["agent", "log"];

/// Reads and validates the configuration of an agent and of its log. `flags` are (`section.key`, value).
///
/// # Errors
/// All the faults there are.
pub fn load(
    path: Option<&Path>,
    env: impl IntoIterator<Item = (String, String)>,
    flags: &[(String, String)],
) -> Result<(AgentConfig, LogSection), Vec<ConfigFault>> {
    let mut settings = Settings::gather(SECTIONS, path, env, flags);
    let (agent, log) = (settings.part::<AgentConfig>(), settings.part::<LogSection>());
    match (agent, log) {
        (Some(agent), Some(log)) if settings.is_faultless() => Ok((agent, log)),
        _ => Err(settings.into_faults()),
    }
}

impl Setting for IpAddr {
    fn parse(raw: Raw) -> Result<Self, String> {
        String::parse(raw)?.parse().map_err(|_| "must be an IP address, such as 10.0.0.5".to_owned())
    }
}

impl Setting for LndStart {
    fn parse(raw: Raw) -> Result<Self, String> {
        match String::parse(raw)?.as_str() {
            "child" => Ok(Self::Child),
            "systemd" => Ok(Self::Systemd),
            _ => Err("must be child or systemd".to_owned()),
        }
    }
}

/// A program: one without a folder is looked for in PATH, not beside the file.
struct Program(PathBuf);

impl Setting for Program {
    fn parse(raw: Raw) -> Result<Self, String> {
        let bare = match &raw {
            Raw::String { text, .. } | Raw::Text(text) if Path::new(text).components().count() == 1 => {
                Some(text.clone())
            }
            _ => None,
        };
        let beside = PathBuf::parse(raw)?;
        Ok(Self(bare.filter(|bare| !bare.contains('/')).map_or(beside, PathBuf::from)))
    }
}

impl Part for AgentConfig {
    const NAME: &'static str = "agent";

    fn read(s: &mut Section<'_>) -> Option<Self> {
        let data_dir = s.required("data_dir");
        let listen = s.or("listen", SocketAddr::from(([127, 0, 0, 1], 8082)));
        let address = s.or("address", listen.ip());
        let masters = s.required("masters");
        let ca_fingerprint = s.required("ca_fingerprint");
        let Program(lnd) = s.or("lnd", Program(PathBuf::from("lnd")));
        let lnd_start = s.or("lnd_start", LndStart::default());
        let port_base = s.or("port_base", PORT_BASE);
        let lnd_rest = s.optional("lnd_rest");
        let releases = releases(s);
        let look_every_ms = s.or("look_every_ms", 30_000u64);
        let join_token = join_token(s);
        Some(Self {
            data_dir: data_dir?,
            listen,
            address,
            masters: masters?,
            join_token,
            ca_fingerprint: ca_fingerprint?,
            lnd,
            releases,
            lnd_start,
            port_base,
            lnd_rest,
            look_every: Duration::from_millis(look_every_ms),
            restart_backoff: Backoff::RESTART,
        })
    }

    fn validate(&self, found: &mut Found) {
        if self.address.is_unspecified() {
            let message = "is missing: the address at which masters and peers reach this host (`listen` names none)";
            found.push(("agent.address", message.to_owned()));
        }
        if self.masters.is_empty() || !self.masters.iter().all(|master| is_host_and_port(master)) {
            found
                .push(("agent.masters", "must be one or more addresses with a port, such as 10.0.0.4:8081".to_owned()));
        }
        if self.ca_fingerprint.parse::<Pins>().is_err() {
            found.push((
                "agent.ca_fingerprint",
                "must be 64 hexadecimal digits (see `host invite`), or several such with commas between".to_owned(),
            ));
        }
        if self.look_every < Duration::from_millis(100) {
            found.push(("agent.look_every_ms", "must be from 100".to_owned()));
        }
        if self.port_base < 1024 {
            found.push(("agent.port_base", "must be from 1024".to_owned()));
        }
    }
}

/// Whose releases are believed; nothing is, where no key is named.
fn releases(s: &mut Section<'_>) -> Option<Believed> {
    let keys: Vec<TrustedKey> = s.or("release_keys", Vec::new());
    if keys.is_empty() {
        for key in ["release_deployment", "lowest_release"] {
            s.refuse(key, "means nothing without release_keys");
        }
        return None;
    }
    let lowest = s.or("lowest_release", 1);
    let deployment = s.required("release_deployment")?;
    Some(Believed { trusted: TrustedKeys::new(keys), deployment, lowest })
}

/// The token may be gone once it was used.
fn join_token(s: &mut Section<'_>) -> Option<SecretString> {
    let source = s.secret_or_file("join_token", "join_token_file")?;
    if let SecretSource::File(path) = &source
        && !path.exists()
    {
        return None;
    }
    source.text().map_err(|message| s.fault("join_token_file", message)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"
[agent]
data_dir = "data"
listen = "10.0.0.9:8082"
masters = ["10.0.0.4:8081", "10.0.0.5:8081"]
ca_fingerprint = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
join_token_file = "token"
"#;

    fn load_in(folder: &Path, text: &str, env: &[(&str, &str)]) -> Result<AgentConfig, Vec<String>> {
        let path = folder.join("lndserver.toml");
        std::fs::write(&path, text).unwrap();
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let loaded = load(Some(&path), env, &[]);
        loaded.map(|(agent, _)| agent).map_err(|faults| faults.into_iter().map(|fault| fault.key).collect())
    }

    #[test]
    fn an_agent_needs_little() {
        let folder = tempfile::tempdir().unwrap();
        let agent = load_in(folder.path(), WHOLE, &[]).unwrap();
        assert_eq!(agent.address, IpAddr::from([10, 0, 0, 9]));
        assert_eq!(agent.data_dir, folder.path().join("data"));
        assert_eq!((agent.lnd.as_path(), agent.lnd_start), (Path::new("lnd"), LndStart::Child));
        assert!(agent.join_token.is_none(), "the file of a used token may be gone");
        let env = [("SCALE_LND_AGENT_JOIN_TOKEN", "h0.secret"), ("SCALE_LND_AGENTS_LISTEN", "a master's, not ours")];
        let agent = load_in(folder.path(), WHOLE, &env).unwrap();
        assert!(agent.join_token.is_some());
        assert!(!format!("{agent:?}").contains("secret"));
    }

    #[test]
    fn all_faults_at_once() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "").unwrap();
        let text = WHOLE.replace("10.0.0.9", "0.0.0.0").replace("0001", "zz").replace(", \"10.0.0.5:8081\"", ", \"x\"");
        let keys = load_in(folder.path(), &format!("{text}\nport_base = 80\ncolour = 1\nlnd_start = \"fork\""), &[])
            .unwrap_err();
        let all = ["address", "ca_fingerprint", "colour", "join_token_file", "lnd_start", "masters", "port_base"];
        let mut keys: Vec<&str> = keys.iter().filter_map(|key| key.strip_prefix("agent.")).collect();
        keys.sort_unstable();
        assert_eq!(keys, all);
    }
}
