//! The task of a node: compares what is wanted with what is, and does the next thing.

use super::super::board::NodeStatus;
use super::super::files::NodeDir;
use super::super::record::{Desired, Record};
use super::super::start::{Lnd, Seat};
use super::instance::{self, Started};
use super::wallet::WalletWatch;
use super::{Command, Done, OrderError, Reply, Shared};
use crate::fault;
use crate::model::NodeId;
use crate::model::node::{Process, WalletState};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// An lnd that ran this long has no history of failures any more.
const SETTLED: Duration = Duration::from_secs(60);
/// When it cannot be told whether an lnd runs.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

pub(super) struct Actor {
    pub(super) shared: Arc<Shared>,
    pub(super) node: NodeId,
    pub(super) dir: NodeDir,
    inbox: mpsc::Receiver<Command>,
    pub(super) record: Record,
    pub(super) state: State,
    /// An exit is followed by a start at once: it was asked for.
    pub(super) restarting: bool,
    pub(super) waiters: Vec<(Wanted, Reply)>,
}

pub(super) enum State {
    Down(Down),
    Up(Box<Up>),
}

#[derive(Default)]
pub(super) struct Down {
    /// Why, where nobody asked for it.
    reason: String,
    /// How often in a row.
    failures: u32,
    /// Not started, or looked at again, before.
    pub(super) not_before: Option<Instant>,
    /// Nothing runs that this agent can see, and yet the folder is taken: nobody may be told that it is stopped.
    unsure: bool,
}

pub(super) struct Up {
    lnd: Box<dyn Lnd>,
    since: Instant,
    failures: u32,
    terminating: bool,
    wallet: WalletState,
    watch: WalletWatch,
}

/// What somebody waits for.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Wanted {
    /// It runs and is past WAITING_TO_START, where it refuses every call but those for its state.
    Up,
    /// It has exited.
    Down,
}

enum Event {
    Command(Option<Command>),
    Exited(io::Result<Option<String>>),
    Wallet(WalletState),
    Retry,
}

impl Actor {
    pub(super) fn new(shared: Arc<Shared>, node: NodeId, inbox: mpsc::Receiver<Command>) -> io::Result<Self> {
        let dir = shared.data.node(&node);
        let record = Record::load(&dir)?;
        if let Some(spec) = &record.spec {
            shared.slots.take(spec.slot, &node).map_err(io::Error::other)?;
        }
        let (state, restarting, waiters) = (State::Down(Down::default()), false, Vec::new());
        Ok(Self { shared, node, dir, inbox, record, state, restarting, waiters })
    }

    pub(super) async fn run(mut self) {
        if let Some(spec) = &self.record.spec {
            // What lnd wrote while no agent ran, and whether or not it runs still.
            self.shared.backups.watch(&self.node, self.dir.backup(spec.network));
            self.find_running().await;
        }
        loop {
            self.act().await;
            self.publish();
            self.answer_waiters();
            match self.next_event().await {
                Event::Command(Some(command)) => self.obey(command).await,
                Event::Command(None) => return,
                Event::Exited(how) => self.exited(how),
                Event::Wallet(state) => {
                    if let State::Up(up) = &mut self.state {
                        up.wallet = state;
                    }
                }
                Event::Retry => {}
            }
        }
    }

    async fn next_event(&mut self) -> Event {
        let happens = async {
            match &mut self.state {
                State::Down(down) => match down.not_before {
                    Some(at) if self.record.desired == Desired::Running || down.unsure => {
                        tokio::time::sleep_until(at).await;
                        Event::Retry
                    }
                    _ => std::future::pending().await,
                },
                State::Up(up) => tokio::select! {
                    how = up.lnd.exited() => Event::Exited(how),
                    state = up.watch.next() => Event::Wallet(state),
                },
            }
        };
        tokio::select! {
            command = self.inbox.recv() => Event::Command(command),
            event = happens => event,
        }
    }

    /// An lnd that an agent before this one started, whatever is wanted of it now.
    async fn find_running(&mut self) {
        let slot = self.record.spec.as_ref().map(|spec| spec.slot);
        match instance::running(&self.shared, Seat { dir: &self.dir, slot }).await {
            Ok(Some(lnd)) => {
                tracing::info!(node.id = %self.node, lnd.pid = lnd.pid(), "adopted a running lnd");
                self.up(lnd, 0);
            }
            Ok(None) => self.state = State::Down(Down::default()),
            Err(reason) => self.unsure(reason),
        }
    }

    fn unsure(&mut self, reason: String) {
        tracing::warn!(node.id = %self.node, reason, "cannot tell whether an lnd runs");
        let not_before = Some(Instant::now() + LOOK_AGAIN);
        self.state = State::Down(Down { reason, failures: 0, not_before, unsure: true });
    }

    fn up(&mut self, lnd: Box<dyn Lnd>, failures: u32) {
        let spec = self.record.spec.as_ref();
        if let Some(spec) = spec {
            self.shared.backups.watch(&self.node, self.dir.backup(spec.network));
        }
        let watch = WalletWatch::new(spec.and_then(|spec| instance::client(&self.shared, &self.dir, spec)));
        let (since, terminating, wallet) = (Instant::now(), false, WalletState::Unknown);
        self.state = State::Up(Box::new(Up { lnd, since, failures, terminating, wallet, watch }));
    }

    /// Does the next thing that brings what is closer to what is wanted.
    async fn act(&mut self) {
        let now = Instant::now();
        match (&mut self.state, self.record.desired) {
            (State::Down(down), Desired::Running) if down.not_before.is_none_or(|at| at <= now) => {
                let failures = down.failures;
                self.start(failures).await;
            }
            (State::Down(down), _) if down.unsure && down.not_before.is_none_or(|at| at <= now) => {
                self.find_running().await;
            }
            (State::Up(up), desired) if !up.terminating && (desired != Desired::Running || self.restarting) => {
                fault::point("lndserver.stop.before").await;
                match up.lnd.terminate().await {
                    Ok(()) => up.terminating = true,
                    Err(e) => tracing::error!(node.id = %self.node, error = %e, "cannot ask lnd to exit"),
                }
                fault::point("lndserver.stop.after").await;
            }
            _ => {}
        }
    }

    async fn start(&mut self, failures: u32) {
        let Some(spec) = self.record.spec.clone() else { return };
        self.restarting = false;
        match instance::start(&self.shared, &self.dir, &spec, &mut self.record).await {
            Ok(Started { lnd, adopted }) => {
                tracing::info!(node.id = %self.node, lnd.pid = lnd.pid(), adopted, "lnd runs");
                self.up(lnd, failures);
            }
            Err(reason) => self.failed(reason, failures),
        }
    }

    /// It is down and should not be: tries again after a pause.
    fn failed(&mut self, reason: String, failures: u32) {
        let pause = self.shared.backoff.pause(failures, rand::random());
        tracing::warn!(node.id = %self.node, reason, pause_ms = pause.as_millis(), "lnd does not run; it is started again");
        for (_, reply) in self.waiters.extract_if(.., |(wanted, _)| *wanted == Wanted::Up) {
            let _ = reply.send(Err(OrderError::Failed(reason.clone())));
        }
        let failures = failures.saturating_add(1);
        self.state = State::Down(Down { reason, failures, not_before: Some(Instant::now() + pause), unsure: false });
    }

    fn exited(&mut self, how: io::Result<Option<String>>) {
        let State::Up(up) = std::mem::replace(&mut self.state, State::Down(Down::default())) else { return };
        let asked_for = up.terminating;
        let failures = if up.since.elapsed() >= SETTLED { 0 } else { up.failures };
        drop(up);
        let how = match how {
            Ok(how) => how,
            // Not being able to watch it is not its end.
            Err(e) => return self.unsure(format!("the process cannot be watched: {e}")),
        };
        // What lnd wrote last must be on its way before anybody hears that it is gone.
        self.shared.backups.look(&self.node);
        if asked_for || self.record.desired != Desired::Running {
            tracing::info!(node.id = %self.node, "lnd has exited as asked");
            return;
        }
        let how = how.unwrap_or_else(|| "an unknown end".to_owned());
        let line = self.record.spec.as_ref().and_then(|spec| instance::last_words(&self.shared, &self.dir, spec));
        self.failed(format!("{how}: {}", line.unwrap_or_default()), failures);
    }

    fn status(&self) -> NodeStatus {
        let (process, pid, wallet) = match (&self.state, self.record.desired) {
            (State::Up(up), _) => (Process::Running, Some(up.lnd.pid()), up.wallet),
            (State::Down(down), _) if down.unsure => (Process::Unknown, None, WalletState::Unknown),
            (State::Down(down), Desired::Running) => {
                (Process::Restarting { reason: down.reason.clone() }, None, WalletState::Unknown)
            }
            (State::Down(_), _) => (Process::Stopped, None, WalletState::Unknown),
        };
        NodeStatus { node: self.node.clone(), process, pid, wallet, starts: self.record.starts }
    }

    fn publish(&self) {
        if self.record.spec.is_some() {
            self.shared.board.publish(self.status());
        } else {
            self.shared.board.forget(&self.node);
        }
    }

    fn answer_waiters(&mut self) {
        let reached = match &self.state {
            State::Down(down) if self.record.desired != Desired::Running && !down.unsure => Wanted::Down,
            State::Up(up) if !up.terminating && !self.restarting && takes_calls(up.wallet) => Wanted::Up,
            _ => return,
        };
        if !self.waiters.iter().any(|(wanted, _)| *wanted == reached) {
            return;
        }
        let endpoint = match (&self.record.spec, reached) {
            (Some(spec), Wanted::Up) => instance::endpoint(&self.shared, &self.dir, spec).map(Some),
            _ => Ok(None),
        };
        let answer = endpoint.map(|endpoint| Done { status: self.status(), endpoint });
        for (_, reply) in self.waiters.extract_if(.., |(wanted, _)| *wanted == reached) {
            let _ = reply.send(answer.clone().map_err(OrderError::Failed));
        }
    }
}

fn takes_calls(wallet: WalletState) -> bool {
    !matches!(wallet, WalletState::Unknown | WalletState::WaitingToStart)
}
