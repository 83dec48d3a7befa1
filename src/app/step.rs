//! What the executor and the workflows say to each other: one step in, one [`Advance`] out.

use super::Parts;
use super::claim::ClaimGuard;
use crate::error::Result;
use crate::lnd::macaroon::{Caveat, Grant, Macaroon};
use crate::model::OperationId;
use crate::model::amount::Sat;
use crate::model::node::Node;
use crate::model::problem::Refusal;
use crate::model::work::Work;
use crate::store::{Write, repo};
use serde_json::Value;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// What came of one step. The executor commits it together with `writes` under the claim; until then nothing counts.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one of it for each step under way")]
pub enum Advance {
    /// The next step.
    Next {
        /// The work, at its next step.
        work: Work,
        /// What is going on now, for a person.
        progress: String,
        /// What belongs into the same commit.
        writes: Vec<Write>,
    },
    /// All done.
    Done {
        /// What the API shows.
        result: Value,
        /// What becomes of what was reserved.
        settle: Settle,
        /// What belongs into the same commit.
        writes: Vec<Write>,
    },
    /// It definitely did not and will not happen; all that was reserved is given back, except what was spent on the way.
    Failed {
        /// Why.
        refusal: Refusal,
        /// What was spent all the same (a channel opened too late).
        spent_sat: Sat,
        /// What belongs into the same commit.
        writes: Vec<Write>,
    },
    /// A person has to look.
    Park {
        /// Why.
        refusal: Refusal,
    },
    /// Not yet: the same step again, after a while. What is going on is shown.
    Again {
        /// For a person.
        progress: String,
        /// After how long.
        after: Duration,
    },
}

/// What becomes of a reservation when an operation succeeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settle {
    /// It stays used.
    Keep,
    /// This much outgoing money was really spent; the rest is given back.
    Spent(Sat),
    /// A node no longer exists.
    OneNodeLess {
        /// Which of the documents have counted it.
        shard: u8,
    },
}

impl Advance {
    /// The next step, with nothing else to write.
    pub fn next(work: Work, progress: impl Into<String>) -> Self {
        Self::Next { work, progress: progress.into(), writes: Vec::new() }
    }

    /// A definite failure before anything was spent.
    #[must_use]
    pub fn failed(refusal: Refusal) -> Self {
        Self::Failed { refusal, spent_sat: Sat(0), writes: Vec::new() }
    }

    /// The same step again.
    pub fn again(progress: impl Into<String>, after: Duration) -> Self {
        Self::Again { progress: progress.into(), after }
    }
}

/// What the operations of one node share within the process that works on them. It holds nothing that matters after a
/// crash: the steps in the Store do.
#[derive(Debug, Default)]
pub struct Locks {
    opening: Mutex<Opening>,
    /// Which closes nobody can have asked lnd for yet, as this process knows for sure.
    unasked_closes: Mutex<HashSet<OperationId>>,
    /// Who is in the middle of a step.
    in_step: Mutex<HashSet<OperationId>>,
    /// Whether the node's lnd is being replaced.
    replacing: watch::Sender<Option<Replacing>>,
}

/// While an lnd is replaced nothing new is begun with it.
#[derive(Debug, Clone)]
struct Replacing {
    /// Who replaces it.
    by: OperationId,
    /// Who may still come to their end.
    may_end: HashSet<OperationId>,
}

#[derive(Debug, Default)]
struct Opening {
    /// Who plans or opens a channel: one operation at a time, so that no two plan with the same coins.
    holder: Option<OperationId>,
    /// Who has not asked lnd to open yet, as this process knows for sure.
    untried: Option<OperationId>,
}

impl Locks {
    fn opening(&self) -> std::sync::MutexGuard<'_, Opening> {
        self.opening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the turn to open a channel, unless another operation has it.
    pub fn take_turn(&self, operation: &OperationId) -> bool {
        let mut opening = self.opening();
        let holder = opening.holder.get_or_insert_with(|| operation.clone());
        holder == operation
    }

    /// Gives the turn back, if it was this operation's.
    pub fn end_turn(&self, operation: &OperationId) {
        let mut opening = self.opening();
        if opening.holder.as_ref() == Some(operation) {
            *opening = Opening::default();
        }
    }

    /// Notes that this process is about to ask lnd for the first time.
    pub fn note_untried(&self, operation: &OperationId) {
        self.opening().untried = Some(operation.clone());
    }

    /// Whether nobody can have asked lnd before; asking once uses it up.
    pub fn use_untried(&self, operation: &OperationId) -> bool {
        let mut opening = self.opening();
        let untried = opening.untried.as_ref() == Some(operation);
        if untried {
            opening.untried = None;
        }
        untried
    }

    fn in_step(&self) -> std::sync::MutexGuard<'_, HashSet<OperationId>> {
        self.in_step.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that an operation does a step, unless it has to wait for the node's lnd to be replaced. Only one that `may_always`
    /// never has to.
    pub fn begin_step(&self, operation: &OperationId, may_always: bool) -> bool {
        let mut in_step = self.in_step();
        let may = may_always || !self.has_to_wait(operation);
        if may {
            in_step.insert(operation.clone());
        }
        may
    }

    /// The step has ended.
    pub fn end_step(&self, operation: &OperationId) {
        self.in_step().remove(operation);
    }

    /// From now on, until [`Self::end_replacing`], of the node's operations only those that run now go on, beside the one that
    /// replaces its lnd; called again, only those of them that still run. `running` is what the Store says; who is in the middle of
    /// a step is known here. Those that may come to their end; `None` where another one replaces it.
    pub fn drain(&self, by: &OperationId, running: HashSet<OperationId>) -> Option<HashSet<OperationId>> {
        let in_step = self.in_step();
        let may_end = match &*self.replacing.borrow() {
            Some(now) if now.by != *by => return None,
            Some(now) => now.may_end.intersection(&running).cloned().collect(),
            None => running.union(&in_step).filter(|operation| *operation != by).cloned().collect::<HashSet<_>>(),
        };
        self.replace(by, may_end.clone()).then_some(may_end)
    }

    /// From now on, until [`Self::end_replacing`], only these operations of the node go on, beside the one that replaces its lnd.
    /// False where another one does.
    pub fn replace(&self, by: &OperationId, may_end: HashSet<OperationId>) -> bool {
        let mut is_mine = true;
        self.replacing.send_if_modified(|replacing| {
            is_mine = replacing.as_ref().is_none_or(|replacing| replacing.by == *by);
            let is_new = is_mine && replacing.as_ref().is_none_or(|replacing| replacing.may_end != may_end);
            if is_new {
                *replacing = Some(Replacing { by: by.clone(), may_end });
            }
            is_new
        });
        is_mine
    }

    /// The lnd is not being replaced by this operation, or no more.
    pub fn end_replacing(&self, by: &OperationId) {
        self.replacing.send_if_modified(|replacing| {
            let is_mine = replacing.as_ref().is_some_and(|replacing| replacing.by == *by);
            if is_mine {
                *replacing = None;
            }
            is_mine
        });
    }

    /// Whether this operation has to wait for the node's lnd to be replaced.
    pub fn has_to_wait(&self, operation: &OperationId) -> bool {
        let replacing = self.replacing.borrow();
        replacing.as_ref().is_some_and(|now| now.by != *operation && !now.may_end.contains(operation))
    }

    /// Waits until it has not.
    pub async fn may_go_on(&self, operation: &OperationId) {
        let mut changes = self.replacing.subscribe();
        while self.has_to_wait(operation) {
            // The sender is of this.
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn unasked_closes(&self) -> std::sync::MutexGuard<'_, HashSet<OperationId>> {
        self.unasked_closes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that this process is about to ask lnd for a close, and that nobody has before.
    pub fn note_unasked_close(&self, operation: &OperationId) {
        self.unasked_closes().insert(operation.clone());
    }

    /// Whether nobody can have asked lnd for this close before; asking once uses it up.
    pub fn use_unasked_close(&self, operation: &OperationId) -> bool {
        self.unasked_closes().remove(operation)
    }
}

/// What a step works with.
#[derive(Debug, Clone)]
pub struct Ctx {
    /// Everything the master has.
    pub parts: Arc<Parts>,
    /// The claim under which the step runs.
    pub claim: Arc<ClaimGuard>,
    /// Shared with the node's other operations.
    pub locks: Arc<Locks>,
}

impl Ctx {
    /// The node, as stored now.
    ///
    /// # Errors
    /// An invariant is broken where there is none: nodes are never deleted.
    pub async fn node(&self, id: Option<&crate::model::NodeId>) -> Result<repo::Versioned<Node>> {
        let id = id.ok_or_else(|| crate::error::Error::Invariant("an operation of a node without a node".into()))?;
        let node = repo::get::<Node>(&*self.parts.store, id.as_str()).await?;
        node.ok_or_else(|| crate::error::Error::Invariant(format!("node {id} is not in the store")))
    }

    /// A macaroon for calls that change or spend: it ends when this master's lease does.
    pub fn spending_macaroon(&self, node: &Node, grant: Grant) -> Result<Macaroon> {
        let until = self.claim.spend_until()?;
        self.parts.keys.bake(node, grant, &[Caveat::TimeBefore(until)])
    }

    /// A macaroon for looking.
    pub fn reading_macaroon(&self, node: &Node) -> Result<Macaroon> {
        self.parts.keys.bake(node, Grant::Read, &[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::keys::field;
    use crate::app::{claim, testing};
    use crate::clock::SystemClock;
    use crate::model::node::Secrets;
    use crate::store::sqlite::{SqliteOptions, SqliteStore};
    use std::pin::pin;
    use time::OffsetDateTime;
    use time::format_description::well_known::Rfc3339;
    use tokio_util::sync::CancellationToken;

    /// The end that is written into a macaroon.
    fn end_of(macaroon: &Macaroon) -> Option<OffsetDateTime> {
        let text = String::from_utf8_lossy(macaroon.as_bytes()).into_owned();
        let (_, end) = text.split_once("time-before ")?;
        OffsetDateTime::parse(&end[..=end.find('Z')?], &Rfc3339).ok()
    }

    /// A node with a root key.
    fn node_of(parts: &Parts) -> Node {
        let mut node = testing::node();
        let seal = |name| parts.keys.seal(node.id.as_str(), name, &[7; 32]).unwrap();
        node.secrets = Some(Secrets {
            seed: seal(field::SEED),
            wallet_password: seal(field::WALLET_PASSWORD),
            macaroon_root_key: seal(field::MACAROON_ROOT_KEY),
            invoice_key: seal(field::INVOICE_KEY),
        });
        node
    }

    #[tokio::test]
    async fn what_spends_ends_with_the_claim_and_what_looks_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&dir.path().join("db"), SqliteOptions::default()).await.unwrap();
        let parts = Parts::for_tests(Arc::new(store), Arc::new(SystemClock));
        let stop = CancellationToken::new();
        let beating = tokio::spawn(Arc::clone(&parts.lease).run(Arc::clone(&parts.store), stop.clone()));
        while parts.lease.term().is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let claimed = claim::claim(&*parts.store, &parts.lease, &parts.observer, "it").await.unwrap().unwrap();
        let ctx = Ctx { parts: Arc::clone(&parts), claim: Arc::new(claimed), locks: Arc::default() };
        let node = node_of(&parts);
        for grant in [Grant::Pay, Grant::OpenChannel, Grant::CloseChannel, Grant::Withdraw, Grant::Peers] {
            // The lease is extended all the time: between two equal answers it was not.
            loop {
                let before = ctx.claim.spend_until().unwrap();
                let macaroon = ctx.spending_macaroon(&node, grant).unwrap();
                if before == ctx.claim.spend_until().unwrap() {
                    assert_eq!(end_of(&macaroon), Some(before), "{grant:?}");
                    break;
                }
            }
        }
        assert_eq!(end_of(&ctx.reading_macaroon(&node).unwrap()), None);
        stop.cancel();
        beating.await.unwrap();
        tokio::time::sleep(parts.lease.ttl()).await;
        let late = ctx.spending_macaroon(&node, Grant::Pay);
        assert!(matches!(late, Err(crate::error::Error::ClaimLost)), "{late:?}");
    }

    #[tokio::test]
    async fn while_an_lnd_is_replaced_only_what_may_come_to_its_end_goes_on() {
        let [by, old, new] = [(); 3].map(|()| OperationId::random(OffsetDateTime::UNIX_EPOCH, &mut rand::rng()));
        let locks = Locks::default();
        assert!(!locks.has_to_wait(&old));
        assert!(locks.replace(&by, [old.clone()].into()));
        assert!(!locks.replace(&new, HashSet::new()), "one at a time");
        assert_eq!([&by, &old, &new].map(|id| locks.has_to_wait(id)), [false, false, true]);
        assert!(locks.replace(&by, HashSet::new()));
        assert!(locks.has_to_wait(&old), "its time is over");
        let mut waiting = pin!(locks.may_go_on(&old));
        assert!(futures::poll!(&mut waiting).is_pending());
        locks.end_replacing(&new);
        assert!(futures::poll!(&mut waiting).is_pending(), "that was somebody else's");
        locks.end_replacing(&by);
        waiting.await;
    }

    #[tokio::test]
    async fn what_is_in_the_middle_of_a_step_when_an_lnd_is_replaced_is_waited_for() {
        let [by, listed, in_step, new] =
            [(); 4].map(|()| OperationId::random(OffsetDateTime::UNIX_EPOCH, &mut rand::rng()));
        let locks = Locks::default();
        assert!(locks.begin_step(&by, false) && locks.begin_step(&in_step, false));
        // Accepted after the look at the Store, it is in no listing.
        let both: HashSet<_> = [listed.clone(), in_step.clone()].into();
        assert_eq!(locks.drain(&by, [listed.clone()].into()), Some(both));
        assert!(
            !locks.begin_step(&new, false) && locks.begin_step(&new, true),
            "too late, but for one that may always"
        );
        assert_eq!(locks.drain(&new, HashSet::new()), None, "one at a time");
        locks.end_step(&in_step);
        let running = [listed.clone(), new.clone()].into();
        assert_eq!(locks.drain(&by, running), Some([listed].into()), "nobody new joins them");
        assert_eq!(locks.drain(&by, [new].into()), Some(HashSet::new()));
    }
}
