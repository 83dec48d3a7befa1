//! What agents tell masters, and what masters believe.

use super::world::{LIMIT, World, timed};
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_host_tells_what_it_is_made_of() {
    timed(async {
        let world = World::new().await;
        let machine = world.machine().await;
        let report = world.host(&machine.host).await.report.expect("it has joined");
        assert_eq!(report.lnd_version, "0.21.2-beta", "what the binary says of itself, and what is pinned");
        assert_eq!(report.agent_version, env!("CARGO_PKG_VERSION"));
        assert!(report.disk_total_bytes > 0, "{report:?}");
        assert!(report.disk_free_bytes <= report.disk_total_bytes, "{report:?}");
    })
    .await;
}

#[tokio::test]
async fn a_backup_is_in_the_store_within_two_seconds_and_every_version_is_kept() {
    timed(async {
        let world = World::new().await;
        let machine = world.machine().await;
        let (node, _) = world.node(&machine, 0).await;
        for (number, bytes) in [(1, b"one".as_slice()), (2, b"two"), (3, b"")] {
            let began = Instant::now();
            machine.write_backup(&node, bytes);
            let backups = world.backups(&node, number).await;
            assert_eq!(backups.last().map(Vec::as_slice), Some(bytes));
            assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        }
        assert_eq!(world.backups(&node, 3).await, [b"one".as_slice(), b"two", b""]);
    })
    .await;
}

#[tokio::test]
async fn what_no_master_has_acknowledged_survives_the_agent() {
    timed(async {
        let world = World::new().await;
        let mut machine = world.machine().await;
        let (node, _) = world.node(&machine, 0).await;
        world.be_silent().await;
        machine.write_backup(&node, b"one");
        let outbox = machine.data.join("agent/outbox");
        super::world::until("the outbox", async || (letters(&outbox) == 1).then_some(())).await;
        machine.write_backup(&node, b"two");
        super::world::until("the outbox", async || (letters(&outbox) == 2).then_some(())).await;
        world.kill(&mut machine).await;
        machine.write_backup(&node, b"three");
        world.restart(&mut machine, &[]).await;
        world.pid(&machine, &node).await;
        world.serve().await;
        assert_eq!(world.backups(&node, 3).await, [b"one".as_slice(), b"two", b"three"]);
        let empty = async || (std::fs::read_dir(&outbox).unwrap().count() == 0).then_some(());
        super::world::until("all to be acknowledged", empty).await;

        // An agent that starts says again what there is; the Store has it already.
        world.kill(&mut machine).await;
        world.restart(&mut machine, &[]).await;
        world.pid(&machine, &node).await;
        super::world::until("all to be acknowledged", empty).await;
        tokio::time::timeout(LIMIT, world.backups(&node, 3)).await.unwrap();
        assert_eq!(world.backups(&node, 3).await.len(), 3);
    })
    .await;
}

/// Letters that are whole: one that is being written has another name until then.
fn letters(outbox: &std::path::Path) -> usize {
    let names = std::fs::read_dir(outbox).unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    names.filter(|name| name.split('-').all(|part| part.bytes().all(|b| b.is_ascii_alphanumeric()))).count()
}
