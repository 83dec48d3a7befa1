//! How a node is, as its own lnd tells it, and whether an lnd that has taken another's place is the same node: the gate of an
//! upgrade.

use super::release::{ProgramRelease, Version};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};

/// A node, looked at through its lnd. Amounts are satoshi.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// What lnd says of itself, commit and all.
    pub version: String,
    /// Its identity.
    pub pubkey: String,
    /// Whether it follows the chain (`synced_to_chain`).
    pub is_synced: bool,
    /// All that the wallet has, unconfirmed money too.
    pub wallet_sat: i64,
    /// What is on its way to the wallet, or into a channel that is not open yet.
    pub coming_sat: i64,
    /// The open channels.
    pub channels: Vec<Channel>,
    /// The points of channels that are being opened or closed, or are closed.
    pub other_points: Vec<String>,
}

/// An open channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// `txid:index`.
    pub point: String,
    /// With whom.
    pub peer: String,
    /// Whether it can be used.
    pub is_active: bool,
    /// What is the node's: its balance, and the commitment fee where it pays that.
    pub own_sat: i64,
    /// What is on its way out, in payments under way.
    pub outgoing_sat: i64,
}

/// What a look at the new lnd says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is the same node.
    Passed {
        /// Channels that were active and are not, since nobody knows their peers to be there.
        unproven: usize,
    },
    /// Not yet; it may become so.
    NotYet(String),
    /// It never will be.
    Failed(String),
}

/// How the gate judges.
#[derive(Debug, Clone, Copy)]
pub struct Gate<'a> {
    /// What the lnd is to be.
    pub wanted: &'a ProgramRelease,
    /// Peers that are known to be there: lnds of the fleet that run.
    pub present: &'a HashSet<String>,
    /// Whether other peers have had the time to come back.
    pub have_waited: bool,
}

impl Gate<'_> {
    /// Whether the lnd that looks like `now` is the node that looked like `before`.
    #[must_use]
    pub fn judge(&self, before: &Look, now: &Look) -> Verdict {
        if !is_version(&now.version, self.wanted) {
            return Verdict::Failed(format!("its lnd says that it is {}, not {}", now.version, self.wanted.version));
        }
        if now.pubkey != before.pubkey {
            return Verdict::Failed("its lnd has another identity".to_owned());
        }
        if !now.is_synced {
            return Verdict::NotYet("its lnd is not synced to the chain".to_owned());
        }
        match missing(before, now).or_else(|| less(before, now)) {
            Some(what) => Verdict::NotYet(what),
            None => self.activity(before, now),
        }
    }

    fn activity(&self, before: &Look, now: &Look) -> Verdict {
        let open = by_point(now);
        let was_active = before.channels.iter().filter(|channel| channel.is_active);
        let still_open: Vec<&Channel> = was_active.filter_map(|was| open.get(was.point.as_str()).copied()).collect();
        let away: Vec<&&Channel> = still_open.iter().filter(|channel| !channel.is_active).collect();
        if let Some(channel) = away.iter().find(|channel| self.present.contains(&channel.peer)) {
            return Verdict::NotYet(format!("the channel {} is not active again", channel.point));
        }
        if !away.is_empty() && !self.have_waited {
            return Verdict::NotYet(format!("{} channels are not active again", away.len()));
        }
        // Of one peer nobody can say who is away; that all of several have gone at once is not their doing.
        let peers: HashSet<&str> = still_open.iter().map(|channel| channel.peer.as_str()).collect();
        if away.len() == still_open.len() && peers.len() > 1 {
            return Verdict::NotYet(format!("none of its {} peers is there", peers.len()));
        }
        Verdict::Passed { unproven: away.len() }
    }
}

fn is_version(told: &str, wanted: &ProgramRelease) -> bool {
    Version::of_lnd(told).is_some_and(|(version, commit)| {
        let commit_fits = wanted.commit.as_ref().is_none_or(|wanted| commit.as_ref() == Some(wanted));
        version == wanted.version && commit_fits
    })
}

fn by_point(look: &Look) -> HashMap<&str, &Channel> {
    look.channels.iter().map(|channel| (channel.point.as_str(), channel)).collect()
}

fn missing(before: &Look, now: &Look) -> Option<String> {
    let open = by_point(now);
    let gone = before
        .channels
        .iter()
        .find(|was| !open.contains_key(was.point.as_str()) && !now.other_points.contains(&was.point));
    gone.map(|channel| format!("the channel {} is neither open, nor closing, nor closed", channel.point))
}

/// What is there less of than before. Payments that were under way may have arrived since; whatever else leaves a node waits
/// for the end of the upgrade, or is lost. With a channel that closes the sums are those of its close: then only the other
/// channels tell.
fn less(before: &Look, now: &Look) -> Option<String> {
    let open = by_point(now);
    let of_channels = |was: &Channel| {
        let is = open.get(was.point.as_str())?;
        let has = is.own_sat + is.outgoing_sat;
        (has < was.own_sat).then(|| format!("the channel {} has {has} sat, and had {}", was.point, was.own_sat))
    };
    if let Some(what) = before.channels.iter().find_map(of_channels) {
        return Some(what);
    }
    let closes = before.channels.iter().any(|was| !open.contains_key(was.point.as_str()));
    let all = |look: &Look, outgoing: i64| {
        let channels: i64 = look.channels.iter().map(|channel| channel.own_sat + outgoing * channel.outgoing_sat).sum();
        look.wallet_sat + look.coming_sat + channels
    };
    let (had, has) = (all(before, 0), all(now, 1));
    (!closes && has < had).then(|| format!("it has {has} sat in all, and had {had}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn wanted(commit: Option<&str>) -> ProgramRelease {
        ProgramRelease {
            version: "0.21.2-beta".parse().unwrap(),
            commit: commit.map(str::to_owned),
            update_from: Vec::new(),
            revert_to: Vec::new(),
            artifacts: BTreeMap::new(),
        }
    }

    fn channel(point: &str, peer: &str) -> Channel {
        Channel { point: point.into(), peer: peer.into(), is_active: true, own_sat: 1_000, outgoing_sat: 0 }
    }

    fn look() -> Look {
        Look {
            version: "0.21.2-beta commit=v0.21.2-beta".to_owned(),
            pubkey: "02ab".to_owned(),
            is_synced: true,
            wallet_sat: 500,
            coming_sat: 0,
            channels: vec![channel("a:0", "x"), channel("b:1", "y")],
            other_points: Vec::new(),
        }
    }

    fn judged(change: impl FnOnce(&mut Look), present: &[&str], have_waited: bool) -> Verdict {
        let mut now = look();
        change(&mut now);
        let present: HashSet<String> = present.iter().map(|&peer| peer.to_owned()).collect();
        let before = Look { version: "0.20.1-beta commit=v0.20.1-beta".to_owned(), ..look() };
        Gate { wanted: &wanted(None), present: &present, have_waited }.judge(&before, &now)
    }

    fn not_yet(verdict: Verdict) -> String {
        match verdict {
            Verdict::NotYet(what) => what,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_same_node_passes_and_may_have_become_richer() {
        assert_eq!(judged(|_| {}, &[], false), Verdict::Passed { unproven: 0 });
        assert_eq!(judged(|now| now.wallet_sat += 1, &[], false), Verdict::Passed { unproven: 0 });
        // A deposit that went into a channel, or a channel that opened meanwhile.
        assert_eq!(
            judged(|now| (now.wallet_sat, now.coming_sat) = (0, 500), &[], false),
            Verdict::Passed { unproven: 0 }
        );
    }

    #[test]
    fn another_version_or_identity_never_passes() {
        assert!(matches!(judged(|now| now.version = "0.20.1-beta commit=".into(), &[], true), Verdict::Failed(_)));
        assert!(matches!(judged(|now| now.pubkey = "03cd".into(), &[], true), Verdict::Failed(_)));
        let with_commit = |commit| {
            let gate = Gate { wanted: &wanted(Some(commit)), present: &HashSet::new(), have_waited: true };
            gate.judge(&look(), &look())
        };
        assert_eq!(with_commit("v0.21.2-beta"), Verdict::Passed { unproven: 0 });
        assert!(matches!(with_commit("v0.21.2-beta-7"), Verdict::Failed(_)));
    }

    #[test]
    fn every_channel_is_there_or_its_end_is() {
        assert!(not_yet(judged(|now| drop(now.channels.remove(0)), &[], true)).contains("a:0"));
        let closing = |now: &mut Look| now.other_points.push(now.channels.remove(0).point);
        assert_eq!(judged(closing, &[], false), Verdict::Passed { unproven: 0 });
        assert!(not_yet(judged(|now| now.is_synced = false, &[], true)).contains("synced"));
    }

    #[test]
    fn nothing_may_be_less_but_by_payments_that_were_under_way() {
        assert!(not_yet(judged(|now| now.channels[0].own_sat -= 1, &[], true)).contains("a:0 has 999"));
        assert!(not_yet(judged(|now| now.wallet_sat -= 1, &[], true)).contains("2499"));
        let before =
            Look { channels: vec![Channel { own_sat: 900, outgoing_sat: 100, ..channel("a:0", "x") }], ..look() };
        let gate = Gate { wanted: &wanted(None), present: &HashSet::new(), have_waited: false };
        for (own_sat, outgoing_sat, passes) in [(900, 100, true), (900, 0, true), (1_000, 0, true), (800, 0, false)] {
            let now = Look { channels: vec![Channel { own_sat, outgoing_sat, ..channel("a:0", "x") }], ..look() };
            assert_eq!(gate.judge(&before, &now) == Verdict::Passed { unproven: 0 }, passes, "{own_sat}");
        }
    }

    #[test]
    fn channels_come_back_where_their_peers_are() {
        let one_away = |now: &mut Look| now.channels[0].is_active = false;
        assert!(not_yet(judged(one_away, &["x"], true)).contains("a:0"), "its peer is there");
        assert!(not_yet(judged(one_away, &["y"], false)).contains("1 channels"), "it may come back");
        assert_eq!(judged(one_away, &["y"], true), Verdict::Passed { unproven: 1 });
        let all_away = |now: &mut Look| now.channels.iter_mut().for_each(|channel| channel.is_active = false);
        assert!(not_yet(judged(all_away, &[], true)).contains("2 peers"));
        // What was not active before proves nothing.
        let gate = Gate { wanted: &wanted(None), present: &HashSet::new(), have_waited: false };
        let mut before = look();
        all_away(&mut before);
        assert_eq!(gate.judge(&before, &before), Verdict::Passed { unproven: 0 });
    }

    proptest! {
        /// Whatever happens, an lnd that has lost a channel, or money in one, does not pass.
        #[test]
        fn a_loss_never_passes(lost in 1i64..1_000, which in 0usize..2, active: bool, waited: bool, richer in 0i64..2_000) {
            let change = |now: &mut Look| {
                now.channels[which].own_sat -= lost;
                now.channels[1 - which].is_active = active;
                now.wallet_sat += richer;
            };
            prop_assert!(matches!(judged(change, &[], waited), Verdict::NotYet(_)));
            let without = |now: &mut Look| { now.channels.remove(which); now.wallet_sat += richer; };
            prop_assert!(matches!(judged(without, &[], waited), Verdict::NotYet(_)));
        }
    }
}
