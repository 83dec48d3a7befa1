//! Notices every change of every `channel.backup` the moment lnd makes it, and puts it into the outbox.
//!
//! One inotify instance for the host: a user may have only 128 of them.

use super::outbox::{Letter, Outbox, Sequence};
use super::shared_files::LndFile;
use crate::model::NodeId;
use futures::StreamExt;
use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask, Watches};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::task::AbortOnDropHandle;

/// lnd's name for it. lnd writes another file and renames it, so it is always whole.
const FILE: &str = "channel.backup";

/// A backup takes some 300 bytes a channel. Masters take no message over 4 MiB.
const MOST_BYTES: u64 = 1 << 20;

/// All the backups of a host.
#[derive(Debug)]
pub struct Backups {
    inner: Arc<Inner>,
    watches: Watches,
    _task: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct Inner {
    outbox: Arc<Outbox>,
    sequence: Arc<Sequence>,
    watched: Mutex<HashMap<NodeId, Watched>>,
}

#[derive(Debug)]
struct Watched {
    file: LndFile,
    descriptor: Option<WatchDescriptor>,
    /// SHA-256 of what went into the outbox last. Not kept over a restart: the Store knows what it has.
    last: Option<[u8; 32]>,
}

impl Backups {
    /// Starts to listen. Must be called within a tokio runtime.
    pub fn new(outbox: Arc<Outbox>, sequence: Arc<Sequence>) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        let watches = inotify.watches();
        let inner = Arc::new(Inner { outbox, sequence, watched: Mutex::default() });
        let events = inotify.into_event_stream(vec![0; 64 * 1024])?;
        let listening = Arc::clone(&inner);
        let task = events.for_each(move |event| {
            match event {
                Ok(event) if event.mask.contains(EventMask::Q_OVERFLOW) => listening.look_at_all(),
                Ok(event) if event.name.as_deref() == Some(FILE.as_ref()) => listening.changed(&event.wd),
                Ok(_) => {}
                Err(e) => tracing::error!(error = %e, "cannot read what happened to the backups"),
            }
            std::future::ready(())
        });
        Ok(Self { inner, watches, _task: AbortOnDropHandle::new(tokio::spawn(task)) })
    }

    /// Looks at the backup now, and at every change from now on. Nothing if its folder is not there.
    pub fn watch(&self, node: &NodeId, file: LndFile) {
        let folder = file.folder();
        if !folder.is_dir() {
            return;
        }
        let mask = WatchMask::MOVED_TO | WatchMask::CLOSE_WRITE | WatchMask::ONLYDIR | WatchMask::DONT_FOLLOW;
        let descriptor = self.watches.clone().add(folder, mask);
        if let Err(e) = &descriptor {
            // look_at_all, called now and then, is what remains.
            tracing::error!(node.id = %node, error = %e, "cannot watch the channel backup");
        }
        let mut watched = self.inner.watched();
        let last = watched.get(node).and_then(|w| w.last);
        let entry = Watched { file, descriptor: descriptor.ok(), last };
        watched.insert(node.clone(), entry);
        drop(watched);
        self.look(node);
    }

    /// Looks at a node's backup now.
    pub fn look(&self, node: &NodeId) {
        if let Some(watched) = self.inner.watched().get_mut(node) {
            self.inner.look(node, watched);
        }
    }

    /// Looks at all of them now.
    pub fn look_at_all(&self) {
        self.inner.look_at_all();
    }

    /// Stops to look at a node that was removed.
    pub fn forget(&self, node: &NodeId) {
        let gone = self.inner.watched().remove(node);
        if let Some(descriptor) = gone.and_then(|watched| watched.descriptor) {
            // The folder has moved, and what is watched with it.
            let _ = self.watches.clone().remove(descriptor);
        }
    }
}

impl Inner {
    fn watched(&self) -> MutexGuard<'_, HashMap<NodeId, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self, descriptor: &WatchDescriptor) {
        let mut all = self.watched();
        if let Some((node, watched)) = all.iter_mut().find(|(_, w)| w.descriptor.as_ref() == Some(descriptor)) {
            self.look(node, watched);
        }
    }

    fn look_at_all(&self) {
        for (node, watched) in self.watched().iter_mut() {
            self.look(node, watched);
        }
    }

    /// Puts the backup into the outbox if it is another one than the last. What fails is tried again by the next look.
    fn look(&self, node: &NodeId, watched: &mut Watched) {
        let put = || -> io::Result<Option<[u8; 32]>> {
            let Some(bytes) = watched.file.read(MOST_BYTES)? else { return Ok(None) };
            let digest: [u8; 32] = Sha256::digest(&bytes).into();
            if watched.last != Some(digest) {
                self.outbox.put(&Letter { sequence: self.sequence.next()?, node: node.clone(), bytes })?;
            }
            Ok(Some(digest))
        };
        match put() {
            Ok(digest) => watched.last = digest.or(watched.last),
            Err(e) => tracing::error!(node.id = %node, error = %e, "cannot keep the channel backup"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::time::Duration;

    async fn next(outbox: &Outbox, after: u64) -> Letter {
        tokio::time::timeout(Duration::from_secs(2), outbox.after(after)).await.expect("in time").expect("io")
    }

    #[tokio::test]
    async fn every_change_goes_into_the_outbox_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let (chain, out) = (folder.path().join("chain"), folder.path().join("out"));
        fs::create_dir(&chain).expect("io");
        fs::create_dir(&out).expect("io");
        let outbox = Arc::new(Outbox::open(out).expect("opens"));
        let sequence = Arc::new(Sequence::open(folder.path().join("sequence")).expect("opens"));
        let backups = Backups::new(Arc::clone(&outbox), sequence).expect("inotify");
        let node = NodeId::random(&mut rand::rng());

        fs::write(chain.join(FILE), b"one").expect("io");
        let file = LndFile::new(chain.clone(), FILE);
        backups.watch(&node, file.clone());
        let one = next(&outbox, 0).await;
        assert_eq!((one.node.clone(), one.bytes.as_slice()), (node.clone(), b"one".as_slice()));

        // As lnd does it.
        fs::write(chain.join("temp"), b"two").expect("io");
        fs::rename(chain.join("temp"), chain.join(FILE)).expect("io");
        let two = next(&outbox, one.sequence).await;
        assert_eq!(two.bytes, b"two");

        backups.look(&node);
        backups.watch(&node, file);
        assert!(futures::poll!(std::pin::pin!(outbox.after(two.sequence))).is_pending(), "the same again is no change");
    }
}
