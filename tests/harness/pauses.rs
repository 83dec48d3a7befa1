//! Masters that pause at fault points of their work, so that something can happen meanwhile.

use super::{Deployment, eventually};
use std::path::PathBuf;
use std::time::Duration;

/// How long the work may take that leads to a point: an instance may have to boot first.
const REACHED_WITHIN: Duration = Duration::from_secs(90);

/// Fault points of the masters that are started from now on, at which work pauses.
#[derive(Debug)]
pub struct Pauses(PathBuf);

impl Pauses {
    /// Ends the masters and starts one that pauses at each of `points`, once.
    pub async fn at(d: &mut Deployment, points: &[&str]) -> Self {
        let dir = d.path("faults");
        std::fs::create_dir(&dir).unwrap();
        d.end_masters().await;
        let plan: Vec<String> = points.iter().map(|point| format!("{point}=pause")).collect();
        d.start_master(&[("SCALE_LND_FAULT", &plan.join(",")), ("SCALE_LND_FAULT_DIR", dir.to_str().unwrap())]).await;
        Self(dir)
    }

    pub async fn reached(&self, point: &str) {
        eventually(&format!("{point} is reached"), REACHED_WITHIN, || async {
            self.0.join(format!("{point}.reached")).exists().then_some(())
        })
        .await;
    }

    pub fn go(&self, point: &str) {
        std::fs::write(self.0.join(format!("{point}.go")), b"").unwrap();
    }
}
