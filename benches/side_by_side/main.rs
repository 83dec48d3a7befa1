//! `make bench`: this system side by side with lnd's own REST gateway on the same node, in one run on this machine, on
//! real lnd and btcd. What is compared and how to read it: docs/PERFORMANCE.md.

#![expect(clippy::unwrap_used, reason = "a bench that cannot measure should end, and say where")]

mod channels;
mod creates;
mod instances;
mod load;
mod plans;
mod proof;
mod rates;
mod report;
mod sides;
mod start;

#[path = "../../tests/harness/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the tests use more of it")]
mod harness;

#[path = "../../tests/ec2/cloud/mod.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod cloud;

use clap::{Parser, ValueEnum};
use harness::{Deployment, Setup};
use std::time::{Duration, Instant};

/// The whole run, whatever happens.
const DEADLINE: Duration = Duration::from_secs(1500);
/// So many nodes does the master have when its memory is looked at.
const NODES: usize = 20;

/// Measures side by side with lnd's own REST.
#[derive(Debug, Parser)]
struct Args {
    /// Only these parts
    #[arg(long, value_enum, value_delimiter = ',')]
    part: Vec<Part>,
    /// Seconds for each measurement of a rate
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// How often each rate is measured, turn by turn
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How often each kind of create is measured, turn by turn
    #[arg(long, default_value_t = 4)]
    creates: usize,
    /// Leave out what needs moto and the Firestore emulator
    #[arg(long)]
    without_instances: bool,
    /// What cargo passes to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Getinfo,
    Listchannels,
    Proof,
    Create,
    Instances,
    Memory,
    Start,
    Plan,
}

fn main() {
    let args = Args::parse();
    harness::run(DEADLINE, async move { bench(args).await });
}

async fn bench(args: Args) {
    let started = Instant::now();
    let wanted = |part| args.part.is_empty() || args.part.contains(&part);
    report::machine();
    if wanted(Part::Plan) {
        plans::measure();
    }
    if args.part == [Part::Plan] {
        return;
    }
    report::progress("starting a simnet, a master and an agent");
    // The limit for one key is for apps, and would be what is measured.
    let open = "[http]\nper_key_per_second = 1000000\nper_key_burst = 1000000\n";
    let plain =
        Setup { initial_funding_sat: 0, lease_ttl_ms: 5_000, slots: 60, more: open.to_owned(), ..Setup::default() };
    let mut d = Deployment::start(plain.clone()).await;
    d.create_users(&["alice"]).await;
    let sides = sides::Sides::of(&mut d, "alice").await;
    println!("node: one lnd {}", sides.same_answer().await);

    let how = rates::How { seconds: Duration::from_secs_f64(args.seconds), rounds: args.rounds };
    if wanted(Part::Getinfo) {
        rates::compare("getinfo", &sides.getinfo, &[1, 32, 128], &how).await;
    }
    if wanted(Part::Proof) {
        proof::warm_reads_touch_nothing(&d, &sides).await;
    }
    if wanted(Part::Listchannels) {
        let count = channels::open(&d, "alice", 10).await;
        rates::compare(&format!("listchannels, {count} channels"), &sides.listchannels, &[1, 32], &how).await;
    }
    // The second master, which served HTTPS, would only share the processor from here on.
    sides.end_second(&mut d).await;
    let mut created = 1;
    if wanted(Part::Create) {
        let funded = Deployment::start(Setup { initial_funding_sat: 1_000_000, ..plain.clone() }).await;
        created += creates::compare(&d, &funded, args.creates).await;
        funded.stop().await;
    }
    if wanted(Part::Instances) && !args.without_instances {
        instances::compare(args.creates).await;
        instances::count().await;
    }
    if wanted(Part::Memory) {
        let more: Vec<String> = (created..NODES).map(|n| format!("user{n}")).collect();
        report::memory(&d, &more, NODES).await;
    }
    if wanted(Part::Start) {
        start::with_many_nodes(&mut d, "SQLite").await;
        if !args.without_instances {
            let firestore = Some(harness::emulator::Emulator::shared().await.url.clone());
            let mut on_firestore = Deployment::start(Setup { firestore, ..plain }).await;
            on_firestore.create_users(&["alice"]).await;
            start::with_many_nodes(&mut on_firestore, "Firestore's emulator").await;
            on_firestore.stop().await;
        }
    }
    d.stop().await;
    println!("\nthe whole run: {:.0} s; load average now {}", started.elapsed().as_secs_f64(), report::load_average());
}
