//! Where a new node goes.

use super::host::Host;
use super::ids::{HostId, NodeId};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

/// Agents say how their host is every 30 s. One that has said nothing for this long is likely to be away.
const SILENT_AFTER: Duration = Duration::seconds(100);
/// A host that has refused to start an lnd is likely to refuse the next one, too, for this long: its disk is full, say.
const REFUSES_FOR: Duration = Duration::minutes(10);
/// Reports that come sooner than this after the last one that was noted say nothing new.
const NOTED_EVERY: Duration = Duration::seconds(20);

/// When a host's agent was last heard, for whoever places a node. A document of its own: that of the host is where slots are
/// taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulse {
    /// The host.
    pub host: HostId,
    /// When its newest report was noted.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
}

impl Pulse {
    /// Whether a report that comes `now` is worth noting.
    #[must_use]
    pub fn is_due(&self, now: OffsetDateTime) -> bool {
        now - self.at >= NOTED_EVERY
    }

    fn is_silent(&self, now: OffsetDateTime) -> bool {
        now - self.at > SILENT_AFTER
    }
}

/// The host that takes `node`, and the slot: those that have refused no lnd lately before those that have, which would
/// otherwise stay the emptiest and get every node; one that was made for it before all others, those whose agents were heard
/// lately before those that are silent, and of them the emptiest. The last of them is better than none, and what is kept for
/// another is none. `None`: there is no free slot.
pub fn choose<H: AsRef<Host>>(
    node: &NodeId,
    hosts: Vec<H>,
    pulses: impl IntoIterator<Item = Pulse>,
    now: OffsetDateTime,
) -> Option<(H, u16)> {
    let silent: Vec<HostId> = pulses.into_iter().filter(|pulse| pulse.is_silent(now)).map(|pulse| pulse.host).collect();
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

    fn pulse(host: &Host, seconds_ago: i64) -> Pulse {
        Pulse { host: host.id.clone(), at: NOW - Duration::seconds(seconds_ago) }
    }

    fn chosen(hosts: &[&Host], pulses: &[Pulse]) -> Option<(HostId, u16)> {
        let known = hosts.iter().map(|host| Known((*host).clone())).collect();
        choose(&newcomer(), known, pulses.to_vec(), NOW).map(|(host, slot)| (host.0.id, slot))
    }

    fn newcomer() -> NodeId {
        NodeId::parse(&format!("n{:024}", 7)).unwrap()
    }

    #[test]
    fn one_that_was_made_for_somebody_is_theirs() {
        let made_for =
            |node: NodeId| Host { compute: Some(Hosting { wanted_for: Some(node), gone: false }), ..host(1) };
        let (own, anothers) = (made_for(newcomer()), made_for(NodeId::random(&mut rand::rng())));
        assert_eq!(chosen(&[&host(0), &own, &anothers], &[]), Some((own.id.clone(), 1)));
        assert_eq!(chosen(&[&anothers], &[]), None);
        let gone = Host { compute: Some(Hosting { wanted_for: None, gone: true }), ..host(0) };
        assert_eq!(chosen(&[&gone], &[]), None);
    }

    #[test]
    fn the_emptiest_of_those_that_are_heard_takes_it() {
        let (empty, half, full) = (host(0), host(1), host(2));
        let heard = [pulse(&empty, 5), pulse(&half, 5), pulse(&full, 5)];
        assert_eq!(chosen(&[&full, &half, &empty], &heard), Some((empty.id.clone(), 0)));
        let silent = [pulse(&empty, 500), pulse(&half, 5)];
        assert_eq!(chosen(&[&full, &half, &empty], &silent), Some((half.id.clone(), 1)));
        // One that has just joined has no pulse yet; and a silent one is better than none.
        assert_eq!(chosen(&[&half, &empty], &[pulse(&half, 5)]), Some((empty.id.clone(), 0)));
        assert_eq!(chosen(&[&full, &empty], &[pulse(&full, 5), pulse(&empty, 500)]), Some((empty.id.clone(), 0)));
        assert_eq!(chosen(&[&full], &[]), None);
    }

    #[test]
    fn one_that_refuses_comes_last_for_a_while() {
        let refused = |minutes_ago| Host { refused_at: Some(NOW - Duration::minutes(minutes_ago)), ..host(0) };
        let (lately, long_ago, half) = (refused(9), refused(10), host(1));
        assert_eq!(chosen(&[&lately, &half], &[]), Some((half.id.clone(), 1)));
        assert_eq!(
            chosen(&[&lately, &half], &[pulse(&half, 500)]),
            Some((half.id.clone(), 1)),
            "silent, but it never refused"
        );
        assert_eq!(chosen(&[&long_ago, &half], &[]), Some((long_ago.id.clone(), 0)));
        assert_eq!(chosen(&[&lately, &host(2)], &[]), Some((lately.id.clone(), 0)), "better than none");
        let own = Host { compute: Some(Hosting { wanted_for: Some(newcomer()), gone: false }), ..refused(1) };
        assert_eq!(chosen(&[&own, &half], &[]), Some((half.id.clone(), 1)), "though it was made for this node");
    }

    #[test]
    fn one_that_was_taken_out_takes_nothing() {
        let revoked = Host { enrolment: Enrolment::Revoked, ..host(0) };
        assert_eq!(chosen(&[&revoked], &[pulse(&revoked, 1)]), None);
    }
}
