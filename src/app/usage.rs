//! Sets aside in the Store what an operation may cost, and sums up what was used. What is decided by is in
//! `model/limits/shards.rs`; here is what is read for it and how sure that is.
//!
//! One document that has room is read and written. Where it has none, all of them are read and written, each on the
//! condition that nobody has written it since: whatever races, the limit holds. They are not read as of one instant, so a sum
//! that seems to be too much may be none that ever was. It is believed, and a call refused, only when all of them are read a
//! second time and nothing has changed: then they were like this all together, between the two.

use super::refuse;
use super::service::step_aside;
use crate::model::limits::shards::{self, SHARDS};
use crate::model::limits::{Bounds, Reservation, Usage};
use crate::model::problem::{Code, Refusal};
use crate::store::repo::{self, Entity, Versioned};
use crate::store::{Result as StoreResult, Store, Version, Write};
use rand::RngExt;
use time::OffsetDateTime;

/// How often all documents of a subject are read while others write them.
const MOST_LOOKS: u32 = 1000;

/// What to commit in order to set something aside.
#[derive(Debug)]
pub struct Aside {
    /// The writes.
    pub writes: Vec<Write>,
    /// Whether they deal the limits anew, so that these must not have changed meanwhile.
    pub dealt: bool,
}

/// The number of a document to count in: any.
pub fn pick(store: &dyn Store) -> u8 {
    rand::rng().random_range(0..store.spread().max(1))
}

/// The writes that set `ask` aside for `subject` in the document `ask.shard`, in the place of what is `held` already. A
/// conflict over them means: again.
///
/// # Errors
/// The limit that would be exceeded, with all that is used of it; or the Store cannot be asked.
pub async fn set_aside(
    store: &dyn Store,
    subject: &str,
    bounds: &Bounds,
    ask: &Reservation,
    held: Option<&Reservation>,
) -> Result<Aside, Refusal> {
    let one = in_one(store, subject, bounds, ask, held).await.map_err(|e| refuse::store(&e))?;
    if let Some(write) = one {
        return Ok(Aside { writes: vec![write], dealt: false });
    }
    let mut seen = None;
    for look in 0..MOST_LOOKS {
        let stored = all(store, subject).await.map_err(|e| refuse::store(&e))?;
        let mut now: Vec<Usage> = values(subject, &stored).collect();
        let holder = held.and_then(|held| Some((now.get_mut(usize::from(held.shard))?, held)));
        if let Some((shard, held)) = holder {
            shard.release(held);
        }
        match shards::reserve(&mut now, store.spread(), bounds, ask) {
            Ok(()) => {
                let counting = [ask.shard, held.map_or(ask.shard, |held| held.shard)];
                let free = bounds.are_none() && stored.iter().flatten().all(|stored| stored.value.has_no_parts());
                let writes = writes(store.spread(), free, counting, &stored, &now).map_err(|e| refuse::store(&e))?;
                return Ok(Aside { writes, dealt: !free });
            }
            Err(refusal) => {
                let versions: Vec<Option<Version>> = stored.iter().map(|one| one.as_ref().map(|s| s.version)).collect();
                if seen.as_ref() == Some(&versions) {
                    return Err(refusal);
                }
                if seen.replace(versions).is_some() {
                    step_aside(look).await;
                }
            }
        }
    }
    Err(Refusal::new(Code::Overloaded, "too many at once").retry_after(1))
}

/// All that was used of a subject's limits, as of now.
///
/// # Errors
/// The Store cannot be asked.
pub async fn used(store: &dyn Store, subject: &str, now: OffsetDateTime) -> StoreResult<Usage> {
    let stored = all(store, subject).await?;
    let all: Vec<Usage> = values(subject, &stored).collect();
    Ok(shards::sum(&all, now))
}

async fn in_one(
    store: &dyn Store,
    subject: &str,
    bounds: &Bounds,
    ask: &Reservation,
    held: Option<&Reservation>,
) -> StoreResult<Option<Write>> {
    let stored = repo::get::<Usage>(store, &Usage::id_of(subject, ask.shard)).await?;
    // One that is not there yet has no part in anything.
    let Some(Versioned { value: mut usage, version }) = stored else { return Ok(None) };
    match held {
        Some(held) if held.shard == ask.shard => usage.release(held),
        Some(_) => return Ok(None),
        None => {}
    }
    if usage.take(bounds, ask) { repo::update(&usage, version).map(Some) } else { Ok(None) }
}

async fn all(store: &dyn Store, subject: &str) -> StoreResult<Vec<Option<Versioned<Usage>>>> {
    let ids: Vec<String> = (0..SHARDS).map(|shard| Usage::id_of(subject, shard)).collect();
    repo::get_all::<Usage>(store, &ids).await
}

/// What the documents say; one that is not there yet, nothing.
fn values<'a>(subject: &'a str, stored: &'a [Option<Versioned<Usage>>]) -> impl Iterator<Item = Usage> + 'a {
    (0..SHARDS).zip(stored).map(move |(shard, one)| match one {
        Some(one) => one.value.clone(),
        None => Usage { shard, ..Usage::of(subject) },
    })
}

/// Where there are limits, each document is written, or is to be as it was read. Where all is free, nothing depends on the
/// others: only `counting` are written.
fn writes(
    spread: u8,
    free: bool,
    counting: [u8; 2],
    stored: &[Option<Versioned<Usage>>],
    now: &[Usage],
) -> StoreResult<Vec<Write>> {
    let each = stored.iter().zip(now).filter(|(_, now)| !free || counting.contains(&now.shard));
    let each = each.map(|(stored, now)| match stored {
        Some(stored) if stored.value == *now => Ok(repo::check::<Usage>(&now.id(), stored.version)),
        Some(stored) => repo::update(now, stored.version),
        None if now.shard < spread || counting.contains(&now.shard) => repo::create(now),
        None => Ok(repo::check_absent::<Usage>(&now.id())),
    });
    each.collect()
}
