//! A limit that many operations use at the same time, counted in several documents, so that none of them is written by all.
//!
//! What was used of a subject's limits is the sum over its documents. Each has a **part** of each limit, and counts up to that
//! without looking at the others; an operation takes any one of them, and gives back where it has taken. Where that one has
//! no room, the operation reads all of them, decides on their sum as if there were one, and **deals** the limit anew: each
//! document gets what it counts already and the same share of what is left. So:
//!
//! - *The limit holds.* All parts are written together, in one commit, conditional on every document; together they are the
//!   limit; a document counts past its part never. Nothing else writes parts.
//! - *Nobody is refused who has room*, nor early: only the sum refuses.
//! - *A changed limit holds at once.* A part says which limit it is a part of; one of another limit counts nothing. As all
//!   parts are dealt together, one look is enough. (The same for a limit that was unset, or is now: without a limit there
//!   are no parts, and with parts none can be without limit.) Where more is used than a lowered limit allows, there are no
//!   parts until enough was given back: everyone looks at all.
//! - *It is rare.* A deal gives each a share of all that is left, so that the next is due after about all of that is used:
//!   it takes a few for each document to come to the end of a limit. A small limit is dealt more often, in relation, but what
//!   is small is also soon used up. Hours and days need none: parts stay, only counts begin anew.
//! - *A single document*, which is what a Store with one writer uses ([`crate::store::Store::spread`]), has all of the limit
//!   and is what there was before there were parts: one that an earlier version wrote has no part, and so is dealt with
//!   first. A deployment that moves to another Store takes its documents along, and each goes on counting.

use super::{Bounds, KINDS, Part, Reservation, Usage};
use crate::model::app::Limits;
use crate::model::problem::{Code, Refusal};
use time::OffsetDateTime;

/// How many documents there may be of a subject, whatever Store it is in.
pub const SHARDS: u8 = 16;

impl Usage {
    /// Sets `ask` aside, if this document's parts suffice for it. `self` is as it was if not.
    #[must_use]
    pub fn take(&mut self, bounds: &Bounds, ask: &Reservation) -> bool {
        let mut next = self.clone();
        next.roll(ask.hour, ask.day);
        next.add(ask);
        let asked = ask.amounts().into_iter().zip(next.amounts());
        let fits =
            asked.zip(bounds.0).zip(self.parts.all()).all(|(((asked, used), limit), part)| match (limit, part) {
                _ if asked == 0 => true,
                (None, None) => true,
                (Some(limit), Some(part)) => part.of == limit && used <= part.most,
                (Some(_), None) | (None, Some(_)) => false,
            });
        if fits {
            *self = next;
        }
        fits
    }

    /// Whether it has no part of any limit.
    #[must_use]
    pub fn has_no_parts(&self) -> bool {
        self.parts.all() == [None; KINDS]
    }

    fn used(&self, kind: usize) -> u64 {
        self.amounts().get(kind).copied().unwrap_or(0)
    }
}

/// Sets `ask` aside in the document `ask.shard`, and deals all limits anew among the first `spread`. `all` are the documents of
/// a subject, in order.
///
/// # Errors
/// A [`Refusal`] that names the limit, what is used and what was asked; the counts in `all` are then as they were.
pub fn reserve(all: &mut [Usage], spread: u8, bounds: &Bounds, ask: &Reservation) -> Result<(), Refusal> {
    let hour = all.iter().map(|usage| usage.hour).fold(ask.hour, i64::max);
    let day = all.iter().map(|usage| usage.day).fold(ask.day, i64::max);
    for usage in &mut *all {
        usage.roll(hour, day);
    }
    let names = Limits::default().all().map(|(name, _)| name);
    for (kind, ((name, asked), limit)) in names.into_iter().zip(ask.amounts()).zip(bounds.0).enumerate() {
        check(name, limit, asked, total(all, kind))?;
    }
    if let Some(usage) = all.get_mut(usize::from(ask.shard)) {
        usage.add(ask);
    }
    for (kind, limit) in bounds.0.into_iter().enumerate() {
        deal(all, kind, limit, spread.max(1), ask.shard);
    }
    Ok(())
}

/// What was used in all documents of a subject, in this hour and on this day.
#[must_use]
pub fn sum(all: &[Usage], now: OffsetDateTime) -> Usage {
    let Reservation { hour, day, .. } = Reservation::at(now);
    let mut sum = Usage { hour, day, ..Usage::default() };
    for usage in all {
        let mut usage = usage.clone();
        usage.roll(hour, day);
        let Usage { nodes, creates, funding_sat, outgoing_sat, .. } = usage;
        sum.add(&Reservation { nodes, creates, funding_sat, outgoing_sat, ..Reservation::default() });
    }
    sum
}

fn total(all: &[Usage], kind: usize) -> u64 {
    all.iter().map(|usage| usage.used(kind)).fold(0, u64::saturating_add)
}

fn check(name: &str, limit: Option<u64>, asked: u64, used: u64) -> Result<(), Refusal> {
    match limit {
        Some(limit) if asked > 0 && used.saturating_add(asked) > limit => {
            let refusal = Refusal::new(Code::LimitExceeded, format!("{name} would be exceeded"))
                .with("limit_name", name)
                .with("limit", limit)
                .with("used", used)
                .with("needed", asked);
            Err(refusal)
        }
        _ => Ok(()),
    }
}

/// Parts of what is left for the first `spread`; what cannot be divided goes to `asker`, who is here now.
fn deal(all: &mut [Usage], kind: usize, limit: Option<u64>, spread: u8, asker: u8) {
    let left = limit.and_then(|limit| Some((limit, limit.checked_sub(total(all, kind))?)));
    for usage in all {
        let part = left.map(|(of, left)| {
            let share = if usage.shard < spread { left / u64::from(spread) } else { 0 };
            let rest = if usage.shard == asker { left % u64::from(spread) } else { 0 };
            Part { of, most: usage.used(kind).saturating_add(share).saturating_add(rest) }
        });
        usage.parts.set(kind, part);
    }
}

#[cfg(test)]
#[path = "shards_tests.rs"]
mod tests;
