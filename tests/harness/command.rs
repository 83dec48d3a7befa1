//! Commands that are to end by themselves: beneath a reaper, so that none outlives the tests, and with a deadline.

use super::RUNTIME;
use super::world::program;
use scale_lnd::dev::reaper::{Exit, Options, Reaper, Signal, Spawn};
use std::future::Future;
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio::time::timeout;

/// How long a command may take: one tells the whole story of `make demo`.
const LIMIT: Duration = Duration::from_secs(180);
/// Keeps the two outputs apart: a reaper's log has both.
const APART: &str = r#"out="$1" err="$2"; shift 2; exec "$@" >"$out" 2>"$err""#;

static REAPER: OnceCell<Reaper> = OnceCell::const_new();

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Done {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// Runs a command to its end. `None` as a value takes the variable away.
pub async fn run(command: &[&str], env: &[(&str, Option<&str>)]) -> Done {
    let reaper = REAPER.get_or_init(|| async {
        let options = Options { grace: Duration::ZERO, ..Options::new(&program()) };
        Reaper::start(&options, |_| {}).await.unwrap()
    });
    let reaper = reaper.await;
    let dir = tempfile::tempdir().unwrap();
    let [out, err] = ["out", "err"].map(|name| dir.path().join(name));
    let mut spawn = Spawn::new("command", "/bin/sh").arg("-c").arg(APART).arg("sh");
    spawn = spawn.arg(out.to_str().unwrap()).arg(err.to_str().unwrap()).arg("env");
    for (name, value) in env {
        spawn = match value {
            Some(value) => spawn.env(*name, *value),
            None => spawn.arg("-u").arg(*name),
        };
    }
    spawn = command.iter().fold(spawn, |spawn, part| spawn.arg(*part));
    let mut process = reaper.spawn(spawn).await.unwrap();
    let Ok(exit) = timeout(LIMIT, process.exited()).await else {
        let _just_ended = reaper.signal(process.pid, Signal::KILL).await;
        panic!("{command:?} did not end within {LIMIT:?}");
    };
    let code = match exit {
        Exit::Code(code) => Some(code),
        _ => None,
    };
    let [out, err] = [out, err].map(|path| std::fs::read_to_string(path).unwrap());
    Done { code, out, err }
}

/// Waits for something on the runtime that all tests share, from a test that is async itself or is not.
pub fn wait<T: Send>(work: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| RUNTIME.block_on(work));
        waiting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
