//! Where a new node goes.

use super::host::Host;
use super::ids::{HostId, NodeId};
use std::collections::HashSet;
use time::{Duration, OffsetDateTime};

/// A host that has refused to start an lnd is likely to refuse the next one, too, for this long: its disk is full, say.
const REFUSES_FOR: Duration = Duration::minutes(10);

/// The host that takes `node`, and the slot: those that have refused no lnd lately before those that have, which would
/// otherwise stay the emptiest and get every node; one that was made for it before all others, those whose agents
/// answer before those that are `silent`, and of them the emptiest. The last of them is better than none, and what is kept for
/// another is none. `None`: there is no free slot.
pub fn choose<H: AsRef<Host>>(
    node: &NodeId,
    hosts: Vec<H>,
    silent: &HashSet<HostId>,
    now: OffsetDateTime,
) -> Option<(H, u16)> {
    let free = hosts.into_iter().filter_map(|host| host.as_ref().free_slot().map(|slot| (host, slot)));
    let ours = free.filter(|(host, _)| host.as_ref().wanted_for().is_none_or(|wanted_for| wanted_for == node));
    ours.min_by_key(|(host, _)| {
        let host = host.as_ref();
        let refuses = host.refused_at.is_some_and(|at| now - at < REFUSES_FOR);
        (refuses, host.wanted_for().is_none(), silent.contains(&host.id), host.slots.len())
    })
}

#[cfg(test)]
mod tests {
    use super::super::host::{Enrolment, Hosting, Joined};
    use super::*;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    struct Known(Host);

    impl AsRef<Host> for Known {
        fn as_ref(&self) -> &Host {
            &self.0
        }
    }

    /// With so many of two slots taken.
    fn host(taken: u16) -> Host {
        let mut rng = rand::rng();
        Host {
            id: HostId::random(&mut rng),
            generation: 1,
            enrolment: Enrolment::Enrolled {
                token_sha256: String::new(),
                public_key_sha256: String::new(),
                serial: String::new(),
                previous_serial: None,
                certificate_pem: String::new(),
                expires_at: NOW,
                reinvitation: None,
                at: NOW,
            },
            joined: Joined::Unknown,
            address: Some(std::net::Ipv4Addr::LOCALHOST.into()),
            agent_port: Some(1),
            capacity: 2,
            slots: (0..taken).map(|slot| (slot, NodeId::random(&mut rng))).collect(),
            compute: None,
            report: None,
            refused_at: None,
            created_at: NOW,
        }
    }

    fn chosen(hosts: &[&Host], silent: &[&Host]) -> Option<(HostId, u16)> {
        let known = hosts.iter().map(|host| Known((*host).clone())).collect();
        choose(&newcomer(), known, &silent.iter().map(|host| host.id.clone()).collect(), NOW)
            .map(|(host, slot)| (host.0.id, slot))
    }

    fn newcomer() -> NodeId {
        NodeId::parse(&format!("n{:024}", 7)).unwrap()
    }

    #[test]
    fn one_that_was_made_for_somebody_is_theirs() {
        let made_for = |node: NodeId| Host {
            compute: Some(Hosting { wanted_for: Some(node), gone: false, recovery: None }),
            ..host(1)
        };
        let (own, anothers) = (made_for(newcomer()), made_for(NodeId::random(&mut rand::rng())));
        assert_eq!(chosen(&[&host(0), &own, &anothers], &[]), Some((own.id.clone(), 1)));
        assert_eq!(chosen(&[&anothers], &[]), None);
        let gone = Host { compute: Some(Hosting { wanted_for: None, gone: true, recovery: None }), ..host(0) };
        assert_eq!(chosen(&[&gone], &[]), None);
    }

    #[test]
    fn the_emptiest_of_those_that_answer_takes_it() {
        let (empty, half, full) = (host(0), host(1), host(2));
        assert_eq!(chosen(&[&full, &half, &empty], &[]), Some((empty.id.clone(), 0)));
        assert_eq!(chosen(&[&full, &half, &empty], &[&empty]), Some((half.id.clone(), 1)));
        assert_eq!(chosen(&[&full, &empty], &[&empty]), Some((empty.id.clone(), 0)), "better than none");
        assert_eq!(chosen(&[&full], &[]), None);
    }

    #[test]
    fn one_that_refuses_comes_last_for_a_while() {
        let refused = |minutes_ago| Host { refused_at: Some(NOW - Duration::minutes(minutes_ago)), ..host(0) };
        let (lately, long_ago, half) = (refused(9), refused(10), host(1));
        assert_eq!(chosen(&[&lately, &half], &[]), Some((half.id.clone(), 1)));
        assert_eq!(chosen(&[&lately, &half], &[&half]), Some((half.id.clone(), 1)), "silent, but it never refused");
        assert_eq!(chosen(&[&long_ago, &half], &[]), Some((long_ago.id.clone(), 0)));
        assert_eq!(chosen(&[&lately, &host(2)], &[]), Some((lately.id.clone(), 0)), "better than none");
        let own =
            Host { compute: Some(Hosting { wanted_for: Some(newcomer()), gone: false, recovery: None }), ..refused(1) };
        assert_eq!(chosen(&[&own, &half], &[]), Some((half.id.clone(), 1)), "though it was made for this node");
    }

    #[test]
    fn one_that_was_taken_out_takes_nothing() {
        let revoked = Host { enrolment: Enrolment::Revoked, ..host(0) };
        assert_eq!(chosen(&[&revoked], &[]), None);
    }
}
