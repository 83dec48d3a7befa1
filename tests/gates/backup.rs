//! The static channel backup is in the Store within 2 s of lnd writing it, and becomes the one to restore.

use super::{files_named, store};
use crate::harness::{Deployment, eventually};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use scale_lnd::model::node::{Backup, BackupHead, Node};
use scale_lnd::store::repo;
use scale_lnd::store::sqlite::SqliteStore;
use std::path::Path;
use std::time::Duration;
use time::OffsetDateTime;

pub async fn is_stored_at_once_and_becomes_the_good_one(d: &Deployment, uuid: &str, channel_point: &str) {
    let opened = store::open(d).await;
    let node = store::node(&opened, uuid).await;
    let folder = d.path("host").join("nodes").join(node.id.as_str());
    let file = files_named(&folder, "channel.backup").pop().expect("lnd has written one");
    let stored = eventually("the newest backup is the file's", Duration::from_secs(10), || async {
        let (_, newest) = store::backup(&opened, &node).await?;
        let bytes = std::fs::read(&file).unwrap();
        (STANDARD.decode(&newest.bytes).unwrap() == bytes).then_some(newest)
    })
    .await;
    let written: OffsetDateTime = std::fs::metadata(&file).unwrap().modified().unwrap().into();
    assert!(stored.at - written <= Duration::from_secs(2), "written {written}, stored {}", stored.at);

    let good = eventually("the newest backup is the good one", Duration::from_secs(10), || async {
        let (head, newest) = store::backup(&opened, &node).await?;
        (head.good == Some(head.newest)).then_some(newest)
    })
    .await;
    let covers = good.channel_points.expect("verified");
    assert!(covers.iter().any(|point| point == channel_point), "{channel_point} is not among {covers:?}");
}

/// An lnd that has lost its disk writes an empty one, which is its own and in order. This one did so before it had a channel.
pub async fn one_that_covers_fewer_never_becomes_the_good_one(d: &Deployment, uuid: &str) {
    let opened = store::open(d).await;
    let node = store::node(&opened, uuid).await;
    let (before, good) = store::backup(&opened, &node).await.expect("there is one");
    assert_eq!(before.good, Some(before.newest));
    let first = repo::get::<Backup>(&opened, &Backup::id_of(&node.id, 1)).await.unwrap().expect("it is kept").value;
    let file = files_named(&d.path("host").join("nodes").join(node.id.as_str()), "channel.backup").pop().unwrap();

    write(&file, &first.bytes);
    let (head, empty) = judged(&opened, &node, before.newest).await;
    assert_eq!(empty.channel_points, Some(Vec::new()), "the first one is empty, and the node knows it as its own");
    assert_eq!(head.good, before.good, "an empty one has taken the place of one that is needed");

    write(&file, &good.bytes);
    let (head, _) = judged(&opened, &node, head.newest).await;
    assert_eq!(head.good, Some(head.newest));
}

/// As lnd does.
fn write(file: &Path, base64: &str) {
    let new = file.with_file_name("temp-dont-use.backup");
    std::fs::write(&new, STANDARD.decode(base64).unwrap()).unwrap();
    std::fs::rename(new, file).unwrap();
}

/// The newest backup, once there is one after `number` and the node was asked what it covers.
async fn judged(opened: &SqliteStore, node: &Node, number: u64) -> (BackupHead, Backup) {
    eventually("a newer backup is judged", Duration::from_secs(20), || async {
        let (head, newest) = store::backup(opened, node).await?;
        (head.newest > number && newest.channel_points.is_some()).then_some((head, newest))
    })
    .await
}
