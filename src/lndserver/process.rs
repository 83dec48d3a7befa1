//! An lnd's process: started in a session of its own, found again by an agent that was not its parent, watched through a
//! pidfd.
//!
//! The lock of the node's folder is the process's standard input, which lnd never reads: it inherits the lock at the
//! moment it comes into being and holds it until it is gone, whatever happens to the agent. So an agent that was killed
//! between the fork and its note of the pid still finds the folder taken, and finds by whom.

use super::conf::LND_CONF;
use super::files::{self, NodeDir};
use super::start::{Found, How, Lnd, Seat, Starter};
use crate::fault;
use async_trait::async_trait;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// lnd's output: what it says before its log is there, and what it dies of.
pub const OUTPUT: &str = "output";
const PID_FILE: &str = "pid";

/// Starts lnds as children of the agent, of its own user.
#[derive(Debug)]
pub struct Children;

#[async_trait]
impl Starter for Children {
    fn seen_by_lnd(&self, dir: &NodeDir) -> NodeDir {
        dir.clone()
    }

    async fn find(&self, seat: Seat<'_>) -> io::Result<Found> {
        find(seat.dir).await
    }

    async fn start(&self, seat: Seat<'_>, how: How<'_>, lock: File) -> io::Result<Box<dyn Lnd>> {
        Ok(Box::new(Child::start(how.program, seat.dir, lock).await?))
    }
}

/// A running lnd, of the agent's user.
#[derive(Debug)]
struct Child {
    process: Watched,
}

impl Child {
    /// Starts `binary` on the folder whose lock is given.
    async fn start(binary: &Path, dir: &NodeDir, lock: File) -> io::Result<Self> {
        let output =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(dir.instance(OUTPUT))?;
        let mut command = Command::new(binary);
        command
            .arg(lnddir_argument(dir))
            .arg(format!("--configfile={}", dir.instance(LND_CONF).display()))
            .env_clear()
            .env("HOME", dir.path())
            .current_dir(dir.path())
            .stdout(Stdio::from(output.try_clone()?))
            .stderr(Stdio::from(output));
        own_session(&mut command);
        command.stdin(Stdio::from(lock));
        let child = command.spawn()?;
        // Closes the agent's copy of the lock.
        drop(command);
        let pid = Pid::from_child(&child);
        fault::point("lndserver.start.forked").await;
        let lnd = Self { process: Watched::open(pid)? };
        // Only a help for whoever looks; the lock is what counts.
        let note = format!("{} {}\n", pid.as_raw_nonzero(), start_time(pid).unwrap_or_default());
        files::write_private(&dir.instance(PID_FILE), note.as_bytes())?;
        Ok(lnd)
    }
}

#[async_trait]
impl Lnd for Child {
    fn pid(&self) -> u32 {
        self.process.pid()
    }

    async fn terminate(&self) -> io::Result<()> {
        match pidfd_send_signal(self.process.pidfd.get_ref(), Signal::TERM) {
            // It has exited.
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Says how, where this agent is the one that started it.
    async fn exited(&self) -> io::Result<Option<String>> {
        self.process.exited().await?;
        let status = waitid(WaitId::PidFd(self.process.pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        Ok(status.ok().flatten().map(|status| match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => format!("exit status {code}"),
            (_, Some(signal)) => format!("signal {signal}"),
            _ => "an unknown end".to_owned(),
        }))
    }
}

/// A process whose exit can be waited for, whoever started it and whoever it runs as.
#[derive(Debug)]
pub struct Watched {
    pid: Pid,
    pidfd: AsyncFd<OwnedFd>,
}

impl Watched {
    /// The process with this id now. Whoever knows something of the process must look again after this: the number may have
    /// become another's before.
    pub fn open(pid: Pid) -> io::Result<Self> {
        let pidfd = watch_fd(pidfd_open(pid, PidfdFlags::NONBLOCK)?)?;
        Ok(Self { pid, pidfd })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Waits until it has exited. May be called again.
    pub async fn exited(&self) -> io::Result<()> {
        self.pidfd.readable().await.map(drop)
    }

    fn has_exited(&self) -> io::Result<bool> {
        let mut fds = [rustix::event::PollFd::new(self.pidfd.get_ref(), rustix::event::PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        Ok(rustix::event::poll(&mut fds, Some(&now))? > 0)
    }
}

#[expect(unsafe_code, reason = "tokio asks for a promise that the file is closed only after it was deregistered")]
fn watch_fd(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the AsyncFd owns the only handle of the pidfd; nothing here replaces or closes it.
    Ok(unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE)? })
}

#[expect(unsafe_code, reason = "std has no safe way to ask for a new session; setsid is async-signal-safe")]
fn own_session(command: &mut Command) {
    let setsid = || rustix::process::setsid().map(drop).map_err(io::Error::from);
    // SAFETY: between fork and exec only a single system call is made; nothing is allocated and no lock is taken.
    unsafe {
        command.pre_exec(setsid);
    }
}

fn lnddir_argument(dir: &NodeDir) -> String {
    format!("--lnddir={}", dir.lnd().display())
}

/// Who is on the folder.
///
/// A lock that is held by nobody who can be found belongs to a child between its fork and its exec (any child: it has
/// copies of all the agent's files until then). That passes, so it is looked at again for a moment.
async fn find(dir: &NodeDir) -> io::Result<Found> {
    const TRIES: u32 = 100;
    const PAUSE: Duration = Duration::from_millis(20);
    for _ in 0..TRIES {
        if let Some(lock) = dir.try_lock()? {
            return Ok(Found::Free(lock));
        }
        if let Some(lnd) = holder(dir)? {
            return Ok(Found::Running(Box::new(lnd)));
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(Found::Taken)
}

/// The lnd that holds the folder's lock: the one in the note, or else any process.
fn holder(dir: &NodeDir) -> io::Result<Option<Child>> {
    if let Some((pid, started)) = noted(dir)
        && start_time(pid) == Some(started)
        && let Some(lnd) = adopt(dir, pid)?
    {
        return Ok(Some(lnd));
    }
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let pid = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid
            && let Some(lnd) = adopt(dir, pid)?
        {
            return Ok(Some(lnd));
        }
    }
    Ok(None)
}

/// `pid`, if it is an lnd of this folder. The pidfd comes first: what is seen afterwards of a process that has not exited
/// even then is about that process and no other.
fn adopt(dir: &NodeDir, pid: Pid) -> io::Result<Option<Child>> {
    if !is_lnd_of(dir, pid) {
        return Ok(None);
    }
    let Ok(process) = Watched::open(pid) else { return Ok(None) };
    let same = is_lnd_of(dir, pid) && !process.has_exited()?;
    Ok(same.then_some(Child { process }))
}

/// Whether the process holds the folder's lock as its standard input and was started as an lnd on it.
fn is_lnd_of(dir: &NodeDir, pid: Pid) -> bool {
    let proc = Path::new("/proc").join(pid.as_raw_nonzero().to_string());
    let Ok(lock) = fs::metadata(dir.lock()) else { return false };
    let Ok(stdin) = fs::metadata(proc.join("fd/0")) else { return false };
    if (lock.dev(), lock.ino()) != (stdin.dev(), stdin.ino()) {
        return false;
    }
    let Ok(arguments) = fs::read(proc.join("cmdline")) else { return false };
    let wanted = lnddir_argument(dir);
    arguments.split(|byte| *byte == 0).any(|argument| argument == wanted.as_bytes())
}

fn noted(dir: &NodeDir) -> Option<(Pid, u64)> {
    let text = fs::read_to_string(dir.instance(PID_FILE)).ok()?;
    let (pid, started) = text.trim().split_once(' ')?;
    Some((Pid::from_raw(pid.parse().ok()?)?, started.parse().ok()?))
}

/// When the process was started, in ticks since boot: field 22 of its stat, counted after the name, which may hold
/// anything.
fn start_time(pid: Pid) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}
