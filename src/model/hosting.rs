//! How many hosts the deployment is to have: those that creates wait for, and a few empty slots for those to come.

use super::host::{Enrolment, Host};
use super::ids::NodeId;
use std::collections::BTreeSet;

/// What the operator decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How many lnds a host takes; 1: each user has one of their own.
    pub nodes_per_host: u16,
    /// How many slots are to be free for the next creates.
    pub spare_slots: u32,
    /// How many hosts there may be, those that are on their way included.
    pub max_hosts: u32,
}

/// What is missing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Missing {
    /// One for each host to be made: the node that it is for, where it is for one alone.
    pub hosts: Vec<Option<NodeId>>,
    /// Those who wait and will not get one, since there would be too many.
    pub without: Vec<NodeId>,
}

/// What must be made so that all who are `waiting` get a slot and enough are spare. Each of `hosts` counts that has free
/// slots, or will have when it has joined.
pub fn missing<'a>(rules: Rules, waiting: &[NodeId], hosts: impl IntoIterator<Item = &'a Host>) -> Missing {
    let mut count = 0_u32;
    let mut free = 0_usize;
    let mut promised: BTreeSet<&NodeId> = BTreeSet::new();
    for host in hosts {
        count += u32::from(host.is_paid_for());
        let slots = usize::from(host.free_slots());
        match host.wanted_for() {
            Some(node) if slots > 0 => {
                promised.insert(node);
            }
            _ => free += slots,
        }
    }
    let unserved: Vec<&NodeId> = waiting.iter().filter(|node| !promised.contains(node)).skip(free).collect();
    let served = waiting.iter().filter(|node| !promised.contains(node)).count() - unserved.len();
    let mut spare = free - served;
    let mut room = rules.max_hosts.saturating_sub(count);
    let mut missing = Missing::default();
    let per_host = usize::from(rules.nodes_per_host.max(1));
    for chunk in unserved.chunks(per_host) {
        if room == 0 {
            missing.without.extend(chunk.iter().map(|node| (*node).clone()));
            continue;
        }
        room -= 1;
        missing.hosts.push(chunk.first().filter(|_| per_host == 1).map(|node| (*node).clone()));
        spare += per_host - chunk.len();
    }
    while spare < rules.spare_slots as usize && room > 0 {
        room -= 1;
        missing.hosts.push(None);
        spare += per_host;
    }
    missing
}

impl Host {
    /// How many more lnds it takes, now or once it has joined.
    fn free_slots(&self) -> u16 {
        let coming = self.compute.is_some() && matches!(self.enrolment, Enrolment::Invited(_));
        let taken = u16::try_from(self.slots.len()).unwrap_or(u16::MAX);
        if self.is_usable() || coming && !self.is_gone() { self.capacity.saturating_sub(taken) } else { 0 }
    }

    /// Whether it was made by us and its machine costs money, or will.
    fn is_paid_for(&self) -> bool {
        self.compute.is_some() && !self.is_gone()
    }
}

#[cfg(test)]
mod tests {
    use super::super::host::{Hosting, Invitation, Joined};
    use super::super::ids::HostId;
    use super::*;
    use std::collections::BTreeMap;
    use time::OffsetDateTime;

    const RULES: Rules = Rules { nodes_per_host: 1, spare_slots: 0, max_hosts: 10 };

    fn nodes<const N: usize>() -> [NodeId; N] {
        std::array::from_fn(|_| NodeId::random(&mut rand::rng()))
    }

    /// One on its way.
    fn coming(capacity: u16, wanted_for: Option<&NodeId>) -> Host {
        let invitation =
            Invitation { token_sha256: String::new(), expires_at: OffsetDateTime::UNIX_EPOCH, authorities: Vec::new() };
        Host {
            id: HostId::random(&mut rand::rng()),
            generation: 1,
            enrolment: Enrolment::Invited(invitation),
            joined: Joined::NotYet,
            address: None,
            agent_port: None,
            capacity,
            slots: BTreeMap::new(),
            compute: Some(Hosting { wanted_for: wanted_for.cloned(), gone: false, recovery: None }),
            report: None,
            refused_at: None,
            created_at: OffsetDateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn who_waits_gets_a_host_of_their_own_and_only_one() {
        let waiting = nodes::<2>();
        let [a, b] = waiting.clone();
        assert_eq!(missing(RULES, &waiting, &[]).hosts, [Some(a.clone()), Some(b.clone())]);
        let first = coming(1, Some(&a));
        assert_eq!(missing(RULES, &waiting, [&first]).hosts, [Some(b.clone())]);
        assert_eq!(missing(RULES, &waiting, [&first, &coming(1, Some(&b))]), Missing::default());
        // That of somebody who has a place already is not counted for those who wait.
        assert_eq!(missing(RULES, std::slice::from_ref(&b), [&first]).hosts, [Some(b.clone())]);
        assert_eq!(missing(RULES, &[b], [&first, &coming(1, None)]), Missing::default());
    }

    #[test]
    fn several_share_a_host_where_they_may() {
        let rules = Rules { nodes_per_host: 3, ..RULES };
        assert_eq!(missing(rules, &nodes::<4>(), &[]).hosts, [None, None]);
        assert_eq!(missing(rules, &nodes::<4>(), [&coming(3, None)]).hosts, [None]);
        assert_eq!(missing(rules, &nodes::<3>(), [&coming(3, None)]), Missing::default());
    }

    #[test]
    fn spare_slots_are_refilled_up_to_the_ceiling() {
        let rules = Rules { spare_slots: 2, max_hosts: 3, ..RULES };
        assert_eq!(missing(rules, &[], &[]).hosts, [None, None]);
        assert_eq!(missing(rules, &[], [&coming(1, None)]).hosts, [None]);
        let [a] = nodes::<1>();
        // A create takes a spare one, which is made up for.
        let (one, other) = (coming(1, None), coming(1, None));
        assert_eq!(missing(rules, std::slice::from_ref(&a), [&one, &other]).hosts, [None]);
        let third = coming(1, Some(&a));
        assert_eq!(missing(rules, &[a], [&one, &third, &other]), Missing::default());
        // Who waits comes before what is spare, and none is made beyond the ceiling.
        let waiting = nodes::<4>();
        let plan = missing(rules, &waiting, &[]);
        assert_eq!(plan.hosts, [Some(waiting[0].clone()), Some(waiting[1].clone()), Some(waiting[2].clone())]);
        assert_eq!(plan.without, [waiting[3].clone()]);
    }

    #[test]
    fn what_is_gone_counts_for_nothing() {
        let rules = Rules { max_hosts: 1, ..RULES };
        let mut gone = coming(1, None);
        gone.compute = Some(Hosting { wanted_for: None, gone: true, recovery: None });
        let waiting = nodes::<1>();
        assert_eq!(missing(rules, &waiting, [&gone]).hosts, [Some(waiting[0].clone())]);
        // One of the operator's own that never joined is no promise.
        let mut invited = coming(1, None);
        invited.compute = None;
        assert_eq!(missing(rules, &waiting, [&invited]).hosts, [Some(waiting[0].clone())]);
        // A revoked one takes nobody, but its machine still costs.
        let mut revoked = coming(1, None);
        revoked.enrolment = Enrolment::Revoked;
        assert_eq!(missing(rules, &waiting, [&revoked]).without, waiting);
    }
}
