//! What is worth a line in the terminal, out of the logs of the master and the agent.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{sync::mpsc, task::JoinHandle};

const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Follows logs until it is dropped.
#[derive(Debug)]
pub struct LogTail {
    task: JoinHandle<()>,
    lines: mpsc::UnboundedReceiver<String>,
}

impl Drop for LogTail {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl LogTail {
    /// Follows these logs, each with the name of who writes it, from their ends on.
    pub fn start(logs: Vec<(&'static str, PathBuf)>) -> Self {
        let (sender, lines) = mpsc::unbounded_channel();
        let mut followed: Vec<_> = logs.into_iter().map(|(name, path)| Followed::at_end(name, path)).collect();
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(LOOK_EVERY);
            loop {
                ticks.tick().await;
                for line in followed.iter_mut().flat_map(Followed::fresh) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            }
        });
        Self { task, lines }
    }

    /// The next line for the terminal.
    pub async fn next(&mut self) -> Option<String> {
        self.lines.recv().await
    }
}

/// Begins a log of a new run; the last run's is kept beside it.
pub fn rotate(path: &Path) {
    // There is none at the first start, and the log matters less than the start.
    let _ = fs::rename(path, path.with_extension("log.old"));
}

struct Followed {
    name: &'static str,
    path: PathBuf,
    read: u64,
}

impl Followed {
    fn at_end(name: &'static str, path: PathBuf) -> Self {
        let read = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        Self { name, path, read }
    }

    fn fresh(&mut self) -> Vec<String> {
        // A log that cannot be read now is read at the next look.
        let text = self.read_whole_lines().unwrap_or_default();
        text.lines().filter_map(|line| worth_telling(self.name, line)).collect()
    }

    fn read_whole_lines(&mut self) -> io::Result<String> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.read))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        self.read += whole as u64;
        Ok(String::from_utf8_lossy(&bytes[..whole]).into_owned())
    }
}

/// Warnings, errors and API calls that changed something or failed; the time is told by who prints it.
fn worth_telling(name: &str, line: &str) -> Option<String> {
    let (_, rest) = line.split_once(' ')?;
    let (level, text) = rest.trim_start().split_once(' ')?;
    match level {
        "WARN" | "ERROR" => Some(format!("{name}: {level} {text}")),
        _ => call(text),
    }
}

fn call(text: &str) -> Option<String> {
    let field = |name: &str| {
        let (_, value) = text.split_once(&format!(" {name}="))?;
        Some(value.split(' ').next()?.trim_matches('"'))
    };
    let (route, status) = (field("http.route")?, field("http.status")?);
    const CHANGING: [&str; 8] =
        ["create", "delete", "invoice", "pay", "closechannel", "withdraw", "addpeer", "newaddress"];
    let is_worth_it = CHANGING.contains(&route) || !status.starts_with('2');
    is_worth_it.then(|| format!("{route}: {status} after {} ms", field("http.ms").unwrap_or("?")))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const CALL: &str = "2026-11-23T09:32:08.7Z  INFO request{id=3620}: scale_lnd::http::dispatch: http.method=POST \
                        http.route=\"create\" http.status=202 http.ms=1991 key.id=\"227f\"";

    #[test]
    fn trouble_and_changes_are_told_and_the_rest_is_not() {
        assert_eq!(worth_telling("master", CALL).unwrap(), "create: 202 after 1991 ms");
        assert_eq!(worth_telling("master", &CALL.replace("\"create\"", "\"getinfo\"")), None);
        let failed = CALL.replace("\"create\"", "\"getinfo\"").replace("202", "503");
        assert_eq!(worth_telling("master", &failed).unwrap(), "getinfo: 503 after 1991 ms");
        let trouble = "2026-11-23T09:32:21.1Z  WARN scale_lnd::lndserver: reports interrupted";
        assert_eq!(worth_telling("agent", trouble).unwrap(), "agent: WARN scale_lnd::lndserver: reports interrupted");
        assert_eq!(worth_telling("agent", "odd"), None);
    }

    #[test]
    fn a_line_is_told_once_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = File::create(&path).unwrap();
        writeln!(log, "t WARN old").unwrap();
        let mut followed = Followed::at_end("agent", path);
        write!(log, "t WARN n").unwrap();
        assert!(followed.fresh().is_empty());
        writeln!(log, "ew").unwrap();
        assert_eq!(followed.fresh(), ["agent: WARN new"]);
        assert!(followed.fresh().is_empty());
    }
}
