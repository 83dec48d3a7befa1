//! How much a source of connections that have not shown who they are may have at a time: so much, that one alone never keeps
//! the others out.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

/// Where something comes from. Whoever has one IPv6 address has all that share its first 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source(IpAddr);

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => Self(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into()),
            v4 => Self(v4),
        }
    }
}

/// Places of one kind.
#[derive(Debug)]
pub(super) struct Quota {
    all: usize,
    each: usize,
    /// How many each source has; none is in it with none.
    taken: Mutex<HashMap<Source, usize>>,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    quota: Arc<Quota>,
    source: Source,
}

impl Quota {
    /// So many in all, and so many for each source.
    pub(super) fn new(all: usize, each: usize) -> Arc<Self> {
        Arc::new(Self { all, each, taken: Mutex::default() })
    }

    /// Takes a place; `None` where there is none left, or `source` has its share.
    pub(super) fn take(self: &Arc<Self>, source: Source) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.values().sum::<usize>() >= self.all {
            return None;
        }
        let mine = taken.entry(source).or_default();
        if *mine >= self.each {
            return None;
        }
        *mine += 1;
        drop(taken);
        Some(Place { quota: Arc::clone(self), source })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.quota.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mine) = taken.get_mut(&self.source) {
            *mine -= 1;
            if *mine == 0 {
                taken.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(address: &str) -> Source {
        address.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn one_source_never_has_all_the_places() {
        let quota = Quota::new(3, 2);
        let (greedy, other, third) = (source("192.0.2.1"), source("192.0.2.2"), source("192.0.2.3"));
        let (first, _second) = (quota.take(greedy).unwrap(), quota.take(greedy).unwrap());
        assert!(quota.take(greedy).is_none(), "it has its share");
        let others = quota.take(other).unwrap();
        assert!(quota.take(third).is_none(), "there is none left");
        drop(first);
        let _again = quota.take(greedy).unwrap();
        drop(others);
        assert_eq!(quota.taken.lock().unwrap().len(), 1, "who has none is forgotten");
    }

    #[test]
    fn a_source_is_what_one_machine_can_have() {
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
        assert_eq!(source("2001:db8:0:1::1"), source("2001:db8:0:1:ffff::2"));
        assert_ne!(source("2001:db8:0:1::1"), source("2001:db8:0:2::1"));
    }
}
