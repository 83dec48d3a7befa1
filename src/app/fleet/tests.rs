//! Reports against a real Store: whose they may be, and which of two counts.

use super::*;
use crate::clock::SystemClock;
use crate::model::host::HostReport;
use crate::model::node::{Backup, BackupHead, Process, Runtime, WalletState};
use crate::model::{Network, NodeId};
use crate::pki::{self, Peer};
use crate::seal::{SealKey, Sealer};
use crate::store::repo::Entity;
use crate::store::sqlite::{SqliteOptions, SqliteStore};
use std::net::IpAddr;

const ADDRESS: (IpAddr, u16) = (IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

struct World {
    fleet: Fleet,
    store: Arc<SqliteStore>,
    _dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(&dir.path().join("db"), SqliteOptions::default()).await.unwrap());
        let fleet = open(&store, &SealKey::from_bytes([1; 32])).await.unwrap();
        Self { fleet, store, _dir: dir }
    }

    /// A host that has joined, with a node in slot 0, and what its agent shows.
    async fn host(&self) -> (HostId, NodeId, Peer) {
        let (host, token) = self.fleet.invite_host(2).await.unwrap();
        let (key, csr) = pki::make_csr().unwrap();
        let enrolled = self.fleet.enrol(token.expose(), &csr, ADDRESS).await.unwrap();
        let own = Credentials::from_pem(&enrolled.certificate_pem, &key, &self.fleet.ca()).unwrap();
        let node = NodeId::random(&mut rand::rng());
        self.place(&host, Some(&node)).await;
        (host, node, own.own())
    }

    async fn place(&self, host: &HostId, node: Option<&NodeId>) {
        repo::modify::<Host, Error>(&*self.store, host.as_str(), |host| {
            host.slots = node.iter().map(|node| (0, (*node).clone())).collect();
            Ok(true)
        })
        .await
        .unwrap();
    }

    async fn get<T: Entity>(&self, id: &str) -> Option<T> {
        repo::get::<T>(&*self.store, id).await.unwrap().map(|found| found.value)
    }
}

async fn open(store: &Arc<SqliteStore>, key: &SealKey) -> Result<Fleet> {
    let keys = Keys::new(Arc::new(Sealer::single(key.clone())), "test".to_owned(), Network::Simnet);
    Fleet::open(store.clone(), Arc::new(SystemClock), &keys, Duration::DAY).await
}

fn said(node: &NodeId, sequence: u64, process: Process) -> Report {
    let (node, wallet) = (node.clone(), WalletState::Unknown);
    Report { generation: 1, sequence, body: Body::Node { node, process, wallet, starts: 1 } }
}

fn backup(node: &NodeId, sequence: u64, bytes: &[u8]) -> Report {
    Report { generation: 1, sequence, body: Body::Backup { node: node.clone(), bytes: bytes.to_vec() } }
}

#[tokio::test]
async fn an_older_report_never_replaces_a_newer_one() {
    let world = World::new().await;
    let (_, node, peer) = world.host().await;
    let process = async || world.get::<Runtime>(node.as_str()).await.unwrap().process;
    world.fleet.accept(&peer, &said(&node, 5, Process::Running)).await.unwrap();
    world.fleet.accept(&peer, &said(&node, 4, Process::Stopped)).await.unwrap();
    assert_eq!(process().await, Process::Running);
    world.fleet.accept(&peer, &said(&node, 6, Process::Stopped)).await.unwrap();
    assert_eq!(process().await, Process::Stopped);
}

#[tokio::test]
async fn a_node_that_moved_is_told_of_by_its_new_host_only() {
    let world = World::new().await;
    let (old, node, old_peer) = world.host().await;
    let (new, _, new_peer) = world.host().await;
    world.fleet.accept(&old_peer, &said(&node, 1000, Process::Stopped)).await.unwrap();
    world.place(&old, None).await;
    world.place(&new, Some(&node)).await;
    world.fleet.accept(&new_peer, &said(&node, 1, Process::Running)).await.unwrap();
    let refused = world.fleet.accept(&old_peer, &said(&node, 1001, Process::Stopped)).await;
    assert!(matches!(refused, Err(ReportError::Refused(_))), "{refused:?}");
    let runtime = world.get::<Runtime>(node.as_str()).await.unwrap();
    assert_eq!((runtime.host, runtime.process), (new, Process::Running));
}

#[tokio::test]
async fn backups_are_versions_and_repetitions_are_not() {
    let world = World::new().await;
    let (_, node, peer) = world.host().await;
    for report in [backup(&node, 1, b"a"), backup(&node, 2, b"b"), backup(&node, 1, b"a"), backup(&node, 3, b"b")] {
        world.fleet.accept(&peer, &report).await.unwrap();
    }
    let head = world.get::<BackupHead>(node.as_str()).await.unwrap();
    assert_eq!((head.newest, head.good), (2, None));
    world.fleet.accept(&peer, &backup(&node, 4, b"a")).await.unwrap();
    assert!(
        world.get::<Backup>(&Backup::id_of(&node, 3)).await.is_some(),
        "what comes again after another is a version"
    );
}

/// A host cannot fill the Store with them, nor push out the one that is needed.
#[tokio::test]
async fn a_flood_of_backups_leaves_the_good_one_and_the_newest_few() {
    let world = World::new().await;
    let (_, node, peer) = world.host().await;
    for number in 1..=40u64 {
        world.fleet.accept(&peer, &backup(&node, number, &number.to_be_bytes())).await.unwrap();
        if number == 3 {
            let good = |head: &mut BackupHead| {
                head.good = Some(3);
                Ok::<_, Error>(true)
            };
            repo::modify(&*world.store, node.as_str(), good).await.unwrap();
        }
    }
    let kept = repo::list_all::<Backup>(&*world.store, None).await.unwrap();
    let kept: Vec<u64> = kept.into_iter().map(|kept| kept.value.number).collect();
    assert_eq!(kept, [3, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40]);
}

#[tokio::test]
async fn only_the_hosts_own_generation_and_certificate_count() {
    let world = World::new().await;
    let (host, node, peer) = world.host().await;
    let other = Report { generation: 2, ..said(&node, 1, Process::Running) };
    assert!(matches!(world.fleet.accept(&peer, &other).await, Err(ReportError::NotAHost)));
    let master = Peer { identity: Identity::Master { id: "m".to_owned() }, ..peer.clone() };
    let report = said(&node, 1, Process::Running);
    assert!(matches!(world.fleet.accept(&master, &report).await, Err(ReportError::NotAHost)));
    let unlisted = world.host().await.2.serial;
    let forged = Peer { serial: unlisted, ..peer.clone() };
    assert!(matches!(world.fleet.accept(&forged, &report).await, Err(ReportError::NotAHost)));
    world.fleet.accept(&peer, &report).await.unwrap();
    assert!(world.fleet.revoke_host(&host).await.unwrap());
    assert!(matches!(world.fleet.accept(&peer, &report).await, Err(ReportError::NotAHost)));
}

/// The document of a host is where slots are taken: a report that says nothing new leaves it alone.
#[tokio::test]
async fn a_host_that_says_nothing_new_causes_no_write() {
    let world = World::new().await;
    let (host, _, peer) = world.host().await;
    let version = async || repo::get::<Host>(&*world.store, host.as_str()).await.unwrap().unwrap().version;
    let report = |disk_free_bytes, sequence| {
        let report = HostReport { disk_free_bytes, disk_total_bytes: 1000, ..HostReport::default() };
        Report { generation: 1, sequence, body: Body::Host { report, address: ADDRESS } }
    };
    world.fleet.accept(&peer, &report(500, 1)).await.unwrap();
    let before = version().await;
    world.fleet.accept(&peer, &report(499, 2)).await.unwrap();
    assert_eq!(version().await, before);
    world.fleet.accept(&peer, &report(400, 3)).await.unwrap();
    assert_ne!(version().await, before);
}

#[tokio::test]
async fn one_authority_is_made_and_it_opens_with_its_key_only() {
    let world = World::new().await;
    let key = SealKey::from_bytes([1; 32]);
    let (one, two) = tokio::join!(open(&world.store, &key), open(&world.store, &key));
    assert_eq!(one.unwrap().ca().fingerprint(), world.fleet.ca().fingerprint());
    assert_eq!(two.unwrap().ca().fingerprint(), world.fleet.ca().fingerprint());
    assert!(open(&world.store, &SealKey::from_bytes([2; 32])).await.is_err());
}
