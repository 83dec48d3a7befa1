//! What masters ask of Firestore, by their logs.

use super::Deployment;
use serde_json::Value;
use std::collections::BTreeMap;

/// The lines of a configuration that has a master log it.
pub const COUNTED: &str = "[log]\nformat = \"json\"\nfilter = \"info,scale_lnd::store::firestore=debug\"\n";

/// What the masters have asked of Firestore, without their heartbeats, which idle masters write, too.
#[derive(Debug, Default)]
pub struct Asked {
    pub commits: u64,
    pub writes: u64,
    pub by_collection: BTreeMap<String, u64>,
    pub reads: u64,
}

/// Reads what the masters' logs say of calls to Firestore after their first `from` lines; also how many lines there are.
pub fn asked(d: &Deployment, from: usize) -> (Asked, usize) {
    let mut asked = Asked::default();
    let text = std::fs::read_to_string(&d.masters[0].log).unwrap();
    let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    for line in lines.iter().skip(from) {
        asked.reads += line["firestore.reads"].as_u64().unwrap_or(0);
        let Some(writes) = line["firestore.writes"].as_u64() else { continue };
        let collections = line["collections"].as_str().unwrap();
        if collections == "[\"masters\"]" {
            continue;
        }
        asked.commits += 1;
        asked.writes += writes;
        for name in collections.split('"').skip(1).step_by(2) {
            *asked.by_collection.entry(name.to_owned()).or_default() += 1;
        }
    }
    (asked, lines.len())
}
