//! The user data of a machine: a cloud-config. Whoever reads it, on the machine or in the account, has a token that makes one
//! machine one host, once, for a while; nothing else in it is worth stealing.
//!
//! The first two files are what an agent needs to join. What makes a bare Amazon Linux 2023 or Debian 12 a host comes after
//! them, if `[compute]` names programs to load: scripts and units (`deploy/host`) that are the same for all, and what is
//! configured in files of its own beside them. Without it the image has all that.

use super::firewall;
use crate::model::provision::{Program, Provision};
use serde_json::{Value, json};

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
/// What makes the machine a host.
pub const BOOT: &str = "/usr/local/lib/scale-lnd/boot";
/// The agent's unit.
pub const UNIT: &str = "/etc/systemd/system/scale-lnd.service";

const BOOT_SH: &str = include_str!("../../deploy/host/boot.sh");
const UNITS: [(&str, &str); 3] = [
    (UNIT, include_str!("../../deploy/host/scale-lnd.service")),
    ("/etc/systemd/system/scale-lnd-boot.service", include_str!("../../deploy/host/scale-lnd-boot.service")),
    ("/etc/systemd/system/scale-lnd-lnds.service", include_str!("../../deploy/host/scale-lnd-lnds.service")),
];

/// The user data with a mark where the join token goes. `masters` are hosts with ports, as the configuration lets them
/// through. JSON is YAML, so this is a cloud-config in which everything is escaped rightly.
#[must_use]
pub fn template(masters: &[String], ca_fingerprint: &str, provision: Option<&Provision>) -> String {
    let config = format!(
        "[agent]\nmasters = {masters:?}\nca_fingerprint = \"{ca_fingerprint}\"\njoin_token_file = \"join-token\"\n"
    );
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

/// What makes a bare machine a host.
fn boot(provision: &Provision) -> Vec<Value> {
    let line = |program: &Program| {
        format!("{} {} {} {}\n", program.name.file(), program.arch.machine(), program.sha256, program.url)
    };
    let mut files = vec![
        file(PROGRAMS, "0644", &provision.programs.iter().map(line).collect::<String>()),
        file(firewall::PATH, "0644", &firewall::rules(provision)),
        file(BOOT, "0755", &without_comments(BOOT_SH)),
    ];
    files.extend(UNITS.map(|(path, unit)| file(path, "0644", &without_comments(unit))));
    files
}

/// Without lines that are comments or empty, but for the first of a script: there is little room.
fn without_comments(text: &str) -> String {
    let keeps = |line: &&str| line.starts_with("#!") || !(line.is_empty() || line.trim_start().starts_with('#'));
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
