//! Places for calls that are under way: so many at a time in all, and no app has more than its share of them, so that one
//! that asks for everything at once never keeps the others out.

use super::auth::Caller;
use crate::model::problem::{Code, Refusal};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Places of one kind.
#[derive(Debug)]
pub struct Places {
    all: Arc<Semaphore>,
    share: usize,
    /// How many each app (or operator's key) has; nobody is in it with none.
    taken: Mutex<HashMap<String, usize>>,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    who: String,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    /// So many in all; one app has at most one part in `parts` of them, and at least one.
    pub(super) fn new(most: usize, parts: usize) -> Arc<Self> {
        let share = (most / parts).max(1);
        Arc::new(Self { all: Arc::new(Semaphore::new(most)), share, taken: Mutex::default() })
    }

    /// Takes a place.
    ///
    /// # Errors
    /// 503 where there is none left; 429 where the caller has its share.
    pub(super) fn take(self: &Arc<Self>, caller: &Caller) -> Result<Place, Refusal> {
        let overloaded = |_| Refusal::new(Code::Overloaded, "too many requests at once").retry_after(1);
        let permit = Arc::clone(&self.all).try_acquire_owned().map_err(overloaded)?;
        let who = caller.app().map_or_else(|_| caller.key().as_str().to_owned(), ToString::to_string);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = taken.entry(who.clone()).or_default();
        if *mine >= self.share {
            let message = "too many requests of this app are under way at once";
            return Err(Refusal::new(Code::RateLimited, message).retry_after(1));
        }
        *mine += 1;
        drop(taken);
        Ok(Place { places: Arc::clone(self), who, _permit: permit })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mine) = taken.get_mut(&self.who) {
            *mine -= 1;
            if *mine == 0 {
                taken.remove(&self.who);
            }
        }
    }
}
