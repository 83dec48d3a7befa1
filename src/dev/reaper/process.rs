//! Processes as `/proc` shows them: who descends from whom, and signals that cannot hit a stranger.

use std::{collections::HashMap, fs, io};

use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::unix::AsyncFd;

/// A process, told apart from a later one with the same pid by its start time (clock ticks since boot).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProcessId {
    pub pid: i32,
    pub start_ticks: u64,
}

/// One line of the process table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    pub id: ProcessId,
    pub parent: i32,
    /// Has ended, with all its threads, and only waits for its parent to notice.
    pub zombie: bool,
}

impl Process {
    /// Reads one process; `None` when there is none with this pid.
    pub fn read(pid: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Parses `/proc/<pid>/stat`. The second field, the name, may hold blanks and brackets, so what follows is counted
    /// from the last closing bracket.
    fn parse(stat: &str) -> Option<Self> {
        let pid = stat.split_once(' ')?.0.parse().ok()?;
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        // The state is the first thread's, which may be over while others still hold the process's files and locks.
        let threads: u32 = fields.get(17)?.parse().ok()?;
        Some(Self {
            id: ProcessId { pid, start_ticks: fields.get(19)?.parse().ok()? },
            parent: fields.get(1)?.parse().ok()?,
            zombie: matches!(*fields.first()?, "Z" | "X") && threads <= 1,
        })
    }
}

impl ProcessId {
    /// The process that now has this pid, if any.
    pub fn of(pid: i32) -> Option<Self> {
        Process::read(pid).map(|process| process.id)
    }

    /// Whether this very process still runs (a zombie does not).
    pub fn is_alive(self) -> bool {
        Process::read(self.pid).is_some_and(|process| process.id == self && !process.zombie)
    }

    /// Sends a signal to this very process: the pidfd is opened first and the start time compared afterwards, so that a
    /// pid that was given to another process in between is never hit. A process that is gone is no error.
    pub fn signal(self, signal: Signal) -> io::Result<()> {
        let Some(handle) = self.open()? else {
            return Ok(());
        };
        match rustix::process::pidfd_send_signal(&handle, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until this process has ended, whoever its parent is. Errors come from pidfds only (Linux before 5.3).
    #[expect(
        deprecated,
        reason = "`register` is unsafe; an OwnedFd, which nobody else closes, is what makes `new` sound"
    )]
    pub async fn ended(self) -> io::Result<()> {
        if let Some(handle) = self.open()? {
            let _end = AsyncFd::new(handle)?.readable().await?;
        }
        Ok(())
    }

    fn open(self) -> io::Result<Option<rustix::fd::OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return Ok(None);
        };
        match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => Ok((Self::of(self.pid) == Some(self)).then_some(handle)),
            Err(rustix::io::Errno::SRCH) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// All living processes that descend from `ancestor`, itself and zombies excluded.
pub fn descendants(ancestor: i32) -> Vec<Process> {
    below(ancestor, &all())
}

/// All processes that were started with an argument of this kind. Those of other users may be invisible.
pub fn with_argument(is_of_kind: impl Fn(&str) -> bool) -> Vec<ProcessId> {
    let fits = |process: &Process| arguments(process.id.pid).iter().any(|argument| is_of_kind(argument));
    all().into_iter().filter(|process| !process.zombie && fits(process)).map(|process| process.id).collect()
}

/// The command line of a process as one string, for messages.
pub fn command_line(pid: i32) -> String {
    arguments(pid).join(" ")
}

fn arguments(pid: i32) -> Vec<String> {
    let raw = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = raw.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

fn all() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter_map(Process::read).collect()
}

fn below(ancestor: i32, table: &[Process]) -> Vec<Process> {
    let mut children: HashMap<i32, Vec<&Process>> = HashMap::new();
    for process in table {
        children.entry(process.parent).or_default().push(process);
    }
    let mut found = Vec::new();
    let mut parents = vec![ancestor];
    while let Some(parent) = parents.pop() {
        // Removing makes the walk end even if the table, which is no snapshot, shows a circle.
        for process in children.remove(&parent).unwrap_or_default() {
            parents.push(process.id.pid);
            if !process.zombie {
                found.push(*process);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: i32, zombie: bool) -> Process {
        Process { id: ProcessId { pid, start_ticks: 1 }, parent, zombie }
    }

    #[test]
    fn a_name_with_brackets_and_blanks_does_not_shift_the_fields() {
        let stat = "42 (a) b (c) S 7 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 1 1";
        assert_eq!(
            Process::parse(stat),
            Some(Process { id: ProcessId { pid: 42, start_ticks: 987_654 }, parent: 7, zombie: false })
        );
        assert_eq!(Process::parse("42 (a) S"), None);
    }

    #[test]
    fn a_process_whose_first_thread_only_is_over_is_no_zombie() {
        let stat = |threads| format!("42 (lnd) Z 7 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 {threads} 0 987654 1 1");
        assert!(Process::parse(&stat(1)).unwrap().zombie);
        assert!(!Process::parse(&stat(8)).unwrap().zombie);
    }

    #[test]
    fn descendants_are_found_through_zombies_and_strangers_are_not() {
        let table = [
            process(10, 1, false),
            process(11, 10, true),
            process(12, 11, false),
            process(20, 1, false),
            process(21, 20, false),
        ];
        let mut pids: Vec<_> = below(10, &table).iter().map(|found| found.id.pid).collect();
        pids.sort_unstable();
        assert_eq!(pids, [12]);
    }

    #[test]
    fn a_circle_in_the_table_ends() {
        assert_eq!(below(1, &[process(2, 1, false), process(3, 2, false), process(1, 3, false)]).len(), 3);
    }

    #[test]
    fn a_reused_pid_is_not_the_same_process() {
        let me = ProcessId::of(std::process::id().cast_signed()).unwrap();
        assert!(me.is_alive());
        assert!(!ProcessId { start_ticks: me.start_ticks + 1, ..me }.is_alive());
    }
}
