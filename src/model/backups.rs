//! Which channel backup of a node is the one to restore, and which ones are kept. An lnd that has lost its disk writes an
//! empty backup, and a host that is not to be trusted writes anything: neither may take the place of one that is needed.

use std::collections::HashSet;

/// How many of the newest backups of a node are kept beside the good one, whatever they are.
pub const NEWEST_KEPT: u64 = 10;

/// What is known of a node's channels when a backup is judged. Channels are named by their funding outpoint, `txid:index`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Channels {
    /// Those that the node has open now.
    pub open: HashSet<String>,
    /// Those that the backup covers which is the good one so far.
    pub in_good: HashSet<String>,
    /// Those that the node has recorded as closed, or as being closed.
    pub closed: HashSet<String>,
}

impl Channels {
    /// The channels for which a backup that covers `covers` is no use though they are not closed. It may become the good
    /// one only if there are none: that the node does not know a channel of the good one any more is no proof of its end.
    #[must_use]
    pub fn missing_in<'a>(&'a self, covers: &HashSet<String>) -> HashSet<&'a str> {
        let must = self.open.union(&self.in_good).filter(|channel| !self.closed.contains(*channel));
        must.filter(|channel| !covers.contains(*channel)).map(String::as_str).collect()
    }
}

/// Whether backup `number` of a node is kept: the good one always, and the newest few.
#[must_use]
pub fn is_kept(number: u64, newest: u64, good: Option<u64>) -> bool {
    good == Some(number) || number.saturating_add(NEWEST_KEPT) > newest
}

/// The backup that `newest`, which has just come, leaves no room for. (One that was good until another became it goes then.)
#[must_use]
pub fn superseded_by(newest: u64, good: Option<u64>) -> Option<u64> {
    newest.checked_sub(NEWEST_KEPT).filter(|number| *number > 0 && !is_kept(*number, newest, good))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn set() -> impl Strategy<Value = HashSet<String>> {
        proptest::collection::hash_set(0u8..6, 0..6).prop_map(|some| some.iter().map(|n| format!("{n}:0")).collect())
    }

    fn channels() -> impl Strategy<Value = Channels> {
        (set(), set(), set()).prop_map(|(open, in_good, closed)| Channels { open, in_good, closed })
    }

    #[test]
    fn an_empty_one_is_good_only_where_nothing_is_left() {
        let one = HashSet::from(["a:0".to_owned()]);
        let none = HashSet::new();
        let open = Channels { open: one.clone(), ..Channels::default() };
        assert_eq!(open.missing_in(&none), HashSet::from(["a:0"]));
        // The disk was lost: the node knows no channel at all, neither open nor closed.
        let lost = Channels { in_good: one.clone(), ..Channels::default() };
        assert_eq!(lost.missing_in(&none), HashSet::from(["a:0"]));
        let closed = Channels { closed: one.clone(), ..lost };
        assert!(closed.missing_in(&none).is_empty());
        assert!(Channels::default().missing_in(&none).is_empty());
    }

    proptest! {
        #[test]
        fn one_that_covers_fewer_is_good_only_if_the_others_are_closed(known in channels(), covers in set()) {
            let Channels { open, in_good, closed } = &known;
            for channel in open.iter().chain(in_good) {
                let is_missing = known.missing_in(&covers).contains(channel.as_str());
                prop_assert_eq!(is_missing, !covers.contains(channel) && !closed.contains(channel));
            }
            prop_assert!(known.missing_in(&covers).iter().all(|c| open.contains(*c) || in_good.contains(*c)));
        }

        /// Over any history of backups, each good or not once it has come, in any order of the two.
        #[test]
        fn the_good_one_and_the_newest_few_are_kept_and_no_more(history in proptest::collection::vec(any::<(bool, bool)>(), 0..60)) {
            let (mut stored, mut good) = (BTreeSet::new(), None);
            for (newest, (is_good, is_judged)) in (1u64..).zip(history) {
                stored.insert(newest);
                superseded_by(newest, good).map(|old| stored.remove(&old));
                if is_good && is_judged {
                    let before = good.replace(newest);
                    before.filter(|old| !is_kept(*old, newest, good)).map(|old| stored.remove(&old));
                }
                prop_assert!(good.is_none_or(|good| stored.contains(&good)));
                prop_assert!((newest.saturating_sub(NEWEST_KEPT) + 1..=newest).all(|number| stored.contains(&number)));
                prop_assert!(stored.len() as u64 <= NEWEST_KEPT + 1, "{:?}", stored);
            }
        }
    }
}
