//! Whole rollouts of any fleet, with whatever may go wrong, in any order: what must never be never is, and they end.

use super::plan::{Has, Plan, Seen, plan};
use super::plan_tests::node;
use super::{Rollout, State};
use crate::model::ids::{HostId, NodeId};
use crate::model::release::RolloutSettings;
use proptest::prelude::*;
use std::collections::HashSet;
use std::time::Duration;
use time::OffsetDateTime;

const BAKE: Duration = Duration::from_secs(10);

/// What happens between two plans.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// The nth of those in flight ends; whether it passed.
    Ends(usize, bool),
    /// The nth node is down, or is there again.
    Turns(usize),
    /// Time passes.
    Waits(u8),
    /// An operator's word.
    Pauses,
    Resumes,
    Retries,
}

#[derive(Debug, Clone)]
struct World {
    fleet: Vec<Seen>,
    rollout: Rollout,
    now: OffsetDateTime,
    seed: u64,
}

prop_compose! {
    fn world()(
        kinds in proptest::collection::vec((0usize..4, 0u8..10, any::<bool>(), any::<bool>()), 1..24),
        shared in proptest::collection::vec((0usize..24, 0usize..24), 0..20),
        limits in (1u32..4, 1u32..5, 1u32..3, 0u32..3),
        marks: bool,
        has_treasury: bool,
        seed: u64,
    ) -> World {
        let count = kinds.len();
        let mut fleet: Vec<Seen> = kinds.iter().enumerate().map(|(n, (host, kind, is_usable, is_marked))| Seen {
            host: HostId::parse(&format!("h{host:024x}")).expect("an id"),
            has: match kind { 0 => Has::Another, 1 => Has::TheRelease, _ => Has::AFormer },
            is_usable: *is_usable || *kind > 4,
            is_marked: *is_marked,
            channels: 0,
            is_treasury: has_treasury && n == 0,
            ..node(n)
        }).collect();
        for (one, other) in shared.into_iter().map(|(a, b)| (a % count, b % count)).filter(|(a, b)| a != b) {
            let neighbour = fleet[other].id.clone();
            fleet[one].neighbours.push(neighbour);
            fleet[one].channels += 1;
            fleet[other].channels += 1;
        }
        let (canaries, max_unavailable, max_unavailable_per_host, max_failures) = limits;
        let canary_label = marks.then(|| "canary".to_owned());
        let settings = RolloutSettings {
            canaries, canary_label, max_unavailable, max_unavailable_per_host, max_failures, bake: BAKE,
            ..RolloutSettings::default()
        };
        World { fleet, rollout: Rollout::new(7, settings, OffsetDateTime::UNIX_EPOCH), now: OffsetDateTime::UNIX_EPOCH, seed }
    }
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (any::<usize>(), prop::bool::weighted(0.9)).prop_map(|(n, passed)| Event::Ends(n, passed)),
        2 => any::<usize>().prop_map(Event::Turns),
        3 => (0u8..8).prop_map(Event::Waits),
        1 => Just(Event::Pauses),
        2 => Just(Event::Resumes),
        1 => Just(Event::Retries),
    ]
}

impl World {
    fn in_flight(&self) -> Vec<usize> {
        (0..self.fleet.len()).filter(|n| self.fleet[*n].in_flight).collect()
    }

    /// Plans, makes sure of what must hold, and begins.
    fn step(&mut self) -> Result<Plan, TestCaseError> {
        let next = plan(&self.rollout, &self.fleet, self.now, self.seed);
        prop_assert_eq!(&next, &plan(&self.rollout, &self.fleet, self.now, self.seed), "the same plan again");
        let told = next.begin.len() + next.waiting.len();
        prop_assert_eq!(told, self.fleet.len(), "each has a word");
        prop_assert!(next.begin.iter().all(|id| !next.waiting.contains_key(id)));
        if self.rollout.well_since.is_none() && next.rollout.well_since.is_some() {
            let away = self.in_flight().into_iter().filter(|n| next.rollout.canaries.contains(&self.fleet[*n].id));
            prop_assert_eq!(away.count(), 0, "well before the gate has said so");
        }
        self.may_begin(&next)?;
        for node in self.fleet.iter_mut().filter(|node| next.begin.contains(&node.id)) {
            prop_assert!(node.is_usable && node.has == Has::AFormer && !node.in_flight);
            node.in_flight = true;
        }
        self.rollout = next.rollout.clone();
        self.limits_hold()?;
        Ok(next)
    }

    fn may_begin(&self, next: &Plan) -> Result<(), TestCaseError> {
        if next.begin.is_empty() {
            return Ok(());
        }
        let failed = |id: &NodeId| self.rollout.failed.contains_key(id);
        prop_assert!(matches!(self.rollout.state, State::Running | State::Done), "{:?}", self.rollout.state);
        prop_assert!(!next.rollout.canaries.iter().any(failed), "past a failed canary");
        prop_assert!(self.rollout.failed.len() <= self.rollout.settings.max_failures as usize);
        let others = next.begin.iter().filter(|id| !next.rollout.canaries.contains(*id));
        let is_treasury = |id: &&NodeId| self.fleet.iter().any(|node| node.id == **id && node.is_treasury);
        let before_bake = next.rollout.well_since.is_none_or(|since| self.now < since + self.rollout.settings.bake);
        let retries = |id: &&NodeId| self.rollout.again.contains(*id);
        let early = others.filter(|id| before_bake && !is_treasury(id) && !retries(id)).count();
        prop_assert_eq!(early, 0, "before the canaries were well for long enough");
        if let Some(treasury) = self.fleet.iter().find(|node| node.is_treasury && next.begin.contains(&node.id)) {
            prop_assert_eq!((next.begin.len(), self.in_flight().len()), (1, 0), "{} is not alone", treasury.id);
        }
        Ok(())
    }

    fn limits_hold(&self) -> Result<(), TestCaseError> {
        let settings = &self.rollout.settings;
        let away: Vec<&Seen> = self.fleet.iter().filter(|node| node.in_flight).collect();
        prop_assert!(away.len() <= settings.max_unavailable as usize, "{} at once", away.len());
        for node in &away {
            let on_host = away.iter().filter(|other| other.host == node.host).count();
            prop_assert!(on_host <= settings.max_unavailable_per_host as usize, "{on_host} on a host");
            let shares = away.iter().any(|other| node.neighbours.contains(&other.id));
            prop_assert!(!shares, "two that share a channel");
        }
        Ok(())
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Ends(n, passed) => {
                let away = self.in_flight();
                let Some(which) = away.get(n % away.len().max(1)).copied() else { return };
                self.ends(which, passed);
            }
            Event::Turns(n) => {
                let count = self.fleet.len();
                self.fleet[n % count].is_usable ^= true;
            }
            Event::Waits(seconds) => {
                self.now += Duration::from_secs(seconds.into());
                // They run it by now, and the gate has not said a word.
                self.fleet.iter_mut().filter(|node| node.in_flight).for_each(|node| node.has = Has::TheRelease);
            }
            Event::Pauses => self.rollout = self.rollout.clone().pause().unwrap_or(self.rollout.clone()),
            Event::Resumes => self.rollout = self.rollout.clone().resume().unwrap_or(self.rollout.clone()),
            Event::Retries => self.rollout = self.rollout.clone().retry().unwrap_or(self.rollout.clone()),
        }
    }

    fn ends(&mut self, which: usize, passed: bool) {
        let node = &mut self.fleet[which];
        node.in_flight = false;
        node.has = if passed { Has::TheRelease } else { Has::AFormer };
        let outcome = if passed { Ok(()) } else { Err("it did not pass".to_owned()) };
        self.rollout = self.rollout.clone().note(&node.id.clone(), outcome);
    }

    /// From now on nothing goes wrong. How many rounds it takes until nothing is left to do.
    fn runs_out(&mut self) -> Result<usize, TestCaseError> {
        let most = 4 * self.fleet.len() + 20;
        for round in 0..most {
            for word in [Event::Resumes, Event::Retries] {
                self.happens(word);
            }
            self.step()?;
            let away = self.in_flight();
            if away.is_empty() && self.rollout.state == State::Done && self.rollout.failed.is_empty() {
                return Ok(round);
            }
            if away.is_empty() && matches!(self.rollout.state, State::Halted { .. }) {
                // Nobody has the label of canaries.
                prop_assert!(self.rollout.settings.canary_label.is_some() && self.rollout.failed.is_empty());
                return Ok(round);
            }
            away.into_iter().for_each(|which| self.ends(which, true));
            self.now += BAKE / 4;
        }
        Err(TestCaseError::fail(format!("it does not end: {self:?}")))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_happens_the_limits_hold_and_it_ends(
        mut world in world(),
        events in proptest::collection::vec(event(), 0..80),
    ) {
        for event in events {
            world.step()?;
            world.happens(event);
        }
        world.fleet.iter_mut().for_each(|node| node.is_usable = true);
        world.runs_out()?;
        let missed: HashSet<&NodeId> =
            world.fleet.iter().filter(|node| node.has == Has::AFormer).map(|node| &node.id).collect();
        let halted = matches!(world.rollout.state, State::Halted { .. });
        prop_assert!(halted || missed.is_empty(), "{missed:?}");
    }

    /// Without faults and channels: the canaries' wave, and then no more waves than need be.
    #[test]
    fn an_easy_fleet_takes_no_more_waves_than_it_must(count in 1usize..60, at_once in 1u32..9, seed: u64) {
        let fleet = (0..count).map(|n| Seen { channels: 0, ..node(n) });
        let settings = RolloutSettings { max_unavailable: at_once, bake: Duration::ZERO, ..RolloutSettings::default() };
        let now = OffsetDateTime::UNIX_EPOCH;
        let mut world = World { fleet: fleet.collect(), rollout: Rollout::new(7, settings, OffsetDateTime::UNIX_EPOCH), now, seed };
        let waves = world.runs_out()?;
        prop_assert_eq!(waves, 1 + (count - 1).div_ceil(at_once as usize));
    }
}
