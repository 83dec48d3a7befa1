//! The operator's commands of this program (`scale-lnd app`, `key`, `host`), run as an operator would.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::Command;

use super::error::DevError;

/// This program with the configuration of the local master.
#[derive(Debug, Clone)]
pub struct Tool {
    pub program: PathBuf,
    pub config: PathBuf,
}

impl Tool {
    /// Runs a command to its end and returns what it printed.
    pub async fn run(&self, args: &[&str]) -> Result<String, DevError> {
        let mut command = Command::new(&self.program);
        command.args(args).arg("--config").arg(&self.config).stdin(Stdio::null()).kill_on_drop(true);
        // Its own group: Ctrl-C is for us, and we wait for it or drop it.
        let output = command.process_group(0).output().await.map_err(DevError::file("run", &self.program))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(DevError::Unusable(format!("`scale-lnd {}`: {reason}", args.join(" "))))
    }

    /// Runs a command with `--json` and reads what it printed.
    pub async fn json(&self, args: &[&str]) -> Result<serde_json::Value, DevError> {
        let text = self.run(&[args, &["--json"]].concat()).await?;
        serde_json::from_str(&text)
            .map_err(|error| DevError::Unusable(format!("`scale-lnd {}` printed no JSON: {error}", args.join(" "))))
    }
}

/// This very program, also after it was built anew while it runs.
pub fn own_program() -> Result<PathBuf, DevError> {
    std::env::current_exe().map_err(DevError::io("find this program")).map(|path| {
        let text = path.to_string_lossy();
        text.strip_suffix(" (deleted)").map_or_else(|| path.clone(), |kept| Path::new(kept).to_owned())
    })
}
