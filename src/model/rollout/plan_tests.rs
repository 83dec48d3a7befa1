//! Each rule of the plan, alone.

use super::plan::{Has, Plan, Reason, Seen, plan};
use super::{Rollout, State};
use crate::model::ids::{HostId, NodeId};
use crate::model::release::RolloutSettings;
use std::time::Duration;
use time::OffsetDateTime;

const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;
const BAKE: Duration = Duration::from_secs(600);

fn id(n: usize) -> NodeId {
    NodeId::parse(&format!("n{n:024x}")).expect("an id")
}

/// A node that could be updated, each on a host of its own.
pub(super) fn node(n: usize) -> Seen {
    Seen {
        id: id(n),
        host: HostId::parse(&format!("h{n:024x}")).expect("an id"),
        has: Has::AFormer,
        in_flight: false,
        is_usable: true,
        is_marked: false,
        channels: 1,
        neighbours: Vec::new(),
        is_treasury: false,
    }
}

fn nodes(count: usize) -> Vec<Seen> {
    (0..count).map(node).collect()
}

fn settings(max_unavailable: u32) -> RolloutSettings {
    RolloutSettings { max_unavailable, ..RolloutSettings::default() }
}

fn planned(rollout: &Rollout, fleet: &[Seen]) -> Plan {
    plan(rollout, fleet, NOW, 1)
}

/// Past its canaries: node 0 has it and is well.
fn in_waves(max_unavailable: u32, fleet: &mut [Seen]) -> Rollout {
    fleet[0].has = Has::TheRelease;
    let canaries = [id(0)].into();
    Rollout { canaries, well_since: Some(NOW - BAKE), ..Rollout::new(7, settings(max_unavailable), NOW) }
}

#[test]
fn canaries_go_first_and_bake_before_anybody_follows() {
    let mut fleet = nodes(5);
    let first = planned(&Rollout::new(7, settings(3), NOW), &fleet);
    assert_eq!(first.begin.len(), 1, "one canary, though three may be without their lnd");
    assert_eq!(first.rollout.canaries, first.begin.iter().cloned().collect());
    assert!(first.waiting.values().all(|reason| *reason == Reason::AfterCanaries), "{:?}", first.waiting);
    let canary = fleet.iter().position(|node| node.id == first.begin[0]).unwrap();

    fleet[canary].in_flight = true;
    assert!(planned(&first.rollout, &fleet).begin.is_empty());
    // It runs it, and the gate has yet to say that it is the same node.
    fleet[canary].has = Has::TheRelease;
    assert_eq!(planned(&first.rollout, &fleet).rollout.well_since, None);
    (fleet[canary].in_flight, fleet[canary].has) = (false, Has::TheRelease);
    let baking = planned(&first.rollout, &fleet);
    assert_eq!((baking.begin.len(), baking.rollout.well_since), (0, Some(NOW)));
    let until = NOW + BAKE;
    assert_eq!(baking.waiting.values().filter(|reason| **reason == Reason::Baking { until }).count(), 4);

    // One that is ill again has to be well from the beginning.
    fleet[canary].is_usable = false;
    assert_eq!(planned(&baking.rollout, &fleet).rollout.well_since, None);
    fleet[canary].is_usable = true;
    assert_eq!(plan(&baking.rollout, &fleet, until, 1).begin.len(), 3);
    // Once they were, they have done their part.
    fleet[canary].is_usable = false;
    assert_eq!(plan(&baking.rollout, &fleet, until, 1).begin.len(), 3);
}

#[test]
fn canaries_are_the_marked_ones_or_those_with_channels() {
    let mut fleet = nodes(6);
    fleet.iter_mut().for_each(|node| node.channels = 0);
    fleet[4].channels = 2;
    assert_eq!(planned(&Rollout::new(7, settings(1), NOW), &fleet).begin, [id(4)]);
    let by_label = RolloutSettings { canary_label: Some("canary".to_owned()), ..settings(1) };
    let rollout = Rollout::new(7, by_label, OffsetDateTime::UNIX_EPOCH);
    let halted = planned(&rollout, &fleet);
    assert!(halted.begin.is_empty() && matches!(halted.rollout.state, State::Halted { .. }), "nobody guesses");
    fleet[2].is_marked = true;
    assert_eq!(planned(&rollout, &fleet).begin, [id(2)]);
    // One that cannot go is not waited for.
    let chosen = planned(&Rollout::new(7, settings(1), NOW), &fleet).rollout;
    fleet[4].is_usable = false;
    let others = planned(&chosen, &fleet);
    assert_eq!(others.begin.len(), 1);
    assert_ne!(others.begin, [id(4)]);
}

#[test]
fn no_more_than_may_in_all_and_on_a_host() {
    let mut fleet = nodes(9);
    let rollout = in_waves(3, &mut fleet);
    assert_eq!(planned(&rollout, &fleet).begin.len(), 3);
    fleet[1].in_flight = true;
    let one_is = planned(&rollout, &fleet);
    assert_eq!((one_is.begin.len(), &one_is.waiting[&id(1)]), (2, &Reason::InFlight));
    assert_eq!(one_is.waiting.values().filter(|reason| **reason == Reason::FleetLimit).count(), 5);
    let host = fleet[1].host.clone();
    fleet.iter_mut().for_each(|node| node.host = host.clone());
    let same = planned(&rollout, &fleet);
    assert!(same.begin.is_empty());
    assert_eq!(same.waiting.values().filter(|reason| **reason == Reason::HostLimit).count(), 7);
}

#[test]
fn what_a_failure_has_taken_away_counts_and_what_is_down_by_itself_does_not() {
    let mut fleet = nodes(4);
    let mut rollout = in_waves(1, &mut fleet);
    rollout.settings.max_failures = 1;
    fleet[1].is_usable = false;
    assert_eq!(planned(&rollout, &fleet).begin.len(), 1);
    assert_eq!(planned(&rollout, &fleet).waiting[&id(1)], Reason::NotUsable);
    let failed = rollout.note(&id(1), Err("it does not start".to_owned()));
    assert_eq!(failed.state, State::Running);
    assert!(planned(&failed, &fleet).begin.is_empty());
    fleet[1].is_usable = true;
    assert_eq!(planned(&failed, &fleet).begin.len(), 1, "it is back on the one before");
    assert_eq!(planned(&failed, &fleet).waiting[&id(1)], Reason::Failed);
}

#[test]
fn nodes_that_share_a_channel_never_go_together() {
    let mut fleet = nodes(4);
    let rollout = in_waves(3, &mut fleet);
    // Only one of the two tells of it: the other's lnd may not have answered.
    fleet[1].neighbours = vec![id(2)];
    let begun = planned(&rollout, &fleet);
    assert_eq!(begun.begin.len(), 2);
    let (left, with) = if begun.begin.contains(&id(1)) { (id(2), id(1)) } else { (id(1), id(2)) };
    assert_eq!(begun.waiting[&left], Reason::SharesChannel { with });
    fleet[2].in_flight = true;
    assert_eq!(planned(&rollout, &fleet).waiting[&id(1)], Reason::SharesChannel { with: id(2) });
}

#[test]
fn the_treasury_goes_last_and_alone() {
    let mut fleet = nodes(3);
    let rollout = in_waves(3, &mut fleet);
    fleet[2].is_treasury = true;
    let others = planned(&rollout, &fleet);
    assert_eq!((others.begin.as_slice(), &others.waiting[&id(2)]), ([id(1)].as_slice(), &Reason::Last));
    fleet[1].in_flight = true;
    assert_eq!(planned(&rollout, &fleet).waiting[&id(2)], Reason::Last);
    (fleet[1].in_flight, fleet[1].has) = (false, Has::TheRelease);
    assert_eq!(planned(&rollout, &fleet).begin, [id(2)]);
    // Where there is nobody else it is its own canary.
    let mut alone = nodes(1);
    alone[0].is_treasury = true;
    assert_eq!(planned(&Rollout::new(7, settings(1), NOW), &alone).begin, [id(0)]);
}

#[test]
fn a_failed_canary_halts_whatever_may_fail_and_retry_begins_with_it() {
    let fleet = nodes(3);
    let generous = RolloutSettings { max_failures: 5, ..settings(2) };
    let first = planned(&Rollout::new(7, generous, OffsetDateTime::UNIX_EPOCH), &fleet);
    let canary = first.begin[0].clone();
    let halted = first.rollout.note(&canary, Err("no".to_owned()));
    assert!(matches!(&halted.state, State::Halted { why } if why.contains("no")), "{:?}", halted.state);
    let stands = planned(&halted, &fleet);
    assert!(stands.begin.is_empty());
    assert_eq!(stands.waiting[&canary], Reason::Failed);
    let again = halted.retry().unwrap();
    let retried = planned(&again, &fleet);
    assert_eq!(retried.begin, std::slice::from_ref(&canary));
    assert_eq!(retried.waiting.values().filter(|reason| **reason == Reason::AfterRetries).count(), 2);
    assert_eq!(retried.rollout.note(&canary, Ok(())).failed.len(), 0);
}

#[test]
fn an_operators_word_is_followed_where_it_makes_sense() {
    let rollout = Rollout::new(7, settings(1), NOW);
    let paused = rollout.clone().pause().unwrap();
    let fleet = nodes(2);
    let held = planned(&paused, &fleet);
    assert!(held.begin.is_empty() && held.waiting.values().all(|reason| *reason == Reason::NotRunning("paused")));
    assert_eq!(paused.clone().pause().unwrap_err().to_string(), "the rollout is paused");
    assert_eq!(paused.clone().resume().unwrap(), rollout);
    let aborted = paused.clone().abort().unwrap();
    assert!(planned(&aborted, &fleet).begin.is_empty());
    for word in [Rollout::pause, Rollout::resume, Rollout::abort, Rollout::retry] {
        assert!(word(aborted.clone()).is_err());
    }
    assert!(rollout.clone().retry().is_err() && rollout.clone().resume().is_err());
    assert_eq!(rollout.clone().supersede(8).state, State::Superseded { by: 8 });
    assert_eq!(rollout.clone().supersede(7).state, State::Running, "not by itself");
    assert!(planned(&rollout.supersede(8), &fleet).begin.is_empty());
}

#[test]
fn it_is_done_when_nobody_is_left_and_goes_on_when_somebody_comes_back() {
    let mut fleet = nodes(3);
    let rollout = in_waves(1, &mut fleet);
    fleet[1].has = Has::Another;
    fleet[2].is_usable = false;
    let done = planned(&rollout, &fleet);
    assert_eq!((done.begin.len(), &done.rollout.state), (0, &State::Done));
    assert_eq!((&done.waiting[&id(1)], &done.waiting[&id(2)]), (&Reason::OtherVersion, &Reason::NotUsable));
    fleet[2].is_usable = true;
    let back = planned(&done.rollout, &fleet);
    assert_eq!((back.begin.as_slice(), &back.rollout.state), ([id(2)].as_slice(), &State::Running));
    assert_eq!(planned(&Rollout::new(7, settings(1), NOW), &[]).rollout.state, State::Done);
}

#[test]
fn what_is_stored_is_read_again() {
    let mut rollout = Rollout::new(7, settings(2), NOW).note(&id(1), Err("no".to_owned()));
    (rollout.well_since, rollout.canaries) = (Some(NOW), [id(0)].into());
    let stored = serde_json::to_value(&rollout).unwrap();
    assert_eq!(stored["settings"]["bake_seconds"], 600);
    assert_eq!(serde_json::from_value::<Rollout>(stored).unwrap(), rollout);
}
