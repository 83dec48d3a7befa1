//! A read that many ask of one node at the same time is made once for all of them. Whoever asks gets the answer to a call
//! that began after they asked, so that nobody is ever told something older than their question: this is no cache.

use crate::lnd::{LndError, LndErrorKind};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;

/// How long the next call waits for the one before it. A node that takes longer is not made to hold up who comes later.
const PATIENCE: Duration = Duration::from_millis(50);

type Answer<T> = Result<Arc<T>, LndError>;
type Flight<T> = Shared<BoxFuture<'static, Answer<T>>>;
type WeakFlight<T> = WeakShared<BoxFuture<'static, Answer<T>>>;

/// One kind of read of one node.
pub(super) struct Joined<T> {
    flights: Arc<Mutex<Flights<T>>>,
}

/// Held weakly: a call that nobody waits for any more is given up.
struct Flights<T> {
    begun: Option<WeakFlight<T>>,
    /// Has not begun, so that more may join it.
    next: Option<WeakFlight<T>>,
}

impl<T> Default for Joined<T> {
    fn default() -> Self {
        Self { flights: Arc::new(Mutex::new(Flights { begun: None, next: None })) }
    }
}

impl<T> std::fmt::Debug for Joined<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Joined").finish_non_exhaustive()
    }
}

impl<T: Send + Sync + 'static> Joined<T> {
    /// Joins the call that is about to begin, or makes it with `call`.
    ///
    /// # Errors
    /// What the call failed with, the same for all who joined it.
    pub(super) async fn ask<F>(&self, call: impl FnOnce() -> F) -> Answer<T>
    where
        F: Future<Output = Result<T, LndError>> + Send + 'static,
    {
        // The lock is given back before the wait.
        let flight = self.board(call);
        flight.await
    }

    fn board<F>(&self, call: impl FnOnce() -> F) -> Flight<T>
    where
        F: Future<Output = Result<T, LndError>> + Send + 'static,
    {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(next) = flights.next.as_ref().and_then(WeakShared::upgrade) {
            return next;
        }
        let ahead = flights.begun.as_ref().and_then(WeakShared::upgrade).filter(|ahead| ahead.peek().is_none());
        let Some(ahead) = ahead else {
            let flight = call().map(|answer| answer.map(Arc::new)).boxed().shared();
            flights.begun = flight.downgrade();
            return flight;
        };
        let (shared, call) = (Arc::clone(&self.flights), call());
        // A task of its own: many wait for it, and each is to be woken once, by the answer.
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            let _late = tokio::time::timeout(PATIENCE, ahead).await;
            begin(&shared);
            call.await.map(Arc::new)
        }));
        let broken = || LndError::new(LndErrorKind::Unknown, "the call broke off");
        let flight = task.map(move |ended| ended.unwrap_or_else(|_| Err(broken()))).boxed().shared();
        flights.next = flight.downgrade();
        flight
    }
}

/// From here on nobody may join the next call any more, because it begins.
fn begin<T>(flights: &Mutex<Flights<T>>) {
    let mut flights = flights.lock().unwrap_or_else(PoisonError::into_inner);
    flights.begun = flights.next.take();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::sync::Semaphore;

    /// A node whose calls answer how many there were before, once they are let through.
    struct Node {
        calls: AtomicU32,
        answers: Semaphore,
    }

    fn node(answers: usize) -> Arc<Node> {
        Arc::new(Node { calls: AtomicU32::new(0), answers: Semaphore::new(answers) })
    }

    async fn call(node: Arc<Node>) -> Result<u32, LndError> {
        let number = node.calls.fetch_add(1, Ordering::SeqCst);
        node.answers.acquire().await.expect("open").forget();
        Ok(number)
    }

    fn asking(joined: &Arc<Joined<u32>>, node: &Arc<Node>) -> tokio::task::JoinHandle<u32> {
        let (joined, node) = (Arc::clone(joined), Arc::clone(node));
        tokio::spawn(async move { *joined.ask(|| call(node)).await.expect("an answer") })
    }

    async fn begun(node: &Node, calls: u32) {
        while node.calls.load(Ordering::SeqCst) < calls {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn who_asks_during_a_call_shares_the_next_one() {
        let (joined, node) = (Arc::new(Joined::default()), node(0));
        let first = asking(&joined, &node);
        begun(&node, 1).await;
        let later: Vec<_> = (0..10).map(|_| asking(&joined, &node)).collect();
        tokio::task::yield_now().await;
        node.answers.add_permits(2);
        assert_eq!(first.await.expect("no panic"), 0);
        for late in later {
            assert_eq!(late.await.expect("no panic"), 1, "a call that began after they asked");
        }
        assert_eq!(node.calls.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn an_answer_is_never_kept() {
        let (joined, node) = (Arc::new(Joined::default()), node(3));
        for expected in 0..3 {
            assert_eq!(asking(&joined, &node).await.expect("no panic"), expected);
        }
    }

    #[tokio::test]
    async fn a_call_that_hangs_holds_nobody_up() {
        let (joined, node) = (Arc::new(Joined::default()), node(0));
        let hangs = asking(&joined, &node);
        begun(&node, 1).await;
        let next = asking(&joined, &node);
        begun(&node, 2).await;
        node.answers.add_permits(2);
        assert_eq!((hangs.await.expect("no panic"), next.await.expect("no panic")), (0, 1));
    }

    #[tokio::test]
    async fn a_call_that_nobody_waits_for_is_given_up() {
        let (joined, node) = (Arc::new(Joined::default()), node(0));
        let gone = asking(&joined, &node);
        begun(&node, 1).await;
        gone.abort();
        assert!(gone.await.is_err_and(|e| e.is_cancelled()));
        node.answers.add_permits(1);
        assert_eq!(asking(&joined, &node).await.expect("no panic"), 1, "the permit was not taken by the one given up");
    }
}
