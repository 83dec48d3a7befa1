//! Points at which a test kills or pauses a process. They exist only with the feature `fault-points`, which only test
//! builds may have.
//!
//! `SCALE_LND_FAULT=<point>=<action>[,…]` with action `kill` (SIGKILL to this process) or `pause` (create
//! `<dir>/<point>.reached` and go on when `<dir>/<point>.go` exists; `<dir>` is `SCALE_LND_FAULT_DIR`). Every point acts
//! once in a process.

#[cfg(all(feature = "fault-points", not(debug_assertions)))]
compile_error!("the feature fault-points is for test builds only");

/// Says that `point` has been reached.
#[cfg(feature = "fault-points")]
pub async fn point(point: &str) {
    armed::hit(point).await;
}

/// Says that `point` has been reached: nothing in this build.
#[cfg(not(feature = "fault-points"))]
#[inline]
pub async fn point(_point: &str) {}

#[cfg(feature = "fault-points")]
mod armed {
    use std::collections::HashMap;
    use std::path::PathBuf;
    use std::sync::{LazyLock, Mutex};
    use std::time::Duration;

    #[derive(Clone, Copy)]
    enum Action {
        Kill,
        Pause,
    }

    static ARMED: LazyLock<Mutex<HashMap<String, Action>>> = LazyLock::new(|| {
        let plan = std::env::var("SCALE_LND_FAULT").unwrap_or_default();
        let pairs = plan.split(',').filter_map(|p| p.split_once('='));
        Mutex::new(
            pairs
                .filter_map(|(point, action)| match action {
                    "kill" => Some((point.to_owned(), Action::Kill)),
                    "pause" => Some((point.to_owned(), Action::Pause)),
                    _ => None,
                })
                .collect(),
        )
    });

    pub(super) async fn hit(point: &str) {
        let action = ARMED.lock().ok().and_then(|mut armed| armed.remove(point));
        match action {
            None => {}
            Some(Action::Kill) => {
                let pid = rustix::process::getpid();
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            Some(Action::Pause) => pause(point).await,
        }
    }

    async fn pause(point: &str) {
        let dir = PathBuf::from(std::env::var("SCALE_LND_FAULT_DIR").unwrap_or_default());
        let _ = std::fs::write(dir.join(format!("{point}.reached")), b"");
        // The test that waits on the other side is a person with a file; a short poll is the whole protocol.
        while !dir.join(format!("{point}.go")).exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
