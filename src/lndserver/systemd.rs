//! lnds as units of systemd: `scale-lnd-lnd@SLOT.service` (`deploy/host`), each of its slot's own user. The agent has no
//! privilege. It may start and stop these units, by a rule of polkit; it owns a node's folder and lets the slot's group at what
//! the lnd needs; and it points the slot's link to the folder, of which the unit shows its lnd the instance and nothing else.
//!
//! The unit's lnd takes the lock of the folder, as a child does. What runs is asked of systemd, which answers for processes
//! of other users, too, and knows how they ended.

use super::conf::{BACKEND_CERT, LND_CONF, TLS_CERT, TLS_KEY};
use super::config::SLOT_IDS;
use super::files::{self, DataDir, NodeDir};
use super::process::{OUTPUT, Watched};
use super::shared_files::{Access, share, share_dirs};
use super::start::{Found, How, Lnd, Seat, Starter};
use crate::fault;
use crate::model::Network;
use async_trait::async_trait;
use rustix::fs::Gid;
use rustix::process::Pid;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// The unit's name for the program of a release.
const PROGRAM: &str = "program";
const SYSTEMCTL: &str = "/usr/bin/systemctl";
/// What is answered without waiting for an lnd. A machine that boots is slow.
const LONGEST: Duration = Duration::from_secs(90);

/// Starts lnds as units.
#[derive(Debug)]
pub struct Units {
    data: DataDir,
}

/// A unit as systemd describes it.
#[derive(Debug, Default, PartialEq, Eq)]
struct State {
    active: String,
    main_pid: i32,
    /// Of this one start of it.
    invocation: String,
    result: String,
    code: i32,
    status: i32,
}

/// A running lnd's unit.
#[derive(Debug)]
struct Unit {
    name: String,
    invocation: String,
    /// None: it had exited before it was looked at.
    process: Option<Watched>,
}

impl Units {
    /// For nodes in this folder.
    #[must_use]
    pub fn new(data: DataDir) -> Self {
        Self { data }
    }

    fn target(dir: &NodeDir) -> Option<PathBuf> {
        Some(Path::new("../nodes").join(dir.path().file_name()?))
    }

    /// Whether the unit of this slot works in this folder. Only changed while the unit is at rest.
    fn points_to(&self, slot: u16, dir: &NodeDir) -> bool {
        fs::read_link(self.data.slot(slot)).ok().is_some_and(|link| Some(link) == Self::target(dir))
    }

    fn point_to(&self, slot: u16, dir: &NodeDir) -> io::Result<()> {
        if self.points_to(slot, dir) {
            return Ok(());
        }
        let link = self.data.slot(slot);
        let beside = link.with_extension("new");
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        symlink(Self::target(dir).ok_or(io::ErrorKind::InvalidInput)?, &beside)?;
        fs::rename(&beside, &link)?;
        link.parent().map_or(Ok(()), files::sync_dir)
    }

    async fn look(&self, seat: Seat<'_>) -> io::Result<Option<Found>> {
        if let Some(slot) = seat.slot {
            let name = unit_name(slot);
            let state = State::of(&name).await?;
            if !state.is_at_rest() {
                let ours = self.points_to(slot, seat.dir);
                let unit = if ours { Unit::open(name, &state).await? } else { None };
                return Ok(unit.filter(|unit| unit.process.is_some()).map(|unit| Found::Running(Box::new(unit))));
            }
        }
        Ok(seat.dir.try_lock()?.map(Found::Free))
    }
}

/// Lets the slot's group at what its lnd needs, and at nothing else. May be repeated.
fn hand_over(dir: &NodeDir, slot: u16, network: Network) -> io::Result<()> {
    let group = Gid::from_raw(SLOT_IDS + u32::from(slot));
    let instance = dir.instance("");
    fs::OpenOptions::new().create(true).append(true).mode(0o600).open(dir.instance(OUTPUT))?;
    share(dir.path(), "lock", group, Access::Read)?;
    share(dir.path(), "instance", group, Access::Enter)?;
    for folder in [NodeDir::chain(network), NodeDir::logs(network)] {
        share_dirs(&instance, &folder, group)?;
    }
    share(&instance, OUTPUT, group, Access::Write)?;
    for name in [LND_CONF, BACKEND_CERT, TLS_CERT, TLS_KEY] {
        match share(&instance, name, group, Access::Read) {
            // Not every backend has a certificate.
            Err(error) if error.kind() == io::ErrorKind::NotFound && name == BACKEND_CERT => {}
            shared => shared?,
        }
    }
    Ok(())
}

/// Has the unit run this program: one of a release where the node's folder has it under this name, else the host's own, which the
/// unit names. It is the same file under another name, so that nothing is copied; the unit shows it to the lnd.
fn name_program(dir: &NodeDir, how: How<'_>) -> io::Result<()> {
    let (named, beside) = (dir.path().join(PROGRAM), dir.path().join(format!("{PROGRAM}.new")));
    let forget = |path: &Path| match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    forget(&beside)?;
    if how.is_own {
        return forget(&named);
    }
    fs::hard_link(how.program, &beside)?;
    // Where both are the same file already this leaves both.
    fs::rename(&beside, &named)?;
    forget(&beside)
}

#[async_trait]
impl Starter for Units {
    /// The unit hides the agent's folder, and shows the instance in its place.
    fn seen_by_lnd(&self, _dir: &NodeDir) -> NodeDir {
        NodeDir::at(self.data.path().to_owned())
    }

    /// A unit that has just begun, or is about to end, is not to be told apart from others for a moment.
    async fn find(&self, seat: Seat<'_>) -> io::Result<Found> {
        const TRIES: u32 = 20;
        const PAUSE: Duration = Duration::from_millis(100);
        for _ in 0..TRIES {
            if let Some(found) = self.look(seat).await? {
                return Ok(found);
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(Found::Taken)
    }

    /// Killed anywhere here, the next agent finds the unit at rest or running, by its slot.
    async fn start(&self, seat: Seat<'_>, how: How<'_>, lock: File) -> io::Result<Box<dyn Lnd>> {
        let slot = seat.slot.ok_or(io::ErrorKind::InvalidInput)?;
        hand_over(seat.dir, slot, how.network)?;
        name_program(seat.dir, how)?;
        self.point_to(slot, seat.dir)?;
        // The unit takes it.
        drop(lock);
        let name = unit_name(slot);
        systemctl(&["start", &name], Some(LONGEST)).await?;
        fault::point("lndserver.start.forked").await;
        let state = State::of(&name).await?;
        let unit = Unit::open(name, &state).await?;
        unit.map(|unit| Box::new(unit) as Box<dyn Lnd>).ok_or_else(|| io::Error::other("it was started twice"))
    }
}

fn unit_name(slot: u16) -> String {
    format!("scale-lnd-lnd@{slot}.service")
}

impl Unit {
    /// The unit as it was described; `None` if it is another start of it by now. The pidfd comes first: a process that is the
    /// unit's even then is the one.
    async fn open(name: String, seen: &State) -> io::Result<Option<Self>> {
        let pid = if seen.is_at_rest() { None } else { Pid::from_raw(seen.main_pid) };
        let process = pid.and_then(|pid| Watched::open(pid).ok());
        let now = State::of(&name).await?;
        let process = process.filter(|_| now.main_pid == seen.main_pid);
        let same = seen.invocation == now.invocation || now.is_at_rest();
        Ok(same.then(|| Self { name, invocation: seen.invocation.clone(), process }))
    }
}

#[async_trait]
impl Lnd for Unit {
    fn pid(&self) -> u32 {
        self.process.as_ref().map_or(0, Watched::pid)
    }

    /// systemd asks it to exit, and waits as long as the unit says, which is long.
    async fn terminate(&self) -> io::Result<()> {
        systemctl(&["stop", "--no-block", &self.name], Some(LONGEST)).await.map(drop)
    }

    /// And its unit is at rest.
    async fn exited(&self) -> io::Result<Option<String>> {
        if let Some(process) = &self.process {
            process.exited().await?;
        }
        let mut state = State::of(&self.name).await?;
        if !state.is_at_rest() && (state.invocation == self.invocation) {
            // A stop that has nothing left to stop is the way to wait for the end.
            systemctl(&["stop", &self.name], None).await?;
            state = State::of(&self.name).await?;
        }
        Ok(state.end(&self.invocation))
    }
}

impl State {
    async fn of(unit: &str) -> io::Result<Self> {
        let properties = "LoadState,ActiveState,MainPID,InvocationID,Result,ExecMainCode,ExecMainStatus";
        let shown = systemctl(&["show", "--property", properties, unit], Some(LONGEST)).await?;
        Self::parse(&shown).map_err(|what| io::Error::other(format!("{unit}: {what}")))
    }

    fn parse(shown: &str) -> Result<Self, String> {
        let all: HashMap<&str, &str> = shown.lines().filter_map(|line| line.split_once('=')).collect();
        let get = |name: &'static str| all.get(name).copied().ok_or(format!("systemd does not tell its {name}"));
        let number = |name| get(name)?.parse::<i32>().map_err(|_| format!("its {name} is no number"));
        match get("LoadState")? {
            "loaded" => {}
            other => return Err(format!("the unit is {other}")),
        }
        Ok(Self {
            active: get("ActiveState")?.to_owned(),
            main_pid: number("MainPID")?,
            invocation: get("InvocationID")?.to_owned(),
            result: get("Result")?.to_owned(),
            code: number("ExecMainCode")?,
            status: number("ExecMainStatus")?,
        })
    }

    /// Nothing of it runs.
    fn is_at_rest(&self) -> bool {
        matches!(self.active.as_str(), "inactive" | "failed")
    }

    /// How that start of it ended. systemd forgets a unit that ended well.
    fn end(&self, invocation: &str) -> Option<String> {
        if !self.is_at_rest() || (self.invocation != invocation && !self.invocation.is_empty()) {
            return None;
        }
        Some(match (self.result.as_str(), self.code) {
            ("oom-kill", _) => "killed for want of memory".to_owned(),
            ("timeout", _) => "it did not end in time, and may still run".to_owned(),
            // CLD_EXITED, CLD_KILLED, CLD_DUMPED; 0: forgotten.
            (_, 0 | 1) => format!("exit status {}", self.status),
            (_, 2 | 3) => format!("signal {}", self.status),
            _ => return None,
        })
    }
}

/// Runs systemctl and gives what it says.
async fn systemctl(arguments: &[&str], at_most: Option<Duration>) -> io::Result<String> {
    let mut command = Command::new(SYSTEMCTL);
    command.args(["--no-ask-password", "--no-pager"]).args(arguments);
    command.env_clear().stdin(Stdio::null()).kill_on_drop(true);
    let failed = |why: &str| io::Error::other(format!("systemctl {}: {why}", arguments.join(" ")));
    let output = match at_most {
        Some(limit) => tokio::time::timeout(limit, command.output()).await.map_err(|_| failed("no answer"))?,
        None => command.output().await,
    }?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(failed(said.lines().next().unwrap_or_default()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::NodeId;

    fn state(active: &str, invocation: &str, result: &str, code: i32, status: i32) -> State {
        let shown = format!(
            "MainPID=0\nResult={result}\nExecMainCode={code}\nExecMainStatus={status}\nLoadState=loaded\n\
             ActiveState={active}\nInvocationID={invocation}\n"
        );
        State::parse(&shown).unwrap()
    }

    #[test]
    fn how_a_unit_ended_is_told_as_of_a_child() {
        let cases = [
            (state("failed", "a", "exit-code", 1, 3), Some("exit status 3")),
            (state("failed", "a", "signal", 2, 9), Some("signal 9")),
            (state("failed", "a", "oom-kill", 2, 9), Some("killed for want of memory")),
            (state("inactive", "", "success", 0, 0), Some("exit status 0")),
            (state("failed", "b", "signal", 2, 9), None),
            (state("active", "a", "success", 0, 0), None),
        ];
        for (state, end) in cases {
            assert_eq!(state.end("a").as_deref(), end, "{state:?}");
        }
        let refused = State::parse("LoadState=not-found\nActiveState=inactive").unwrap_err();
        assert_eq!(refused, "the unit is not-found");
        State::parse("LoadState=loaded\nActiveState=active\n").unwrap_err();
    }

    #[test]
    fn a_slot_points_to_one_folder() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::open(folder.path()).unwrap();
        let units = Units::new(data.clone());
        let [one, two] = [0, 1].map(|_| data.node(&NodeId::random(&mut rand::rng())));
        assert!(!units.points_to(3, &one));
        for dir in [&one, &two, &two] {
            dir.create().unwrap();
            units.point_to(3, dir).unwrap();
            let seen = fs::canonicalize(data.slot(3)).unwrap();
            assert_eq!(seen, fs::canonicalize(dir.path()).unwrap());
        }
        assert!(units.points_to(3, &two) && !units.points_to(3, &one) && !units.points_to(4, &two));
        assert_eq!(fs::read_dir(folder.path().join("slots")).unwrap().count(), 1);
    }
}
