//! Ending processes: asked first, killed if they do not go.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, timeout_at};

use super::process::ProcessId;

/// How long a killed process may take to disappear before the reaper gives up on it (stuck in the kernel).
const KILL_WAIT: Duration = Duration::from_secs(5);

/// SIGTERM to all, SIGKILL to those that are still there after `grace`; `false` if even that did not end them.
///
/// SIGCONT goes with the SIGTERM: a stopped process (a test's SIGSTOP) would never see it.
pub async fn end(ids: &[ProcessId], grace: Duration) -> bool {
    if !grace.is_zero() {
        signal_all(ids, Signal::TERM);
        signal_all(ids, Signal::CONT);
        if all_ended(ids, grace).await {
            return true;
        }
    }
    signal_all(ids, Signal::KILL);
    all_ended(ids, KILL_WAIT).await
}

fn signal_all(ids: &[ProcessId], signal: Signal) {
    for id in ids {
        // Nothing better can be done about one that cannot be signalled than to go on with the others.
        let _ = id.signal(signal);
    }
}

async fn all_ended(ids: &[ProcessId], within: Duration) -> bool {
    let deadline = Instant::now() + within;
    for id in ids {
        if !matches!(timeout_at(deadline, id.ended()).await, Ok(Ok(()))) {
            return false;
        }
    }
    true
}
