//! Whatever comes in whatever order: an operation ends once, and what its app has used is what was set aside by those that
//! have not ended and what was spent by those that have.

use super::*;
use crate::model::app::Limits;
use crate::model::ids::{AppId, NodeId, OperationId, Uuid};
use crate::model::limits::Bounds;
use crate::model::operation::Owner;
use crate::model::problem::{Code, Refusal};
use crate::model::work::Work;
use crate::model::work::delete::{Delete, DeleteStep};
use proptest::prelude::*;
use serde_json::json;
use std::time::Duration;
use time::OffsetDateTime;

/// Something that happens to one of the operations there are, or a new one.
#[derive(Debug, Clone)]
enum Event {
    Accepted { sat: u64, nodes: u64, next_day: bool },
    Advanced { which: usize, how: How },
    Freed { which: usize },
}

#[derive(Debug, Clone)]
enum How {
    Next(DeleteStep),
    Again,
    Parked,
    Kept,
    Spent(u64),
    OneNodeLess,
    Failed(u64),
}

fn how() -> impl Strategy<Value = How> {
    prop_oneof![
        proptest::sample::select(DeleteStep::ALL.to_vec()).prop_map(How::Next),
        Just(How::Again),
        Just(How::Parked),
        Just(How::Kept),
        // More than was set aside, too: an lnd may lie.
        (0u64..3_000).prop_map(How::Spent),
        Just(How::OneNodeLess),
        (0u64..3_000).prop_map(How::Failed),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => (0u64..2_000, 0u64..2, proptest::bool::weighted(0.1))
            .prop_map(|(sat, nodes, next_day)| Event::Accepted { sat, nodes, next_day }),
        5 => (0usize..6, how()).prop_map(|(which, how)| Event::Advanced { which, how }),
        1 => (0usize..6).prop_map(|which| Event::Freed { which }),
    ]
}

fn refusal() -> Refusal {
    Refusal::new(Code::LndRefused, "no")
}

fn advance(how: &How) -> Advance {
    let done = |settle| Advance::Done { result: json!(1), settle, writes: Vec::new() };
    match *how {
        How::Next(step) => Advance::next(Work::Delete(Delete { step }), "on"),
        How::Again => Advance::again("again", Duration::ZERO),
        How::Parked => Advance::Park { refusal: refusal() },
        How::Kept => done(Settle::Keep),
        How::Spent(sat) => done(Settle::Spent(Sat(sat))),
        How::OneNodeLess => done(Settle::OneNodeLess { shard: 0 }),
        How::Failed(sat) => Advance::Failed { refusal: refusal(), spent_sat: Sat(sat), writes: Vec::new() },
    }
}

fn accepted(reservation: Reservation) -> Operation {
    let mut rng = rand::rng();
    Operation {
        id: OperationId::random(OffsetDateTime::UNIX_EPOCH, &mut rng),
        owner: Some(Owner { app: AppId::parse("shop").unwrap(), uuid: Uuid::parse("alice").unwrap() }),
        node: Some(NodeId::random(&mut rng)),
        host: None,
        work: Work::Delete(Delete { step: DeleteStep::Check }),
        state: State::Running,
        progress: String::new(),
        reservation: Some(reservation),
        created_at: OffsetDateTime::UNIX_EPOCH,
        updated_at: OffsetDateTime::UNIX_EPOCH,
    }
}

/// An operation, and what it must count for: nodes, and satoshi on its day.
struct Counted {
    operation: Operation,
    day: i64,
    nodes: u64,
    sat: u64,
}

impl Counted {
    /// What must come of an advance, said a second time and more simply.
    fn expect(&mut self, how: &How) {
        match *how {
            How::Spent(sat) => self.sat = sat.min(self.sat),
            How::Failed(sat) => (self.sat, self.nodes) = (sat.min(self.sat), 0),
            How::Next(_) | How::Again | How::Parked | How::Kept | How::OneNodeLess => {}
        }
    }

    /// Advances, and settles the usage as `commit` does.
    fn advance(&mut self, how: &How, usage: &mut Usage, fewer: &mut u64) -> std::result::Result<(), TestCaseError> {
        let before = self.operation.clone();
        let Ok((_, settled)) = apply(&mut self.operation, advance(how)) else {
            prop_assert_eq!(&self.operation, &before, "what is refused changes nothing");
            let backwards = matches!((how, &before.work),
                (How::Next(next), Work::Delete(now)) if *next < now.step);
            prop_assert!(!before.is_running() || backwards, "{how:?} of {before:?} was refused");
            return Ok(());
        };
        prop_assert!(before.is_running(), "what has ended, or is parked, went on");
        if let Some(settled) = settled {
            if !matches!(how, How::OneNodeLess) {
                prop_assert_eq!(Some(settled.held), before.reservation, "given back is at most what was set aside");
            }
            usage.settle(&settled.held, &settled.kept);
        }
        *fewer += u64::from(matches!(how, How::OneNodeLess));
        self.expect(how);
        Ok(())
    }
}

proptest! {
    #[test]
    fn what_is_used_is_what_is_set_aside_and_what_was_spent(events in proptest::collection::vec(event(), 1..60)) {
        // Nodes that were there before, so that there are some to delete.
        let mut usage = Usage { nodes: 1_000, ..Usage::of("shop") };
        let (mut all, mut day, mut fewer): (Vec<Counted>, i64, u64) = (Vec::new(), 1, 0);
        for event in events {
            match event {
                Event::Accepted { sat, nodes, next_day } => {
                    day += i64::from(next_day);
                    let ask = Reservation { day, hour: day * 24, nodes, outgoing_sat: Sat(sat), ..Reservation::default() };
                    let bounds = Bounds::of(&Limits::default(), &ask, true).expect("no limit");
                    prop_assert!(usage.take(&bounds, &ask));
                    all.push(Counted { operation: accepted(ask), day, nodes, sat });
                }
                Event::Advanced { which, how } => {
                    if let Some(counted) = all.iter_mut().rev().nth(which) {
                        counted.advance(&how, &mut usage, &mut fewer)?;
                    }
                }
                Event::Freed { which } => {
                    if let Some(Counted { operation, .. }) = all.iter_mut().rev().nth(which) {
                        let before = operation.clone();
                        let freed = operation.free(OffsetDateTime::UNIX_EPOCH);
                        prop_assert_eq!(freed, matches!(before.state, State::Parked { .. }));
                        prop_assert!(freed && operation.is_running() || *operation == before);
                        prop_assert_eq!(&operation.work, &before.work, "at the step where it was parked");
                    }
                }
            }
            let today: u64 = all.iter().filter(|counted| counted.day == day).map(|counted| counted.sat).sum();
            let there = if all.is_empty() { 0 } else { today };
            prop_assert_eq!(usage.outgoing_sat, Sat(there));
            prop_assert_eq!(usage.nodes, 1_000 + all.iter().map(|counted| counted.nodes).sum::<u64>() - fewer);
        }
    }
}
