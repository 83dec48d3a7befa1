//! The user data of a machine: a cloud-config. Whoever reads it, on the machine or in the account, has a token that makes one
//! machine one host, once, for a while; nothing else in it is worth stealing.
//!
//! The first two files are what an agent needs to join. What makes a bare Amazon Linux 2023 or Debian 12 a host comes after
//! them, if `[compute]` names programs to load: scripts and units (`deploy/host`) that are the same for all, and what is
//! configured in files of its own beside them. Without it the image has all that.

use super::firewall;
use crate::model::provision::{LndLimits, Program, Provision};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use std::io::{Read, Write};

/// Where the join token goes. No value of the configuration can hold it.
const MARK: &str = "@JOIN_TOKEN@";
/// EC2 takes no more (before base64).
pub const MOST_BYTES: usize = 16 * 1024;
/// No join token is longer.
const TOKEN_BYTES: usize = 128;
/// The agent's configuration on the machine; the settings of the image come over it by the environment.
pub const CONFIG: &str = "/etc/scale-lnd/lndserver.toml";
/// The join token, named by the configuration.
pub const TOKEN: &str = "/etc/scale-lnd/join-token";
/// The programs to load, one a line: name, machine, SHA-256, URL.
pub const PROGRAMS: &str = "/etc/scale-lnd/programs";
/// How many slots the machine has, each with a user of its own.
pub const SLOTS: &str = "/etc/scale-lnd/slots";
/// What the configuration says of lnds' units.
pub const LIMITS: &str = "/etc/systemd/system/scale-lnd-lnd@.service.d/limits.conf";
/// What makes the machine a host.
pub const BOOT: &str = "/usr/local/lib/scale-lnd/boot";
/// The agent's unit.
pub const UNIT: &str = "/etc/systemd/system/scale-lnd.service";

/// cloud-init's name for gzip in base64.
const ENCODING: &str = "gz+b64";

const BOOT_SH: &str = include_str!("../../deploy/host/boot.sh");
const UNITS: [(&str, &str); 3] = [
    (UNIT, include_str!("../../deploy/host/scale-lnd.service")),
    ("/etc/systemd/system/scale-lnd-boot.service", include_str!("../../deploy/host/scale-lnd-boot.service")),
    ("/etc/systemd/system/scale-lnd-lnd@.service", include_str!("../../deploy/host/scale-lnd-lnd@.service")),
];
const POLKIT: (&str, &str) =
    ("/etc/polkit-1/rules.d/50-scale-lnd.rules", include_str!("../../deploy/host/polkit.rules"));

/// What an agent has to know to join, and to judge what it is told later.
#[derive(Debug, Clone, Copy)]
pub struct Joining<'a> {
    /// Where masters are, as the configuration lets them through.
    pub masters: &'a [String],
    /// By what they are recognised.
    pub ca_fingerprint: &'a str,
    /// Whose releases it believes.
    pub releases: Option<Believed<'a>>,
}

/// Whose releases a host believes from its first moment on.
#[derive(Debug, Clone, Copy)]
pub struct Believed<'a> {
    /// The keys, as minisign writes them.
    pub keys: &'a [String],
    /// The deployment that releases must be for.
    pub deployment: &'a str,
    /// The lowest serial.
    pub lowest: u64,
}

/// The user data with a mark where the join token goes. JSON is YAML, so this is a cloud-config in which everything is escaped rightly.
#[must_use]
pub fn template(joining: &Joining<'_>, provision: Option<&Provision>) -> String {
    let Joining { masters, ca_fingerprint, releases } = joining;
    let mut config = format!(
        "[agent]\nmasters = {masters:?}\nca_fingerprint = \"{ca_fingerprint}\"\njoin_token_file = \"join-token\"\n"
    );
    if let Some(Believed { keys, deployment, lowest }) = releases {
        config += &format!("release_keys = {keys:?}\nrelease_deployment = {deployment:?}\nlowest_release = {lowest}\n");
    }
    let mut files = vec![file(CONFIG, "0600", &config), file(TOKEN, "0600", MARK)];
    let mut cloud_config = json!({});
    if let Some(provision) = provision {
        files.extend(boot(provision));
        cloud_config["runcmd"] = json!([
            ["systemctl", "daemon-reload"],
            ["systemctl", "enable", "--now", "--no-block", "scale-lnd.service"]
        ]);
    }
    cloud_config["write_files"] = files.into();
    format!("#cloud-config\n{cloud_config:#}\n")
}

fn file(path: &str, permissions: &str, content: &str) -> Value {
    json!({ "path": path, "permissions": permissions, "content": content })
}

/// A file that is the same for all, without its comments, and compressed: there is little room.
fn packed(path: &str, permissions: &str, text: &str) -> Value {
    let content = BASE64_STANDARD.encode(gzip(without_comments(text).as_bytes()));
    json!({ "path": path, "permissions": permissions, "encoding": ENCODING, "content": content })
}

#[expect(clippy::expect_used, reason = "a Vec takes everything")]
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("written to memory")
}

/// What cloud-init writes for an entry of `write_files`: the way back from all that is done to a file here.
///
/// # Errors
/// It is no entry that [`template`] makes.
pub fn unpacked(file: &Value) -> Result<String, &'static str> {
    let content = file["content"].as_str().ok_or("has no content")?;
    match file.get("encoding") {
        None => Ok(content.to_owned()),
        Some(encoding) if *encoding == ENCODING => {
            let bytes = BASE64_STANDARD.decode(content).map_err(|_| "is no base64")?;
            let mut text = String::new();
            GzDecoder::new(bytes.as_slice()).read_to_string(&mut text).map_err(|_| "is no gzip of a text")?;
            Ok(text)
        }
        Some(_) => Err("has another encoding"),
    }
}

/// What makes a bare machine a host.
fn boot(provision: &Provision) -> Vec<Value> {
    let line = |program: &Program| {
        format!("{} {} {} {}\n", program.name.file(), program.arch.machine(), program.sha256, program.url)
    };
    let mut files = vec![
        file(PROGRAMS, "0644", &provision.programs.iter().map(line).collect::<String>()),
        file(firewall::PATH, "0644", &firewall::rules(provision)),
        file(SLOTS, "0644", &format!("{}\n", provision.peer_ports.len())),
        packed(BOOT, "0755", BOOT_SH),
    ];
    let same = UNITS.into_iter().chain([POLKIT]);
    files.extend(same.map(|(path, text)| packed(path, "0644", text)));
    files.extend(limits(provision.limits).map(|text| file(LIMITS, "0644", &text)));
    files
}

/// What is over the unit's own limits. Past nine tenths of its memory an lnd is slowed down before it is killed.
fn limits(limits: LndLimits) -> Option<String> {
    let memory = limits.memory_mib.map(|mib| format!("MemoryHigh={}M\nMemoryMax={mib}M\n", mib / 10 * 9));
    let cpu = limits.cpu_percent.map(|percent| format!("CPUQuota={percent}%\n"));
    let lines: String = memory.into_iter().chain(cpu).collect();
    (!lines.is_empty()).then(|| format!("[Service]\n{lines}"))
}

/// Without lines that are comments or empty, but for the first of a script.
fn without_comments(text: &str) -> String {
    let is_comment = |line: &str| line.starts_with('#') || line.starts_with("//");
    let keeps = |line: &&str| line.starts_with("#!") || !(line.is_empty() || is_comment(line.trim_start()));
    text.lines().filter(keeps).flat_map(|line| [line, "\n"]).collect()
}

/// The user data of one machine.
#[must_use]
pub fn with_token(template: &str, join_token: &str) -> String {
    template.replace(MARK, join_token)
}

/// Whether EC2 takes it once the token is in it.
#[must_use]
pub fn fits(template: &str) -> bool {
    template.len() + TOKEN_BYTES <= MOST_BYTES
}

#[cfg(test)]
#[path = "user_data_tests.rs"]
mod tests;
