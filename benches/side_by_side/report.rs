//! What is told beside the measurements: the machine, progress, memory; and the arithmetic that all share.

use super::harness::Deployment;
use futures::StreamExt;
use std::time::Duration;

/// Creates under way at a time while the fleet is filled.
const AT_A_TIME: usize = 4;

pub fn progress(doing: &str) {
    eprintln!("bench: {doing} …");
}

pub fn machine() {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split(": ").nth(1));
    let model = model.unwrap_or("unknown processor");
    println!("machine: {cores} cores, shared by client, master, agent, lnd and btcd ({model})");
    println!("load average before: {}", load_average());
}

pub fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

/// Gives the fleet its last nodes, calls each of them so that the master has it warm, and tells what the master takes.
pub async fn memory(d: &Deployment, more: &[String], nodes: usize) {
    progress(&format!("{} more nodes, for the master's memory", more.len()));
    let api = d.api_of(0);
    let creates = futures::stream::iter(more).for_each_concurrent(AT_A_TIME, |uuid| {
        let api = api.clone();
        async move { drop(api.create(uuid).await) }
    });
    creates.await;
    let listed = api.get("nodes", &[("limit", "100")]).await.ok();
    let uuids: Vec<&str> = listed["nodes"].as_array().unwrap().iter().map(|n| n["uuid"].as_str().unwrap()).collect();
    assert_eq!(uuids.len(), nodes);
    for uuid in &uuids {
        api.get("getinfo", &[("uuid", uuid)]).await.ok();
    }
    let mib = |field| status_kib(d.masters[0].process.pid, field) / 1024.0;
    println!("\nmemory of the master with {nodes} nodes, all warm, after everything above");
    println!("resident {:.1} MiB, at most {:.1} MiB (goal: at most 60)", mib("VmRSS:"), mib("VmHWM:"));
}

/// A number of KiB that the kernel tells of a process.
pub fn status_kib(pid: i32, field: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// The middle one; of an even number, the mean of the two in the middle.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
}

pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
