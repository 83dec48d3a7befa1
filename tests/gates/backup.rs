//! The static channel backup is in the Store within 2 s of lnd writing it, and becomes the one to restore.

use super::{files_named, store};
use crate::harness::{Deployment, eventually};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
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
