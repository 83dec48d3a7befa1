//! The user data of a machine: what its agent needs to join, as a cloud-config, and nothing else. Whoever reads it, on the
//! machine or in the account, has a token that makes one machine one host, once, for a while.

use serde_json::json;

/// Where the join token goes.
const MARK: &str = "@JOIN_TOKEN@";
/// EC2 takes no more (before base64).
pub const MOST_BYTES: usize = 16 * 1024;
/// The agent's configuration on the machine; the settings of the image come over it by the environment.
pub const CONFIG: &str = "/etc/scale-lnd/lndserver.toml";
/// The join token, named by the configuration.
pub const TOKEN: &str = "/etc/scale-lnd/join-token";

/// The user data with a mark where the join token goes. JSON is YAML, so this is a cloud-config in which everything is
/// escaped rightly.
#[must_use]
pub fn template(masters: &[String], ca_fingerprint: &str) -> String {
    let config = format!(
        "[agent]\nmasters = {masters:?}\nca_fingerprint = \"{ca_fingerprint}\"\njoin_token_file = \"join-token\"\n"
    );
    let file = |path: &str, content: &str| json!({ "path": path, "permissions": "0600", "content": content });
    let cloud_config = json!({ "write_files": [file(CONFIG, &config), file(TOKEN, MARK)] });
    format!("#cloud-config\n{cloud_config:#}\n")
}

/// The user data of one machine.
#[must_use]
pub fn with_token(template: &str, join_token: &str) -> String {
    template.replace(MARK, join_token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_what_joining_needs() {
        let masters: Vec<String> = (0..50).map(|n| format!("master-{n}.example.com:8081")).collect();
        let whole = with_token(&template(&masters, &"ab".repeat(32)), &format!("h{:024}.{:064}", 1, 2));
        assert!(whole.len() < MOST_BYTES, "{}", whole.len());
        let cloud_config = whole.strip_prefix("#cloud-config\n").unwrap();
        let read: serde_json::Value = serde_json::from_str(cloud_config).unwrap();
        let files = read["write_files"].as_array().unwrap();
        let content = |path: &str| files.iter().find(|file| file["path"] == path).unwrap()["content"].as_str().unwrap();
        assert_eq!(content(TOKEN), format!("h{:024}.{:064}", 1, 2));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lndserver.toml");
        std::fs::write(&path, content(CONFIG)).unwrap();
        crate::files::write_private(&folder.path().join("join-token"), content(TOKEN).as_bytes()).unwrap();
        let env = [("SCALE_LND_AGENT_DATA_DIR".to_owned(), "/var/lib/scale-lnd".to_owned())];
        let (agent, _) = crate::config::agent::load(Some(&path), env, &[]).unwrap();
        assert_eq!(agent.masters, masters);
        assert!(agent.join_token.is_some());
    }
}
