//! The master and the agent as processes of the local system: started, and started again when they die.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{
    error::DevError,
    files::log_end,
    reaper::{Exit, Reaper, Spawn, Spawned},
};

/// A process that is to run as long as the system does.
#[derive(Debug)]
pub struct Service {
    spawn: Spawn,
    process: Spawned,
}

impl Service {
    pub async fn start(reaper: &Reaper, spawn: Spawn) -> Result<Self, DevError> {
        let process = start(reaper, &spawn).await?;
        Ok(Self { spawn, process })
    }

    pub async fn start_again(&mut self, reaper: &Reaper) -> Result<(), DevError> {
        self.process = start(reaper, &self.spawn).await?;
        Ok(())
    }

    pub async fn exited(&mut self) -> Exit {
        self.process.exited().await
    }

    /// The error that its end is to somebody who needs it.
    pub fn ended(&self, exit: Exit) -> DevError {
        let log = self.spawn.log.clone().unwrap_or_default();
        DevError::Ended { name: self.spawn.name.clone(), exit, log: log_end(&log) }
    }
}

async fn start(reaper: &Reaper, spawn: &Spawn) -> Result<Spawned, DevError> {
    reaper.spawn(spawn.clone()).await.map_err(DevError::io(format!("start the {}", spawn.name)))
}

/// Bounds how often things are started again, so that what cannot run does not die for ever.
#[derive(Debug, Default)]
pub struct Restarts(VecDeque<Instant>);

impl Restarts {
    const WITHIN: Duration = Duration::from_secs(60);
    const MOST: usize = 10;

    /// Notes a death; `false` when there were too many lately.
    pub fn may_go_on(&mut self, now: Instant) -> bool {
        self.0.retain(|death| now.saturating_duration_since(*death) < Self::WITHIN);
        self.0.push_back(now);
        self.0.len() <= Self::MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deaths_long_ago_do_not_count() {
        let (mut restarts, start) = (Restarts::default(), Instant::now());
        assert!((0..10).all(|_| restarts.may_go_on(start)));
        assert!(!restarts.may_go_on(start + Duration::from_secs(59)));
        assert!(restarts.may_go_on(start + Duration::from_secs(61)));
    }
}
