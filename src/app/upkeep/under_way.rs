//! What is being done: of each kind one thing for a node, however often and with whatever numbers its host asks for it.

use super::Chore;
use crate::model::NodeId;
use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The newest of each kind, where somebody is at that kind.
#[derive(Debug, Default)]
pub(super) struct UnderWay(Mutex<HashMap<(NodeId, Discriminant<Chore>), Chore>>);

impl UnderWay {
    /// Asks for a chore. True where nobody is at its kind: whoever asked must do it. Otherwise whoever is finds it as the
    /// newest.
    pub(super) fn begin(&self, node: &NodeId, chore: Chore) -> bool {
        self.lock().insert((node.clone(), discriminant(&chore)), chore).is_none()
    }

    /// The newest of the kind of `chore`, by whoever is at it.
    pub(super) fn newest(&self, node: &NodeId, chore: Chore) -> Chore {
        self.lock().get(&(node.clone(), discriminant(&chore))).copied().unwrap_or(chore)
    }

    /// Whoever was at `chore` has done with it. False where there is a newer one, which they must do, too.
    pub(super) fn end(&self, node: &NodeId, chore: Chore) -> bool {
        let (mut all, key) = (self.lock(), (node.clone(), discriminant(&chore)));
        let is_newest = all.get(&key).is_none_or(|newest| *newest == chore);
        if is_newest {
            all.remove(&key);
        }
        is_newest
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(NodeId, Discriminant<Chore>), Chore>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_each_kind_one_is_done_and_the_newest_counts() {
        let (under_way, mut rng) = (UnderWay::default(), rand::rng());
        let (node, other) = (NodeId::random(&mut rng), NodeId::random(&mut rng));
        let reconnect = |starts| Chore::Reconnect { starts };
        assert!(under_way.begin(&node, reconnect(1)));
        assert!((2..1000).all(|starts| !under_way.begin(&node, reconnect(starts))), "whatever the host says");
        assert!(under_way.begin(&node, Chore::Unlock) && under_way.begin(&other, reconnect(1)));
        assert_eq!(under_way.newest(&node, reconnect(1)), reconnect(999));
        assert!(!under_way.end(&node, reconnect(1)), "that was not the newest");
        assert!(under_way.end(&node, reconnect(999)));
        assert!(under_way.begin(&node, reconnect(999)), "anew");
        assert!(!under_way.begin(&node, Chore::Unlock) && under_way.end(&node, Chore::Unlock));
    }
}
