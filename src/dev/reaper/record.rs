//! What a reaper started, on disk: the next run ends what a killed reaper left, and waits for one that still works.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

use super::process::ProcessId;
use crate::files;

/// A locked file with a line for every process that was started. The lock lasts as long as the value.
#[derive(Debug)]
pub(super) struct Record {
    file: File,
    boot_id: String,
    entries: Vec<Entry>,
}

/// One recorded process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub id: ProcessId,
    pub stop_order: u32,
    pub name: String,
}

impl Record {
    /// Opens and locks the file and reads what the last holder wrote; `None` if someone holds the lock.
    pub fn try_lock(path: &Path) -> io::Result<Option<Self>> {
        files::try_lock(path)?.map(Self::read).transpose()
    }

    /// As [`Self::try_lock`], but waits for the lock.
    pub async fn lock(path: PathBuf) -> io::Result<Self> {
        let wait = move || Self::read(files::lock(&path)?);
        tokio::task::spawn_blocking(wait).await.map_err(io::Error::other)?
    }

    fn read(mut file: File) -> io::Result<Self> {
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
        let entries = text.lines().filter_map(|line| parse(line, &boot_id)).collect();
        Ok(Self { file, boot_id, entries })
    }

    /// The recorded processes that still run.
    pub fn alive(&self) -> Vec<Entry> {
        self.entries.iter().filter(|entry| entry.id.is_alive()).cloned().collect()
    }

    /// Forgets all entries.
    pub fn clear(&mut self) -> io::Result<()> {
        self.entries.clear();
        self.file.set_len(0)?;
        self.file.rewind()
    }

    /// Notes a process that was just started.
    pub fn add(&mut self, id: ProcessId, stop_order: u32, name: &str) -> io::Result<()> {
        let Self { file, boot_id, .. } = self;
        // One write, so that a kill leaves a whole line or none; `parse` passes over a torn one.
        file.write_all(format!("{boot_id} {} {} {stop_order} {name}\n", id.pid, id.start_ticks).as_bytes())
    }
}

fn parse(line: &str, boot_id: &str) -> Option<Entry> {
    let mut words = line.split(' ');
    // Pids and start times of another boot mean nothing.
    if words.next()? != boot_id {
        return None;
    }
    let id = ProcessId { pid: words.next()?.parse().ok()?, start_ticks: words.next()?.parse().ok()? };
    Some(Entry { id, stop_order: words.next()?.parse().ok()?, name: words.next()?.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_another_boot_and_torn_lines_are_passed_over() {
        let entry = Entry { id: ProcessId { pid: 7, start_ticks: 99 }, stop_order: 90, name: "btcd".to_owned() };
        assert_eq!(parse("here 7 99 90 btcd", "here"), Some(entry));
        assert_eq!(parse("there 7 99 90 btcd", "here"), None);
        assert_eq!(parse("here 7 99", "here"), None);
    }

    #[test]
    fn the_next_holder_sees_what_still_runs_and_waits_for_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record");
        let me = ProcessId::of(std::process::id().cast_signed()).unwrap();
        let mut first = Record::try_lock(&path).unwrap().unwrap();
        first.add(me, 10, "me").unwrap();
        first.add(ProcessId { start_ticks: me.start_ticks + 1, ..me }, 10, "gone").unwrap();
        assert!(Record::try_lock(&path).unwrap().is_none());
        drop(first);
        let mut second = Record::try_lock(&path).unwrap().unwrap();
        assert_eq!(second.alive(), [Entry { id: me, stop_order: 10, name: "me".to_owned() }]);
        second.clear().unwrap();
        drop(second);
        assert!(Record::try_lock(&path).unwrap().unwrap().alive().is_empty());
    }
}
