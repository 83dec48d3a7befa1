//! The harness keeps what it promises of tests that fail.

use super::{Deployment, Setup, eventually, run};
use scale_lnd::dev::reaper::ProcessId;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{TryRecvError, channel};
use std::time::Duration;

#[test]
fn a_test_past_its_deadline_fails_and_is_dropped() {
    let (held, seen) = channel::<()>();
    let hangs = async move {
        let _held = held;
        std::future::pending().await
    };
    let failed = catch_unwind(AssertUnwindSafe(|| run(Duration::from_millis(200), hangs)));
    let why = failed.expect_err("it hangs");
    assert_eq!(why.downcast_ref::<String>().unwrap(), "the test did not end within 200ms");
    assert_eq!(seen.try_recv(), Err(TryRecvError::Disconnected), "what it had is gone");
}

#[test]
fn what_a_failed_test_has_started_is_ended() {
    let (tell, told) = channel();
    let fails = async move {
        let d = Deployment::start(Setup::default()).await;
        d.create_users(&["alice"]).await;
        let mut pids = d.lnd_pids().await;
        assert_eq!(pids.len(), 1);
        pids.extend([d.masters[0].process.pid, d.agent.as_ref().unwrap().pid]);
        tell.send(pids.into_iter().map(|pid| ProcessId::of(pid).unwrap()).collect::<Vec<_>>()).unwrap();
        panic!("as a test does that fails");
    };
    assert!(catch_unwind(AssertUnwindSafe(|| run(Duration::from_secs(120), fails))).is_err());
    let started = told.recv().unwrap();
    run(Duration::from_secs(60), async move {
        eventually("all has ended", Duration::from_secs(30), || async {
            started.iter().all(|process| !process.is_alive()).then_some(())
        })
        .await;
    });
}
