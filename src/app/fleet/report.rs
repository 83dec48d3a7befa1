//! What agents report. A report counts only for the host of the certificate it came with, and only for nodes that have a
//! slot there; in the order of (generation, sequence); and it is acknowledged after the Store has it.

use super::Fleet;
use crate::error::StoreError;
use crate::model::host::{Host, HostReport};
use crate::model::node::{Backup, BackupHead, Process, Runtime, WalletState};
use crate::model::{HostId, NodeId, backups};
use crate::pki::{Identity, Peer};
use crate::store::Write;
use crate::store::repo::{self, Versioned};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};
use std::net::IpAddr;

/// A backup of some thousand channels; more does not fit into a document of any Store.
const LARGEST_BACKUP: usize = 700_000;

/// A report.
#[derive(Debug, Clone)]
pub struct Report {
    /// The host's generation.
    pub generation: u64,
    /// Grows within a generation.
    pub sequence: u64,
    /// What it says.
    pub body: Body,
}

/// What a report says.
#[derive(Debug, Clone)]
pub enum Body {
    /// How the host is.
    Host {
        /// Versions and disk.
        report: HostReport,
        /// Where masters reach its agent.
        address: (IpAddr, u16),
    },
    /// How a node is.
    Node {
        /// The node.
        node: NodeId,
        /// Its process.
        process: Process,
        /// Its wallet.
        wallet: WalletState,
        /// Counts starts of the process.
        starts: u64,
    },
    /// lnd has written its channel.backup.
    Backup {
        /// The node.
        node: NodeId,
        /// The file's bytes.
        bytes: Vec<u8>,
    },
}

/// Why a report is not in the Store.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The sender does not speak for a host (any more).
    #[error("the certificate speaks for no host of the fleet")]
    NotAHost,
    /// It is not this host's to say, or cannot be kept; sending it again does not help.
    #[error("{0}")]
    Refused(&'static str),
    /// It may be sent again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Fleet {
    /// Keeps a report. May be repeated.
    pub async fn accept(&self, peer: &Peer, report: &Report) -> Result<(), ReportError> {
        loop {
            let host = self.reporting_host(peer, report.generation).await?;
            let writes = match &report.body {
                Body::Host { report, address } => host_writes(host, report, *address)?,
                Body::Node { node, process, wallet, starts } => {
                    let said = Runtime {
                        node: node.clone(),
                        host: host.value.id.clone(),
                        generation: report.generation,
                        sequence: report.sequence,
                        process: process.clone(),
                        wallet: *wallet,
                        starts: *starts,
                        at: self.clock.now(),
                    };
                    self.node_writes(&host, said).await?
                }
                Body::Backup { node, bytes } => self.backup_writes(&host, report, node, bytes).await?,
            };
            if writes.is_empty() {
                return Ok(());
            }
            match self.store.commit(writes).await {
                Ok(_) => return Ok(()),
                Err(e) if e.is_conflict() => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    async fn reporting_host(&self, peer: &Peer, generation: u64) -> Result<Versioned<Host>, ReportError> {
        let Identity::Agent { host_id } = &peer.identity else { return Err(ReportError::NotAHost) };
        let host = repo::get::<Host>(&*self.store, host_id).await?.ok_or(ReportError::NotAHost)?;
        let good = peer.validity.contains(self.clock.now()) && host.value.is_spoken_for_by(&peer.serial.to_string());
        if good && host.value.generation == generation { Ok(host) } else { Err(ReportError::NotAHost) }
    }

    async fn node_writes(&self, host: &Versioned<Host>, said: Runtime) -> Result<Vec<Write>, ReportError> {
        placed(host, &said.node)?;
        let known = repo::get::<Runtime>(&*self.store, said.node.as_str()).await?;
        let write = match known {
            Some(known) => {
                let known_order = (&known.value.host, known.value.generation, known.value.sequence);
                if !is_newer(known_order, (&said.host, said.generation, said.sequence)) {
                    return Ok(Vec::new());
                }
                repo::update(&said, known.version)?
            }
            None => repo::create(&said)?,
        };
        // The slot must be this host's still when this is written.
        Ok(vec![write, repo::check::<Host>(host.value.id.as_str(), host.version)])
    }

    async fn backup_writes(
        &self,
        host: &Versioned<Host>,
        report: &Report,
        node: &NodeId,
        bytes: &[u8],
    ) -> Result<Vec<Write>, ReportError> {
        placed(host, node)?;
        if bytes.len() > LARGEST_BACKUP {
            return Err(ReportError::Refused("the backup is larger than any"));
        }
        let sha256 = hex::encode(Sha256::digest(bytes));
        let head = repo::get::<BackupHead>(&*self.store, node.as_str()).await?;
        if let Some(head) = &head {
            let known = (&head.value.host, head.value.generation, head.value.sequence);
            if !is_newer(known, (&host.value.id, report.generation, report.sequence)) {
                return Ok(Vec::new());
            }
            let newest = repo::get::<Backup>(&*self.store, &Backup::id_of(node, head.value.newest)).await?;
            if newest.is_some_and(|newest| newest.value.sha256 == sha256) {
                return Ok(Vec::new());
            }
        }
        let newest = head.as_ref().map_or(0, |head| head.value.newest) + 1;
        let backup = Backup {
            node: node.clone(),
            number: newest,
            sha256,
            bytes: BASE64_STANDARD.encode(bytes),
            channel_points: None,
            at: self.clock.now(),
        };
        let moved = BackupHead {
            node: node.clone(),
            host: host.value.id.clone(),
            generation: report.generation,
            sequence: report.sequence,
            newest,
            good: head.as_ref().and_then(|head| head.value.good),
        };
        let head = match &head {
            Some(head) => repo::update(&moved, head.version)?,
            None => repo::create(&moved)?,
        };
        let mut writes = vec![repo::create(&backup)?, head, repo::check::<Host>(host.value.id.as_str(), host.version)];
        if let Some(number) = backups::superseded_by(newest, moved.good) {
            let id = Backup::id_of(node, number);
            let old = repo::get::<Backup>(&*self.store, &id).await?;
            writes.extend(old.map(|old| repo::delete::<Backup>(&id, old.version)));
        }
        Ok(writes)
    }
}

fn placed(host: &Versioned<Host>, node: &NodeId) -> Result<(), ReportError> {
    match host.value.slot_of(node) {
        Some(_) => Ok(()),
        None => Err(ReportError::Refused("the node has no slot on this host")),
    }
}

/// Whether a report comes after what is known. Two hosts number their reports apart: the one that has the node now counts.
fn is_newer(known: (&HostId, u64, u64), said: (&HostId, u64, u64)) -> bool {
    known.0 != said.0 || (said.1, said.2) > (known.1, known.2)
}

/// A write only where something changed that somebody would act on: the document is also where slots are taken.
fn host_writes(
    mut host: Versioned<Host>,
    report: &HostReport,
    (address, port): (IpAddr, u16),
) -> Result<Vec<Write>, ReportError> {
    let moved = (host.value.address, host.value.agent_port) != (Some(address), Some(port));
    let news = host.value.report.as_ref().is_none_or(|old| report.is_news_after(old));
    if !moved && !news {
        return Ok(Vec::new());
    }
    (host.value.address, host.value.agent_port) = (Some(address), Some(port));
    host.value.report = Some(report.clone());
    Ok(vec![repo::update(&host.value, host.version)?])
}
