//! What an lnd says of itself. One that does not answer is none to run.

use std::io;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

const LONGEST: Duration = Duration::from_secs(10);
/// A program that was written a moment ago may be open for writing in a child that is just being started, and then cannot be
/// run (`ETXTBSY`) until that has become what it is to be.
const BUSY_TRIES: u32 = 50;
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// All that follows `version` in the answer to `--version`, such as `0.21.2-beta commit=v0.21.2-beta`.
pub(super) async fn of(lnd: &Path) -> io::Result<String> {
    let bad = |what: &str| io::Error::other(format!("{} is no lnd that can be run: {what}", lnd.display()));
    let asked = tokio::time::timeout(LONGEST, ask(lnd)).await.map_err(|_| bad("no answer"))?;
    let output = asked.map_err(|error| bad(&error.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let told = text.split_once("version ").map(|(_, told)| told.lines().next().unwrap_or_default().trim());
    told.filter(|told| !told.is_empty()).map(str::to_owned).ok_or_else(|| bad("no version"))
}

async fn ask(lnd: &Path) -> io::Result<Output> {
    let mut tries = 0;
    loop {
        let mut command = tokio::process::Command::new(lnd);
        command.arg("--version").env_clear().stdin(Stdio::null()).kill_on_drop(true);
        match command.output().await {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && tries < BUSY_TRIES => tries += 1,
            answer => return answer,
        }
        tokio::time::sleep(BUSY_PAUSE).await;
    }
}
