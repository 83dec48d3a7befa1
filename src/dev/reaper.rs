//! Whatever this process starts ends when this process ends, even by `kill -9`.
//!
//! [`Reaper::start`] runs this program again as `scale-lnd __reaper` (see [`supervisor`]); processes are started through
//! it and so live beneath it, together with all they leave behind. When the [`Reaper`] is dropped, or its process dies
//! in any way, the reaper sees the end of its socket, sends SIGTERM to everything beneath it, order by order, waits,
//! and kills what remains. (`PR_SET_PDEATHSIG` would not do: it fires when the forking _thread_ ends.)
//!
//! For `dev` and for tests. In production an agent's lnds outlive it on purpose, and nothing here is used.

mod ending;
mod process;
mod protocol;
mod record;
mod supervisor;

use std::{
    collections::HashMap,
    io,
    os::{fd::OwnedFd, unix::net::UnixStream as StdUnixStream},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

pub use ending::end as end_processes;
pub use process::{ProcessId, with_argument as processes_with_argument};
pub use protocol::{ADOPTED_ORDER, Descendant, Exit, Spawn};
use protocol::{Message, Request};
pub use rustix::process::Signal;
pub use supervisor::{ReaperArgs, run};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    process::{Child, Command},
    sync::{oneshot, watch},
};

/// How a reaper is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// The `scale-lnd` program: `std::env::current_exe()` in `dev`, `CARGO_BIN_EXE_scale-lnd` in tests.
    pub program: PathBuf,
    /// How long the processes of one stop order may take to end before they are killed; zero kills at once.
    pub grace: Duration,
    /// Where the reaper records what it started. A second reaper on the same record first waits until the first has
    /// ended everything, and ends what one that was itself killed has left.
    pub record: Option<PathBuf>,
}

/// What a reaper tells unasked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The processes of a previous run are still being ended.
    WaitingForPreviousRun,
    /// These are told to end now.
    Stopping(Vec<String>),
}

/// The living end of a reaper. Dropping it ends everything beneath, in the background; [`Reaper::stop`] waits for it.
#[derive(Debug)]
pub struct Reaper {
    process: Child,
    requests: tokio::sync::Mutex<OwnedWriteHalf>,
    state: Arc<State>,
    next_id: AtomicU64,
}

/// A process beneath a reaper.
#[derive(Debug, Clone)]
pub struct Spawned {
    pub name: String,
    pub pid: i32,
    exit: watch::Receiver<Option<Exit>>,
}

impl Spawned {
    /// Waits until the process has ended, and tells how.
    pub async fn exited(&mut self) -> Exit {
        match self.exit.wait_for(Option::is_some).await {
            Ok(exit) => (*exit).unwrap_or(Exit::Unknown),
            Err(_) => Exit::Unknown,
        }
    }

    /// How the process ended, if the reaper has already noticed that it did.
    pub fn exit(&self) -> Option<Exit> {
        let exit = *self.exit.borrow();
        exit.or_else(|| self.exit.has_changed().is_err().then_some(Exit::Unknown))
    }
}

impl Reaper {
    /// Starts a reaper and waits until it is ready, which takes as long as a previous run on the same record needs to
    /// end. `notice` is called from a background task.
    pub async fn start(options: &Options, notice: impl Fn(Notice) + Send + 'static) -> io::Result<Self> {
        // Both ends are close-on-exec, so no other child ever holds this end open.
        let (ours, theirs) = StdUnixStream::pair()?;
        let mut command = Command::new(&options.program);
        command.arg("__reaper").arg("--grace-ms").arg(options.grace.as_millis().to_string());
        if let Some(record) = &options.record {
            command.arg("--record").arg(record);
        }
        // Its own process group: Ctrl-C must reach the owner, not the reaper.
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).process_group(0);
        let process = command.spawn()?;
        drop(command); // It holds the other end too.

        ours.set_nonblocking(true)?;
        let (messages, requests) = UnixStream::from_std(ours)?.into_split();
        let state = Arc::new(State::default());
        let (ready, is_ready) = oneshot::channel();
        tokio::spawn(listen(messages, Arc::clone(&state), ready, notice));
        is_ready.await.map_err(|_| io::Error::other("the reaper ended before it was ready"))?;
        Ok(Self { process, requests: tokio::sync::Mutex::new(requests), state, next_id: AtomicU64::new(1) })
    }

    /// Starts a process beneath the reaper.
    pub async fn spawn(&self, spawn: Spawn) -> io::Result<Spawned> {
        let name = spawn.name.clone();
        match self.ask(|id| Request::Spawn { id, spawn }).await? {
            Answer::Spawned(pid, exit) => Ok(Spawned { name, pid, exit }),
            _ => Err(unexpected()),
        }
    }

    /// Sends a signal to a process beneath the reaper, however deep; [`io::ErrorKind::Other`] if there is none.
    pub async fn signal(&self, pid: i32, signal: Signal) -> io::Result<()> {
        let signal = signal.as_raw();
        self.ask(|id| Request::Signal { id, pid, signal }).await.map(drop)
    }

    /// Everything that lives beneath the reaper.
    pub async fn descendants(&self) -> io::Result<Vec<Descendant>> {
        match self.ask(|id| Request::List { id }).await? {
            Answer::Listed(descendants) => Ok(descendants),
            _ => Err(unexpected()),
        }
    }

    /// Asks a process to end, waits for it, and kills it after `grace`.
    pub async fn end(&self, process: &mut Spawned, grace: Duration) -> io::Result<Exit> {
        if let Some(exit) = process.exit() {
            return Ok(exit);
        }
        // A process that has just ended cannot be signalled, which is as good.
        let _ = self.signal(process.pid, Signal::TERM).await;
        let _ = self.signal(process.pid, Signal::CONT).await;
        if let Ok(exit) = tokio::time::timeout(grace, process.exited()).await {
            return Ok(exit);
        }
        let _ = self.signal(process.pid, Signal::KILL).await;
        Ok(process.exited().await)
    }

    /// Ends everything, order by order, and returns when all of it is gone. `grace` replaces that of the options.
    pub async fn stop(mut self, grace: Option<Duration>) -> io::Result<()> {
        // If it cannot be asked it is ending already.
        let _ = send(self.requests.get_mut(), &Request::Stop { grace }).await;
        let status = self.process.wait().await?;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("the reaper failed: {status}"))) }
    }

    /// Waits until the reaper itself has ended, which it does unasked only when it was killed.
    pub async fn gone(&self) {
        let mut gone = self.state.gone.subscribe();
        let _ = gone.wait_for(|gone| *gone).await;
    }

    async fn ask(&self, request: impl FnOnce(u64) -> Request) -> io::Result<Answer> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        if !self.state.expect(id, sender) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        send(&mut *self.requests.lock().await, &request(id)).await?;
        answer.await.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?.map_err(io::Error::other)
    }
}

/// The end of one descendant, seen from outside, for processes that were not started through [`Reaper::spawn`].
pub async fn ended(process: ProcessId) -> io::Result<()> {
    process.ended().await
}

enum Answer {
    Spawned(i32, watch::Receiver<Option<Exit>>),
    Listed(Vec<Descendant>),
    Done,
}

type Waiter = oneshot::Sender<Result<Answer, String>>;

#[derive(Default)]
struct State {
    tables: Mutex<Tables>,
    gone: watch::Sender<bool>,
}

#[derive(Default)]
struct Tables {
    waiters: HashMap<u64, Waiter>,
    exits: HashMap<i32, watch::Sender<Option<Exit>>>,
    closed: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("State").finish_non_exhaustive()
    }
}

impl State {
    fn tables(&self) -> std::sync::MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers who waits for an answer; `false` when none will come any more.
    fn expect(&self, id: u64, waiter: Waiter) -> bool {
        let mut tables = self.tables();
        if !tables.closed {
            tables.waiters.insert(id, waiter);
        }
        !tables.closed
    }

    fn answer(&self, id: u64, answer: Result<Answer, String>) {
        if let Some(waiter) = self.tables().waiters.remove(&id) {
            // Who asked may have stopped waiting.
            let _ = waiter.send(answer);
        }
    }

    fn close(&self) {
        let mut tables = self.tables();
        tables.closed = true;
        // Dropping the senders tells everyone who waits.
        tables.waiters.clear();
        tables.exits.clear();
        drop(tables);
        self.gone.send_replace(true);
    }

    fn take(&self, message: Message) -> Option<Notice> {
        match message {
            Message::Spawned { id, pid } => {
                let (sender, exit) = watch::channel(None);
                self.tables().exits.insert(pid, sender);
                self.answer(id, Ok(Answer::Spawned(pid, exit)));
            }
            Message::Done { id } => self.answer(id, Ok(Answer::Done)),
            Message::Listed { id, descendants } => self.answer(id, Ok(Answer::Listed(descendants))),
            Message::Failed { id, error } => self.answer(id, Err(error)),
            Message::Exited { pid, exit } => {
                if let Some(sender) = self.tables().exits.remove(&pid) {
                    sender.send_replace(Some(exit));
                }
            }
            Message::Waiting => return Some(Notice::WaitingForPreviousRun),
            Message::Stopping { names } => return Some(Notice::Stopping(names)),
            Message::Ready => {}
        }
        None
    }
}

async fn listen(
    messages: OwnedReadHalf,
    state: Arc<State>,
    ready: oneshot::Sender<()>,
    notice: impl Fn(Notice) + Send + 'static,
) {
    let mut ready = Some(ready);
    let mut lines = BufReader::new(messages).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let Ok(message) = serde_json::from_str(&line) else {
            break;
        };
        if matches!(message, Message::Ready)
            && let Some(ready) = ready.take()
        {
            let _ = ready.send(());
        }
        if let Some(told) = state.take(message) {
            notice(told);
        }
    }
    state.close();
}

async fn send(requests: &mut OwnedWriteHalf, request: &Request) -> io::Result<()> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    requests.write_all(&line).await
}

fn unexpected() -> io::Error {
    io::Error::other("the reaper answered something else")
}

impl Options {
    /// Half a minute for each stop order, and no record.
    pub fn new(program: &Path) -> Self {
        Self { program: program.to_owned(), grace: Duration::from_secs(30), record: None }
    }
}
