//! The planner of rollouts on a large fleet: how long one plan takes, and how many waves a rollout takes over the fewest that
//! there could be.

use super::report::{median, progress};
use scale_lnd::model::release::RolloutSettings;
use scale_lnd::model::rollout::plan::{Has, Seen, plan};
use scale_lnd::model::rollout::{Rollout, State};
use scale_lnd::model::{HostId, NodeId};
use std::time::{Duration, Instant};
use time::OffsetDateTime;

const NODES: usize = 10_000;
const CHANNELS: usize = 5;
const AT_ONCE: u32 = 20;
/// Plans that are timed, of those of a whole rollout.
const EVERY: usize = 10;

/// Each on a host of its own, with channels to others that are anywhere.
fn fleet() -> Vec<Seen> {
    let ids: Vec<NodeId> = (0..NODES).map(|n| NodeId::parse(&format!("n{n:024x}")).unwrap()).collect();
    let node = |n: usize| Seen {
        id: ids[n].clone(),
        host: HostId::parse(&format!("h{n:024x}")).unwrap(),
        has: Has::AFormer,
        in_flight: false,
        is_usable: true,
        is_marked: false,
        channels: u32::try_from(CHANNELS).unwrap(),
        neighbours: (1..=CHANNELS)
            .map(|k| ids[(n * 7919 + k * 104_729) % NODES].clone())
            .filter(|id| *id != ids[n])
            .collect(),
        is_treasury: false,
    };
    (0..NODES).map(node).collect()
}

pub fn measure() {
    progress("plans of a rollout over 10,000 nodes");
    let mut fleet = fleet();
    let settings = RolloutSettings { max_unavailable: AT_ONCE, bake: Duration::ZERO, ..RolloutSettings::default() };
    let (mut rollout, now) = (Rollout::new(1, settings, OffsetDateTime::UNIX_EPOCH), OffsetDateTime::UNIX_EPOCH);
    let (mut waves, mut times) = (0, Vec::new());
    loop {
        let started = Instant::now();
        let next = plan(&rollout, &fleet, now, 1);
        if waves % EVERY == 0 {
            times.push(started.elapsed().as_secs_f64() * 1e3);
        }
        rollout = next.rollout;
        if rollout.state == State::Done {
            break;
        }
        let begun: std::collections::HashSet<NodeId> = next.begin.into_iter().collect();
        assert!(!begun.is_empty(), "nothing is in flight, and nothing is begun");
        fleet.iter_mut().filter(|node| begun.contains(&node.id)).for_each(|node| node.has = Has::TheRelease);
        for id in &begun {
            rollout = rollout.note(id, Ok(()));
        }
        waves += 1;
    }
    let floor = NODES.div_ceil(usize::try_from(AT_ONCE).unwrap());
    let most = times.iter().copied().fold(0.0, f64::max);
    println!("\nplans of a rollout: {NODES} nodes with {CHANNELS} channels each, {AT_ONCE} at once");
    println!("one plan: median {:.1} ms, at most {most:.1} ms (goal: 10 ms)", median(times.into_iter()));
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let over = waves as f64 / floor as f64;
    println!("waves: {waves}, {over:.3}x of {floor}, the fewest there could be (goal: 1.1x)");
}
