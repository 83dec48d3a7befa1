//! The reaper's own process: `scale-lnd __reaper`.
//!
//! It is the child subreaper of everything it starts, so whatever a child leaves behind (an agent's lnds, which live in
//! sessions of their own) becomes its child in turn. Its standard input is one end of a socket pair whose other end
//! only its owner holds, close-on-exec: end of file there means that the owner is gone, however it died.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::File,
    io,
    os::{
        fd::AsFd,
        unix::{
            net::UnixStream as StdUnixStream,
            process::{CommandExt, ExitStatusExt},
        },
    },
    path::PathBuf,
    process::{Command, ExitCode, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Signal, WaitOptions};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    signal::unix::{Signal as SignalStream, SignalKind, signal},
};

use super::{
    ending::end,
    process::{Process, ProcessId, command_line, descendants},
    protocol::{ADOPTED_ORDER, Descendant, Exit, Message, Request, Spawn},
    record::Record,
};

/// How long the processes of one stop order may take to end by themselves, unless told otherwise.
const DEFAULT_GRACE_MS: u64 = 30_000;
/// The hidden subcommand's arguments.
#[derive(Debug, Clone, clap::Args)]
pub struct ReaperArgs {
    /// Milliseconds each stop order has to end before it is killed; 0 kills at once.
    #[arg(long, default_value_t = DEFAULT_GRACE_MS)]
    grace_ms: u64,
    /// A file to lock and to keep a record in, so that the next run can end what this one left.
    #[arg(long)]
    record: Option<PathBuf>,
}

/// Runs the reaper until its owner is gone or asks it to stop, then ends everything beneath it.
///
/// Builds a runtime of its own: call it from `main` before anything else is set up.
pub fn run(args: &ReaperArgs) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.and_then(|runtime| {
        let result = runtime.block_on(supervise(args));
        // Not dropped: that would wait for a thread that may be waiting for the record's lock.
        runtime.shutdown_background();
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not eprintln, which panics when standard error is closed.
            let _ = io::Write::write_fmt(&mut io::stderr(), format_args!("reaper: {error}\n"));
            ExitCode::FAILURE
        }
    }
}

async fn supervise(args: &ReaperArgs) -> io::Result<()> {
    // Signals are caught before the first child exists: a reaper that is asked to end never leaves children.
    let mut children_end = signal(SignalKind::child())?;
    let mut signals = EndSignals::new()?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let socket = StdUnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    socket.set_nonblocking(true)?;
    let (requests, replies) = UnixStream::from_std(socket)?.into_split();
    let mut requests = BufReader::new(requests).lines();

    let mut supervisor =
        Supervisor { replies, children: HashMap::new(), record: None, grace: Duration::from_millis(args.grace_ms) };
    if let Some(path) = &args.record {
        let Some(mut record) = supervisor.lock(path, &mut requests, &mut signals).await? else {
            return Ok(());
        };
        supervisor.end_leftovers(&record).await;
        record.clear()?;
        supervisor.record = Some(record);
    }
    supervisor.say(&Message::Ready).await;
    supervisor.serve(&mut requests, &mut children_end, &mut signals).await;
    supervisor.stop_all().await;
    Ok(())
}

/// The signals that mean: end.
struct EndSignals {
    term: SignalStream,
    int: SignalStream,
    hup: SignalStream,
}

impl EndSignals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
        })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
            _ = self.hup.recv() => {}
        }
    }
}

struct Child {
    name: String,
    stop_order: u32,
}

struct Supervisor {
    replies: OwnedWriteHalf,
    children: HashMap<i32, Child>,
    record: Option<Record>,
    grace: Duration,
}

impl Supervisor {
    /// Takes the record's lock; while another reaper holds it, waits for that, or for the owner to go (`None`).
    async fn lock(
        &mut self,
        path: &std::path::Path,
        requests: &mut Lines<BufReader<OwnedReadHalf>>,
        signals: &mut EndSignals,
    ) -> io::Result<Option<Record>> {
        let record = match Record::try_lock(path)? {
            Some(record) => return Ok(Some(record)),
            None => Record::lock(path.to_owned()),
        };
        self.say(&Message::Waiting).await;
        tokio::select! {
            record = record => record.map(Some),
            // Nothing may be asked before Ready, so any line, like the end of them, is the owner's end.
            _ = requests.next_line() => Ok(None),
            () = signals.any() => Ok(None),
        }
    }

    /// Ends what an earlier reaper, killed itself, left behind, and what descends from it.
    async fn end_leftovers(&mut self, record: &Record) {
        let entries = record.alive();
        let mut left: BTreeMap<u32, Vec<(ProcessId, String)>> = BTreeMap::new();
        for child in entries.iter().flat_map(|entry| descendants(entry.id.pid)).map(|process| process.id) {
            if entries.iter().all(|entry| entry.id != child) {
                left.entry(ADOPTED_ORDER).or_default().push((child, program_name(child.pid)));
            }
        }
        for entry in entries {
            left.entry(entry.stop_order).or_default().push((entry.id, entry.name));
        }
        for processes in left.into_values() {
            let (ids, names): (Vec<_>, _) = processes.into_iter().unzip();
            self.say(&Message::Stopping { names }).await;
            end(&ids, self.grace).await;
        }
    }

    async fn serve(
        &mut self,
        requests: &mut Lines<BufReader<OwnedReadHalf>>,
        children_end: &mut SignalStream,
        signals: &mut EndSignals,
    ) {
        loop {
            tokio::select! {
                line = requests.next_line() => match line {
                    Ok(Some(line)) => match serde_json::from_str(&line) {
                        Ok(Request::Stop { grace }) => {
                            self.grace = grace.unwrap_or(self.grace);
                            return;
                        }
                        Ok(request) => self.answer(request).await,
                        Err(_) => return,
                    },
                    Ok(None) | Err(_) => return,
                },
                _ = children_end.recv() => self.collect().await,
                () = signals.any() => return,
            }
        }
    }

    async fn answer(&mut self, request: Request) {
        let message = match request {
            Request::Spawn { id, spawn } => match self.spawn(&spawn) {
                Ok(pid) => Message::Spawned { id, pid },
                Err(error) => {
                    Message::Failed { id, error: format!("cannot start {}: {error}", spawn.program.display()) }
                }
            },
            Request::Signal { id, pid, signal } => match send_to_descendant(pid, signal) {
                Ok(()) => Message::Done { id },
                Err(error) => Message::Failed { id, error: error.to_string() },
            },
            Request::List { id } => Message::Listed { id, descendants: list() },
            Request::Stop { .. } => return,
        };
        self.say(&message).await;
    }

    fn spawn(&mut self, spawn: &Spawn) -> io::Result<i32> {
        let mut command = Command::new(&spawn.program);
        command.args(&spawn.args).envs(spawn.env.iter().map(|(name, value)| (name, value)));
        // A group of its own: Ctrl-C in the owner's terminal is for the owner, which stops things in order.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        if let Some(dir) = &spawn.dir {
            command.current_dir(dir);
        }
        if let Some(log) = &spawn.log {
            let log = open_log(log)?;
            command.stderr(log.try_clone()?).stdout(log);
        }
        // The std handle is dropped: `collect` waits for all children alike.
        let pid = command.spawn()?.id().cast_signed();
        self.children.insert(pid, Child { name: spawn.name.clone(), stop_order: spawn.stop_order });
        if let (Some(record), Some(id)) = (&mut self.record, ProcessId::of(pid)) {
            record.add(id, spawn.stop_order, &spawn.name)?;
        }
        Ok(pid)
    }

    /// Collects every child that has ended, the adopted ones too.
    async fn collect(&mut self) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let pid = pid.as_raw_nonzero().get();
            if self.children.remove(&pid).is_some() {
                let status = ExitStatus::from_raw(status.as_raw());
                let exit = match (status.code(), status.signal()) {
                    (Some(code), _) => Exit::Code(code),
                    (None, Some(signal)) => Exit::Signal(signal),
                    (None, None) => Exit::Unknown,
                };
                self.say(&Message::Exited { pid, exit }).await;
            }
        }
    }

    async fn stop_all(&mut self) {
        let mut done = None;
        let mut stuck = HashSet::new();
        loop {
            self.collect().await;
            let mut left: Vec<ProcessId> = descendants(own_pid()).into_iter().map(|process| process.id).collect();
            left.retain(|id| !stuck.contains(id));
            let Some(order) = left.iter().map(|id| self.order_of(id.pid)).min() else {
                return;
            };
            left.retain(|id| self.order_of(id.pid) == order);
            self.say(&Message::Stopping { names: left.iter().map(|id| self.name_of(id.pid)).collect() }).await;
            // What appears after its order had its turn gets no second one.
            let grace = if done == Some(order) { Duration::ZERO } else { self.grace };
            if !end(&left, grace).await {
                stuck.extend(left);
            }
            done = Some(order);
        }
    }

    fn order_of(&self, pid: i32) -> u32 {
        self.children.get(&pid).map_or(ADOPTED_ORDER, |child| child.stop_order)
    }

    fn name_of(&self, pid: i32) -> String {
        self.children.get(&pid).map_or_else(|| program_name(pid), |child| child.name.clone())
    }

    /// Tells the owner; that it may be gone is the normal case at the end.
    async fn say(&mut self, message: &Message) {
        if let Ok(mut line) = serde_json::to_vec(message) {
            line.push(b'\n');
            let _ = self.replies.write_all(&line).await;
        }
    }
}

fn send_to_descendant(pid: i32, signal: i32) -> io::Result<()> {
    let signal = Signal::from_named_raw(signal).ok_or(io::ErrorKind::InvalidInput)?;
    let process = descendants(own_pid()).into_iter().find(|process| process.id.pid == pid);
    process.ok_or(io::ErrorKind::NotFound)?.id.signal(signal)
}

fn list() -> Vec<Descendant> {
    let to_entry = |process: Process| Descendant {
        pid: process.id.pid,
        parent: process.parent,
        command: command_line(process.id.pid),
    };
    descendants(own_pid()).into_iter().map(to_entry).collect()
}

/// For messages about what the reaper did not start itself.
fn program_name(pid: i32) -> String {
    let line = command_line(pid);
    let program = line.split(' ').next().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    format!("{program} {pid}")
}

fn own_pid() -> i32 {
    std::process::id().cast_signed()
}

fn open_log(path: &std::path::Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().append(true).create(true).mode(0o600).open(path)
}
