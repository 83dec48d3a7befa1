use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use scale_lnd::dev::reaper::{Exit, Notice, Options, ProcessId, Reaper, Signal, Spawn};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(20);

fn options() -> Options {
    Options::new(Path::new(env!("CARGO_BIN_EXE_scale-lnd")))
}

fn shell(script: &str) -> Spawn {
    Spawn::new("sh", "/bin/sh").arg("-c").arg(script)
}

async fn start(options: &Options) -> Reaper {
    timeout(LIMIT, Reaper::start(options, |_| {})).await.unwrap().unwrap()
}

/// Waits for a file that a child writes, and reads a pid from it.
async fn pid_in(path: PathBuf) -> ProcessId {
    let read = async {
        loop {
            if let Ok(text) = std::fs::read_to_string(&path)
                && text.ends_with('\n')
                && let Ok(pid) = text.trim().parse()
            {
                return ProcessId::of(pid).unwrap();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, read).await.unwrap()
}

async fn ends(process: ProcessId) {
    timeout(LIMIT, scale_lnd::dev::reaper::ended(process)).await.expect("still there").unwrap();
}

#[tokio::test]
async fn exits_are_told_and_output_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let reaper = start(&options()).await;
    let mut child = reaper.spawn(shell("echo out; echo $WORD >&2; exit 3").env("WORD", "err").log(&log)).await.unwrap();
    assert_eq!(timeout(LIMIT, child.exited()).await.unwrap(), Exit::Code(3));
    assert_eq!(child.exit(), Some(Exit::Code(3)));
    assert_eq!(std::fs::read_to_string(log).unwrap(), "out\nerr\n");

    let mut child = reaper.spawn(shell("sleep 1000")).await.unwrap();
    assert_eq!(child.exit(), None);
    reaper.signal(child.pid, Signal::KILL).await.unwrap();
    assert_eq!(timeout(LIMIT, child.exited()).await.unwrap(), Exit::Signal(9));

    assert!(reaper.spawn(Spawn::new("none", "/no/such/program")).await.is_err());
    assert!(reaper.signal(1, Signal::TERM).await.is_err(), "only descendants may be signalled");
    timeout(LIMIT, reaper.stop(None)).await.unwrap().unwrap();
}

#[tokio::test]
async fn dropping_it_ends_what_left_its_parents_session() {
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    let reaper = start(&options()).await;
    // What an agent does with an lnd: a session of its own, and the agent dies first.
    let script = format!("setsid sh -c 'echo $$ > {}; exec sleep 1000' & exit 0", pid.display());
    let mut parent = reaper.spawn(shell(&script)).await.unwrap();
    timeout(LIMIT, parent.exited()).await.unwrap();
    let orphan = pid_in(pid).await;
    // The shell writes its pid a moment before it becomes the sleep.
    let found = async {
        while !reaper.descendants().await.unwrap().iter().any(|d| d.pid == orphan.pid && d.command == "sleep 1000") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, found).await.expect("it is found beneath the reaper");
    drop(reaper);
    ends(orphan).await;
}

#[tokio::test]
async fn what_ignores_sigterm_and_what_is_stopped_ends_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let reaper = start(&Options { grace: Duration::from_millis(300), ..options() }).await;
    let stubborn = dir.path().join("stubborn");
    let script = format!("trap '' TERM; echo $$ > {}; while :; do sleep 0.05; done", stubborn.display());
    reaper.spawn(shell(&script)).await.unwrap();
    let stubborn = pid_in(stubborn).await;
    let frozen = reaper.spawn(shell("sleep 1000")).await.unwrap();
    reaper.signal(frozen.pid, Signal::STOP).await.unwrap();
    let frozen = ProcessId::of(frozen.pid).unwrap();
    timeout(LIMIT, reaper.stop(None)).await.unwrap().unwrap();
    assert!(!stubborn.is_alive() && !frozen.is_alive());
}

#[tokio::test]
async fn lower_stop_orders_are_gone_before_higher_ones_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let reaper = start(&options()).await;
    for (name, order, delay) in [("chain", 90, "0"), ("lnd", 50, "0.3"), ("master", 10, "0.2")] {
        let script = format!(
            "trap 'sleep {delay}; echo {name} >> {}; exit' TERM; echo $$ > {}; while :; do sleep 0.02; done",
            log.display(),
            dir.path().join(name).display()
        );
        reaper.spawn(shell(&script).stop_order(order)).await.unwrap();
        pid_in(dir.path().join(name)).await;
    }
    timeout(LIMIT, reaper.stop(None)).await.unwrap().unwrap();
    assert_eq!(std::fs::read_to_string(log).unwrap(), "master\nlnd\nchain\n");
}

#[tokio::test]
async fn the_next_run_waits_until_the_last_one_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let record = dir.path().join("record");
    let pid = dir.path().join("pid");
    let with_record = Options { record: Some(record), ..options() };
    let reaper = start(&with_record).await;
    let script = format!("trap 'sleep 0.5; exit' TERM; echo $$ > {}; while :; do sleep 0.02; done", pid.display());
    reaper.spawn(shell(&script)).await.unwrap();
    let child = pid_in(pid).await;
    // Not awaited: all the reaper sees is the end of its socket, as after a kill of its owner.
    drop(reaper);
    let (notices, mut told) = tokio::sync::mpsc::unbounded_channel();
    let notice = move |notice| notices.send(notice).unwrap_or(());
    let next = timeout(LIMIT, Reaper::start(&with_record, notice)).await.unwrap().unwrap();
    assert!(!child.is_alive(), "the next run began before the last one was gone");
    assert_eq!(told.recv().await, Some(Notice::WaitingForPreviousRun));
    timeout(LIMIT, next.stop(None)).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_next_run_ends_what_a_killed_reaper_left() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { record: Some(dir.path().join("record")), ..options() };
    let reaper = start(&options).await;
    let pid = dir.path().join("pid");
    let script = format!("sleep 1000 & echo $! > {}; wait", pid.display());
    let mut child = reaper.spawn(shell(&script)).await.unwrap();
    let left = [ProcessId::of(child.pid).unwrap(), pid_in(pid).await];
    let supervisor = ProcessId::of(parent_of(child.pid)).unwrap();
    supervisor.signal(Signal::KILL).unwrap();
    timeout(LIMIT, reaper.gone()).await.unwrap();
    assert_eq!(child.exited().await, Exit::Unknown);
    assert!(left.iter().all(|left| left.is_alive()), "nobody was there to end it");
    assert!(reaper.spawn(shell("true")).await.is_err());
    let next = start(&options).await;
    assert!(!left.iter().any(|left| left.is_alive()));
    timeout(LIMIT, next.stop(None)).await.unwrap().unwrap();
}

fn parent_of(pid: i32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}
