//! Requests a second, turn by turn: lnd's REST, ours, lnd's REST, ours … so that whatever else this machine does befalls
//! all alike, and the ratio is taken within each turn.

use super::load::{Sample, Target};
use super::report::{self, median, ms};
use super::sides::Call;
use std::time::Duration;

/// How long and how often.
pub struct How {
    pub seconds: Duration,
    pub rounds: usize,
}

/// Measures and prints a table.
pub async fn compare(what: &str, call: &Call, connections: &[usize], how: &How) {
    println!("\n{what}");
    println!("| connections | who         | requests/s |  p50 ms |  p99 ms | rate vs REST | p50 vs REST |");
    println!("|------------:|-------------|-----------:|--------:|--------:|-------------:|------------:|");
    for &connections in connections {
        report::progress(&format!("{what} at {connections} connections"));
        let targets = [&call.rest, &call.https, &call.http];
        let mut samples: [Vec<Sample>; 3] = Default::default();
        for round in 0..how.rounds {
            for turn in 0..targets.len() {
                // Nobody is always the first or the one after the same other.
                let who = (turn + round) % targets.len();
                samples[who].push(targets[who].run(connections, how.seconds).await);
            }
        }
        for (target, own) in targets.iter().zip(&samples) {
            println!("{}", row(connections, target, own, &samples[0]));
        }
    }
}

fn row(connections: usize, target: &Target, own: &[Sample], rest: &[Sample]) -> String {
    let of = |value: fn(&Sample) -> f64| median(own.iter().map(value));
    let ratio = |value: fn(&Sample) -> f64| median(own.iter().zip(rest).map(|(own, rest)| value(own) / value(rest)));
    let (rate, p50, p99) = (|s: &Sample| s.per_second, |s: &Sample| ms(s.p50), |s: &Sample| ms(s.p99));
    format!(
        "| {connections:>11} | {:<11} | {:>10.0} | {:>7.2} | {:>7.2} | {:>11.2}x | {:>10.2}x |",
        target.name,
        of(rate),
        of(p50),
        of(p99),
        ratio(rate),
        ratio(p50),
    )
}
