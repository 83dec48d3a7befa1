//! Nothing that happens to the agent happens to an lnd, and nothing that happens to an lnd goes unnoticed.

use super::world::{Machine, World, spec, timed, until};
use scale_lnd::dev::reaper::Signal;
use scale_lnd::lndserver::client::Order;
use scale_lnd::model::node::{Process, WalletState};

#[tokio::test]
async fn smoke_an_agent_that_is_killed_finds_its_lnds_again() {
    timed(async {
        let world = World::new().await;
        let mut machine = world.machine().await;
        let ((one, at_one), (two, _)) = tokio::join!(world.node(&machine, 0), world.node(&machine, 1));
        let pids = [world.pid(&machine, &one).await, world.pid(&machine, &two).await];
        for node in [&one, &two] {
            let runtime = world.runtime(node, |runtime| runtime.wallet == WalletState::NonExisting).await;
            assert_eq!((&runtime.process, runtime.starts), (&Process::Running, 1));
        }

        world.kill(&mut machine).await;
        world.restart(&mut machine, &[]).await;
        assert_eq!([world.pid(&machine, &one).await, world.pid(&machine, &two).await], pids);
        assert_eq!(world.runtime(&one, |runtime| runtime.process == Process::Running).await.starts, 1);
        let host = world.host(&machine.host).await;
        let again = world.agents.ensure_node(Order { host: &host, epoch: 1 }, spec(&one, 0)).await.unwrap();
        assert_eq!(again, at_one, "an order given again changes nothing");

        // An adopted lnd's exit is noticed, too.
        world.reaper.signal(i32::try_from(pids[0]).unwrap(), Signal::KILL).await.unwrap();
        let runtime =
            world.runtime(&one, |runtime| runtime.starts == 2 && runtime.wallet != WalletState::Unknown).await;
        assert_eq!(runtime.process, Process::Running);
        assert_ne!(world.pid(&machine, &one).await, pids[0]);
        assert_eq!(world.pid(&machine, &two).await, pids[1]);
    })
    .await;
}

#[tokio::test]
async fn an_lnd_that_dies_is_started_again_and_its_death_is_told() {
    timed(async {
        let world = World::new().await;
        let machine = world.machine().await;
        let (node, _) = world.node(&machine, 0).await;
        let pid = world.pid(&machine, &node).await;
        let told = world.runtime(&node, |runtime| matches!(runtime.process, Process::Restarting { .. }));
        let killed = world.reaper.signal(i32::try_from(pid).unwrap(), Signal::KILL);
        let (told, killed) = tokio::join!(told, killed);
        killed.unwrap();
        let Process::Restarting { reason } = told.process else { panic!("{told:?}") };
        assert!(reason.starts_with("signal 9: "), "{reason}");
        assert!(!reason.contains(world.dir.path().to_str().unwrap()), "{reason}");
        world.runtime(&node, |runtime| runtime.starts == 2 && runtime.process == Process::Running).await;
        assert_ne!(world.pid(&machine, &node).await, pid);
    })
    .await;
}

/// Whatever the moment at which the agent is killed while it starts an lnd: afterwards there is one.
#[tokio::test]
async fn an_agent_killed_while_it_starts_an_lnd_leaves_one() {
    timed(async {
        for (point, starts) in
            [("lndserver.start.before", 2), ("lndserver.start.forked", 1), ("lndserver.start.after", 1)]
        {
            let world = World::new().await;
            let mut machine = world.machine().await;
            world.kill(&mut machine).await;
            world.restart(&mut machine, &[("SCALE_LND_FAULT", &format!("{point}=kill"))]).await;
            world.status(&machine).await;
            let node = world.place(&machine.host, 0).await;
            let host = world.host(&machine.host).await;
            let order = Order { host: &host, epoch: 1 };
            world.agents.ensure_node(order, spec(&node, 0)).await.expect_err("the agent dies of it");
            machine.process.exited().await;
            let left = machine.lnds_of(&node);

            world.restart(&mut machine, &[]).await;
            let pid = world.pid(&machine, &node).await;
            assert_eq!(machine.lnds_of(&node), [pid], "{point}");
            assert!(left.is_empty() || left == [pid], "{point}: {left:?} was there, {pid} is");
            let runtime = world.runtime(&node, |runtime| runtime.process == Process::Running).await;
            assert_eq!(runtime.starts, starts, "{point}");
            world.agents.ensure_node(order, spec(&node, 0)).await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn a_stop_is_asked_for_waited_for_and_kept() {
    timed(async {
        let world = World::new().await;
        let mut machine = world.machine().await;
        let (node, _) = world.node(&machine, 0).await;
        let host = world.host(&machine.host).await;
        let order = Order { host: &host, epoch: 1 };
        world.agents.stop_node(order, &node).await.unwrap();
        assert!(machine.lnds_of(&node).is_empty(), "the exit is confirmed");
        world.runtime(&node, |runtime| runtime.process == Process::Stopped).await;
        world.agents.stop_node(order, &node).await.expect("twice is once");

        world.kill(&mut machine).await;
        world.restart(&mut machine, &[]).await;
        world.status(&machine).await;
        assert!(machine.lnds_of(&node).is_empty(), "it is not started by itself");
        world.agents.ensure_node(order, spec(&node, 0)).await.unwrap();
        world.runtime(&node, |runtime| runtime.process == Process::Running && runtime.starts == 2).await;
    })
    .await;
}

/// A slow exit: the agent dies while it waits, and the next one goes on waiting.
#[tokio::test]
async fn an_agent_killed_while_an_lnd_exits_still_stops_it() {
    timed(async {
        let world = World::new().await;
        let mut machine = world.machine().await;
        let (node, _) = world.node(&machine, 0).await;
        let pid = i32::try_from(world.pid(&machine, &node).await).unwrap();
        let host = world.host(&machine.host).await;
        world.reaper.signal(pid, Signal::STOP).await.unwrap();
        let stop = world.agents.stop_node(Order { host: &host, epoch: 1 }, &node);
        assert!(tokio::time::timeout(std::time::Duration::from_secs(1), stop).await.is_err(), "it has not exited");
        world.kill(&mut machine).await;
        world.restart(&mut machine, &[]).await;
        world.status(&machine).await;
        assert_eq!(machine.lnds_of(&node).len(), 1, "it is never killed");
        world.reaper.signal(pid, Signal::CONT).await.unwrap();
        until("the exit", async || machine.lnds_of(&node).is_empty().then_some(())).await;
        world.agents.stop_node(Order { host: &host, epoch: 1 }, &node).await.unwrap();
        world.runtime(&node, |runtime| runtime.process == Process::Stopped).await;
    })
    .await;
}

#[tokio::test]
async fn a_second_agent_on_a_folder_is_refused() {
    timed(async {
        let world = World::new().await;
        let machine = world.machine().await;
        let mut second = Machine { process: machine.process.clone(), ..world.machine().await };
        second.data.clone_from(&machine.data);
        world.restart(&mut second, &[]).await;
        assert_ne!(second.process.exited().await, scale_lnd::dev::reaper::Exit::Code(0));
        assert!(second.log().contains("another agent uses the folder"), "{}", second.log());
        world.status(&machine).await;
    })
    .await;
}

/// Whatever the moment at which the agent is killed while it stops or removes: the order given again ends it.
#[tokio::test]
async fn an_agent_killed_while_it_stops_or_removes_is_told_again() {
    timed(async {
        for point in
            ["lndserver.stop.before", "lndserver.stop.after", "lndserver.remove.before", "lndserver.remove.after"]
        {
            let world = World::new().await;
            let mut machine = world.machine().await;
            let (node, _) = world.node(&machine, 0).await;
            world.kill(&mut machine).await;
            world.restart(&mut machine, &[("SCALE_LND_FAULT", &format!("{point}=kill"))]).await;
            world.pid(&machine, &node).await;
            let host = world.host(&machine.host).await;
            let order = Order { host: &host, epoch: 1 };
            let both = async || {
                world.agents.stop_node(order, &node).await?;
                world.agents.remove_node(order, &node).await
            };
            both().await.expect_err("the agent dies of it");
            machine.process.exited().await;
            world.restart(&mut machine, &[]).await;
            world.status(&machine).await;
            both().await.unwrap_or_else(|e| panic!("{point}: {e:?}"));
            assert!(machine.lnds_of(&node).is_empty(), "{point}");
            assert_eq!(std::fs::read_dir(machine.data.join("removed")).unwrap().count(), 1, "{point}");
            assert!(world.status(&machine).await.nodes.is_empty(), "{point}");
        }
    })
    .await;
}

/// lnd rewrites its backup when it stops; if no agent runs then, the next one sends it.
#[tokio::test]
async fn a_backup_written_while_no_agent_ran_is_sent_though_the_lnd_has_gone() {
    timed(async {
        let world = World::new().await;
        let mut machine = world.machine().await;
        let (node, _) = world.node(&machine, 0).await;
        let host = world.host(&machine.host).await;
        world.agents.stop_node(Order { host: &host, epoch: 1 }, &node).await.unwrap();
        world.kill(&mut machine).await;
        machine.write_backup(&node, b"the last");
        world.restart(&mut machine, &[]).await;
        assert_eq!(world.backups(&node, 1).await, [b"the last"]);
    })
    .await;
}

/// Somebody else has the folder's lock: neither is an lnd started there, nor is anybody told that none runs.
#[tokio::test]
async fn a_folder_that_somebody_else_holds_is_neither_used_nor_called_stopped() {
    timed(async {
        let world = World::new().await;
        let mut machine = world.machine().await;
        let (node, _) = world.node(&machine, 0).await;
        let host = world.host(&machine.host).await;
        let order = Order { host: &host, epoch: 1 };
        world.agents.stop_node(order, &node).await.unwrap();
        world.kill(&mut machine).await;
        let lock = std::fs::File::open(machine.data.join("nodes").join(node.as_str()).join("lock")).unwrap();
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();

        world.restart(&mut machine, &[]).await;
        world.runtime(&node, |runtime| runtime.process == Process::Unknown).await;
        let stop = tokio::time::timeout(std::time::Duration::from_secs(4), world.agents.stop_node(order, &node)).await;
        assert!(!matches!(stop, Ok(Ok(()))), "{stop:?}");
        let start = world.agents.ensure_node(order, spec(&node, 0)).await;
        assert!(start.is_err(), "{start:?}");
        assert!(machine.lnds_of(&node).is_empty());
        drop(lock);
        world.agents.ensure_node(order, spec(&node, 0)).await.unwrap();
        world.agents.stop_node(order, &node).await.unwrap();
    })
    .await;
}
