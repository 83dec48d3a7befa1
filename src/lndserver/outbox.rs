//! Backups on their way to a master. Each stays here, on disk, until a master has said that the Store has it; and the
//! numbers that put all reports of a host in order.

use super::files;
use crate::model::NodeId;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Numbers for reports: they grow over restarts of the agent, since they are reserved on disk before they are used.
#[derive(Debug)]
pub struct Sequence {
    path: PathBuf,
    inner: Mutex<(u64, u64)>,
}

impl Sequence {
    const RESERVED_AT_ONCE: u64 = 1000;

    /// Goes on above everything that was ever reserved in the file.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let text = files::read_optional(&path)?.unwrap_or_else(|| b"0".to_vec());
        let bad = || io::Error::new(io::ErrorKind::InvalidData, "the file of sequence numbers cannot be read");
        let reserved = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok()).ok_or_else(bad)?;
        Ok(Self { path, inner: Mutex::new((reserved, reserved)) })
    }

    /// The next number, from 1 on.
    pub fn next(&self) -> io::Result<u64> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, reserved) = *inner;
        let reserved = if last < reserved {
            reserved
        } else {
            let more = reserved + Self::RESERVED_AT_ONCE;
            files::write_private(&self.path, more.to_string().as_bytes())?;
            more
        };
        *inner = (last + 1, reserved);
        Ok(last + 1)
    }
}

/// A backup as lnd wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Its number among the reports.
    pub sequence: u64,
    /// Whose it is.
    pub node: NodeId,
    /// The file's bytes.
    pub bytes: Vec<u8>,
}

/// What was not acknowledged yet.
#[derive(Debug)]
pub struct Outbox {
    folder: PathBuf,
    letters: Mutex<BTreeMap<u64, NodeId>>,
    changed: Notify,
}

impl Outbox {
    /// Finds what an agent before this one left in the folder.
    pub fn open(folder: PathBuf) -> io::Result<Self> {
        let mut letters = BTreeMap::new();
        for entry in fs::read_dir(&folder)? {
            let name = entry?.file_name();
            letters.extend(name.to_str().and_then(parse_name));
        }
        Ok(Self { folder, letters: Mutex::new(letters), changed: Notify::new() })
    }

    fn letters(&self) -> MutexGuard<'_, BTreeMap<u64, NodeId>> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, sequence: u64, node: &NodeId) -> PathBuf {
        self.folder.join(format!("{sequence:020}-{node}"))
    }

    /// Keeps a backup until it is acknowledged.
    pub fn put(&self, letter: &Letter) -> io::Result<()> {
        files::write_private(&self.path(letter.sequence, &letter.node), &letter.bytes)?;
        self.letters().insert(letter.sequence, letter.node.clone());
        self.changed.notify_one();
        Ok(())
    }

    /// Waits for the first backup after the number `sequence`. One task at a time may wait; one that gives up loses
    /// nothing.
    pub async fn after(&self, sequence: u64) -> io::Result<Letter> {
        loop {
            let next = self
                .letters()
                .range((Bound::Excluded(sequence), Bound::Unbounded))
                .next()
                .map(|(s, n)| (*s, n.clone()));
            if let Some((sequence, node)) = next {
                let Some(bytes) = files::read_optional(&self.path(sequence, &node))? else {
                    tracing::error!(node.id = %node, report.sequence = sequence, "a backup has gone from the outbox");
                    self.letters().remove(&sequence);
                    continue;
                };
                return Ok(Letter { sequence, node, bytes });
            }
            self.changed.notified().await;
        }
    }

    /// A master has it, or never wants it: forgets it.
    pub fn done(&self, sequence: u64) -> io::Result<()> {
        // The Store has it: if its removal is lost in a crash, it is sent once more and recognised.
        let Some(node) = self.letters().remove(&sequence) else { return Ok(()) };
        remove_optional(&self.path(sequence, &node))
    }
}

fn parse_name(name: &str) -> Option<(u64, NodeId)> {
    let (sequence, node) = name.split_once('-')?;
    Some((sequence.parse().ok()?, NodeId::parse(node)?))
}

fn remove_optional(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_never_return_after_a_crash() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("sequence");
        let first = Sequence::open(path.clone()).expect("opens");
        assert_eq!([first.next().expect("io"), first.next().expect("io")], [1, 2]);
        let mut highest = 2;
        for _ in 0..1500 {
            highest = first.next().expect("io");
        }
        let second = Sequence::open(path).expect("opens");
        assert!(second.next().expect("io") > highest);
    }

    #[tokio::test]
    async fn backups_stay_in_order_until_acknowledged() {
        let folder = tempfile::tempdir().expect("a folder");
        let node = NodeId::random(&mut rand::rng());
        let letter = |sequence, byte| Letter { sequence, node: node.clone(), bytes: vec![byte] };
        let outbox = Outbox::open(folder.path().to_owned()).expect("opens");
        outbox.put(&letter(7, 1)).expect("io");
        outbox.put(&letter(10, 2)).expect("io");
        drop(outbox);

        let outbox = Outbox::open(folder.path().to_owned()).expect("opens");
        assert_eq!(outbox.after(0).await.expect("io"), letter(7, 1));
        assert_eq!(outbox.after(7).await.expect("io"), letter(10, 2));
        outbox.done(7).expect("io");
        outbox.done(7).expect("twice is once");
        assert_eq!(outbox.after(0).await.expect("io"), letter(10, 2));
        outbox.done(10).expect("io");
        assert!(futures::poll!(std::pin::pin!(outbox.after(0))).is_pending());
        assert_eq!(fs::read_dir(folder.path()).expect("io").count(), 0);
    }
}
