//! Any number of documents decide as one would.

use super::*;
use crate::model::amount::Sat;
use proptest::prelude::*;

/// What one document that everybody writes would do: the rule, said most simply.
#[derive(Debug, Default)]
struct Plain {
    hour: i64,
    day: i64,
    held: Vec<Reservation>,
}

impl Plain {
    fn used(&self, kind: usize) -> u64 {
        let counts = |held: &&Reservation| match kind {
            0 => true,
            1 => held.hour == self.hour,
            _ => held.day == self.day,
        };
        self.held.iter().filter(counts).map(|held| held.amounts()[kind]).sum()
    }

    fn roll(&mut self, ask: &Reservation) {
        (self.hour, self.day) = (self.hour.max(ask.hour), self.day.max(ask.day));
    }

    fn has_room(&self, limits: &Limits, ask: &Reservation) -> bool {
        let each = limits.all().into_iter().zip(ask.amounts()).enumerate();
        each.into_iter()
            .all(|(kind, ((_, limit), asked))| asked == 0 || limit.is_none_or(|limit| self.used(kind) + asked <= limit))
    }
}

#[derive(Debug, Clone)]
enum Event {
    Ask {
        shard: u8,
        spread: u8,
        creates: u64,
        sat: u64,
    },
    /// Some of what was asked for and not yet settled comes to less: half of it, or nothing.
    Settle {
        which: usize,
        half: bool,
    },
    /// More is needed for something that runs.
    Raise {
        which: usize,
        by: u64,
    },
    Limit {
        creates: Option<u64>,
        sat: Option<u64>,
    },
    Later {
        hours: i64,
    },
}

fn event() -> impl Strategy<Value = Event> {
    let limit = || proptest::option::weighted(0.8, 0u64..400);
    prop_oneof![
        10 => (0..SHARDS, 1..=SHARDS, 0u64..3, 0u64..60).prop_map(|(shard, spread, creates, sat)| {
            Event::Ask { shard: shard % spread, spread, creates, sat }
        }),
        4 => (0usize..30, any::<bool>()).prop_map(|(which, half)| Event::Settle { which, half }),
        2 => (0usize..30, 0u64..60).prop_map(|(which, by)| Event::Raise { which, by }),
        1 => (limit(), limit()).prop_map(|(creates, sat)| Event::Limit { creates, sat }),
        1 => (1i64..30).prop_map(|hours| Event::Later { hours }),
    ]
}

/// The documents, and what they should come to.
struct World {
    all: Vec<Usage>,
    plain: Plain,
    limits: Limits,
    hours: i64,
    dealt: u64,
}

impl World {
    fn new() -> Self {
        let all = (0..SHARDS).map(|shard| Usage { shard, ..Usage::of("shop") }).collect();
        let limits = Limits { creates_per_hour: Some(40), outgoing_sat_per_day: Some(300), ..Limits::default() };
        Self { all, plain: Plain::default(), limits, hours: 0, dealt: 0 }
    }

    fn ask(&self, shard: u8, creates: u64, sat: u64) -> Reservation {
        let (hour, day) = (self.hours, self.hours.div_euclid(24));
        Reservation { hour, day, nodes: creates, creates, outgoing_sat: Sat(sat), shard, ..Reservation::default() }
    }

    /// As `app/usage.rs` does it.
    fn set_aside(&mut self, spread: u8, ask: Reservation, held: Option<usize>) -> Result<(), TestCaseError> {
        let bounds = Bounds::of(&self.limits, &ask, true).expect("unset is unlimited");
        let held = held.map(|which| self.plain.held.remove(which));
        let mut all = self.all.clone();
        if let Some(held) = &held {
            all[usize::from(held.shard)].release(held);
        }
        let mut done = all[usize::from(ask.shard)].take(&bounds, &ask);
        if !done {
            self.dealt += 1;
            done = reserve(&mut all, spread, &bounds, &ask).is_ok();
        }
        self.plain.roll(&ask);
        prop_assert_eq!(done, self.plain.has_room(&self.limits, &ask), "{:?} of {:?}", ask, self.plain);
        if done {
            self.all = all;
            self.plain.held.push(ask);
        } else {
            self.plain.held.extend(held);
        }
        Ok(())
    }

    fn settle(&mut self, which: usize, half: bool) {
        let held = self.plain.held.remove(which);
        let kept = Reservation { nodes: 0, creates: 0, outgoing_sat: Sat(held.outgoing_sat.0 / 2), ..held };
        let kept = if half { kept } else { Reservation { outgoing_sat: Sat(0), ..kept } };
        self.all[usize::from(held.shard)].settle(&held, &kept);
        self.plain.held.push(kept);
    }

    fn happens(&mut self, event: &Event) -> Result<(), TestCaseError> {
        let there = self.plain.held.len();
        match *event {
            Event::Ask { shard, spread, creates, sat } => {
                return self.set_aside(spread, self.ask(shard, creates, sat), None);
            }
            Event::Settle { which, half } if which < there => self.settle(which, half),
            Event::Raise { which, by } if which < there => {
                let held = self.plain.held[which];
                let ask = self.ask(held.shard, held.creates, held.outgoing_sat.0 + by);
                return self.set_aside(SHARDS, ask, Some(which));
            }
            Event::Limit { creates, sat } => {
                self.limits = Limits { creates_per_hour: creates, outgoing_sat_per_day: sat, ..self.limits };
            }
            Event::Later { hours } => self.hours += hours,
            Event::Settle { .. } | Event::Raise { .. } => {}
        }
        Ok(())
    }

    /// What is counted is what is held, and parts are parts of one limit.
    fn is_sound(&mut self) -> Result<(), TestCaseError> {
        let now = OffsetDateTime::from_unix_timestamp(self.hours * 3600).unwrap();
        let sum = sum(&self.all, now);
        self.plain.roll(&Reservation::at(now));
        prop_assert_eq!(sum.amounts(), [0, 1, 2, 3].map(|kind| self.plain.used(kind)));
        for kind in 0..KINDS {
            let parts: Vec<Option<Part>> = self.all.iter().map(|usage| usage.parts.all()[kind]).collect();
            prop_assert!(parts.iter().all(|part| part.map(|p| p.of) == parts[0].map(|p| p.of)), "{parts:?}");
            let most: u64 = parts.iter().flatten().map(|part| part.most).sum();
            prop_assert!(parts[0].is_none_or(|part| most <= part.of), "{parts:?}");
        }
        Ok(())
    }
}

proptest! {
    /// Whatever is asked, settled, raised and limited, in whatever document: it is decided as one document would, so a limit is
    /// never exceeded, and nobody refused while there is room. All given back is nothing used.
    #[test]
    fn they_decide_as_one(events in proptest::collection::vec(event(), 1..120)) {
        let mut world = World::new();
        for event in &events {
            world.happens(event)?;
            world.is_sound()?;
        }
        while let Some(held) = world.plain.held.pop() {
            world.all[usize::from(held.shard)].release(&held);
        }
        world.is_sound()?;
    }
}

/// Coming to the end of a limit takes a few deals for each document, not one for each operation.
#[test]
fn dealing_is_rare() {
    let mut world = World::new();
    world.limits = Limits { outgoing_sat_per_day: Some(100_000), ..Limits::default() };
    for n in 0..10_000u32 {
        let shard = u8::try_from(n.wrapping_mul(2_654_435_761) >> 28).unwrap();
        world.set_aside(SHARDS, world.ask(shard, 0, 10), None).unwrap();
    }
    assert_eq!(total(&world.all, 3), 100_000);
    println!("{} deals", world.dealt);
    assert!(world.dealt <= 100, "{} deals for 10,000 operations", world.dealt);
}

/// A document as the version before wrote it, with what it counts.
#[test]
fn one_of_an_earlier_version_goes_on_counting() {
    let old = serde_json::json!({"subject": "shop", "nodes": 3, "hour": 5, "creates": 2, "day": 0, "funding_sat": 0,
        "outgoing_sat": 70});
    let mut all: Vec<Usage> = (0..SHARDS).map(|shard| Usage { shard, ..Usage::of("shop") }).collect();
    all[0] = serde_json::from_value(old).unwrap();
    let limits = Limits { outgoing_sat_per_day: Some(100), ..Limits::default() };
    let ask = |sat| Reservation { hour: 5, outgoing_sat: Sat(sat), shard: 4, ..Reservation::default() };
    let bounds = Bounds::of(&limits, &ask(1), true).unwrap();
    assert!(!all[0].take(&bounds, &Reservation { shard: 0, ..ask(1) }), "it has no part yet");
    let refusal = reserve(&mut all, SHARDS, &bounds, &ask(31)).unwrap_err();
    assert_eq!((refusal.code, refusal.details.get("used")), (Code::LimitExceeded, Some(&serde_json::json!(70))));
    reserve(&mut all, SHARDS, &bounds, &ask(30)).unwrap();
    assert_eq!((total(&all, 3), all[4].outgoing_sat, all[0].nodes), (100, Sat(30), 3));
}

#[test]
fn a_limit_that_was_away_counts_what_was_used_meanwhile() {
    let mut world = World::new();
    let limited = world.limits;
    world.set_aside(SHARDS, world.ask(1, 0, 100), None).unwrap();
    world.limits = Limits::default();
    for shard in 0..SHARDS {
        world.set_aside(SHARDS, world.ask(shard, 0, 100), None).unwrap();
    }
    world.limits = limited;
    let bounds = Bounds::of(&limited, &world.ask(9, 0, 1), true).unwrap();
    assert!(!world.all[9].clone().take(&bounds, &world.ask(9, 0, 1)));
    let ask = world.ask(9, 0, 1);
    assert!(reserve(&mut world.all, SHARDS, &bounds, &ask).is_err());
}

#[test]
fn unset_means_refused_where_coins_are_worth_something() {
    let ask = Reservation { outgoing_sat: Sat(1), ..Reservation::default() };
    let refusal = Bounds::of(&Limits::default(), &ask, false).expect_err("refused");
    assert_eq!(refusal.code, Code::LimitUnset);
    assert!(Bounds::of(&Limits::default(), &ask, true).is_ok());
    assert!(Bounds::of(&Limits::default(), &Reservation::default(), false).is_ok(), "what is not asked needs no limit");
}

#[test]
fn a_new_day_starts_at_zero_and_late_releases_do_not_touch_it() {
    let mut world = World::new();
    world.set_aside(SHARDS, world.ask(0, 0, 300), None).unwrap();
    let yesterday = world.plain.held[0];
    world.hours = 24;
    world.set_aside(SHARDS, world.ask(0, 0, 7), None).unwrap();
    world.all[0].release(&yesterday);
    assert_eq!(world.all[0].outgoing_sat, Sat(7));
}
