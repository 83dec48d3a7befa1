//! What an app may cost, and what is set aside before it is spent. Pure arithmetic: the caller writes the new [`Usage`] in
//! the same commit that creates the operation. How a limit is divided among several documents is told in [`shards`].

pub mod shards;

use super::amount::Sat;
use super::app::Limits;
use super::problem::{Code, Refusal};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// How many things are limited; [`Limits::all`] gives their order.
const KINDS: usize = 4;

/// What was used, of one app or of the whole deployment: one of the documents that count it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// The app, or `_deployment`.
    pub subject: String,
    /// Which of the subject's documents this is.
    #[serde(default)]
    pub shard: u8,
    /// Nodes that exist.
    pub nodes: u64,
    /// The hour that `creates` counts: hours since 1970.
    pub hour: i64,
    /// Creates accepted in it.
    pub creates: u64,
    /// The day that the sums are of: days since 1970.
    pub day: i64,
    /// Funding by the treasury on that day.
    pub funding_sat: Sat,
    /// Money that left, or may leave, on that day.
    pub outgoing_sat: Sat,
    /// What this document may count without asking the others.
    #[serde(default)]
    pub parts: Parts,
}

/// The parts of limits that a document has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Parts {
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<Part>,
    #[serde(skip_serializing_if = "Option::is_none")]
    creates_per_hour: Option<Part>,
    #[serde(skip_serializing_if = "Option::is_none")]
    funding_sat_per_day: Option<Part>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outgoing_sat_per_day: Option<Part>,
}

impl Parts {
    fn all(&self) -> [Option<Part>; KINDS] {
        [self.nodes, self.creates_per_hour, self.funding_sat_per_day, self.outgoing_sat_per_day]
    }

    fn set(&mut self, kind: usize, part: Option<Part>) {
        let all = [
            &mut self.nodes,
            &mut self.creates_per_hour,
            &mut self.funding_sat_per_day,
            &mut self.outgoing_sat_per_day,
        ];
        for place in all.into_iter().skip(kind).take(1) {
            *place = part;
        }
    }
}

/// A document's part of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The whole limit that it is a part of.
    pub of: u64,
    /// The most that this document may count.
    pub most: u64,
}

/// The id of the deployment's own usage document.
pub const DEPLOYMENT: &str = "_deployment";

/// What an operation sets aside. Kept in the operation until it is released.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// The hour in which it was made.
    pub hour: i64,
    /// The day on which it was made.
    pub day: i64,
    /// Nodes.
    pub nodes: u64,
    /// Creates.
    pub creates: u64,
    /// Funding.
    pub funding_sat: Sat,
    /// Outgoing money: the amount and the most that fees may be.
    pub outgoing_sat: Sat,
    /// Which of the documents count it: this one of the app's and this one of the deployment's.
    #[serde(default)]
    pub shard: u8,
}

impl Reservation {
    /// A reservation made now.
    #[must_use]
    pub fn at(now: OffsetDateTime) -> Self {
        let seconds = now.unix_timestamp();
        Self { hour: seconds.div_euclid(3600), day: seconds.div_euclid(86_400), ..Self::default() }
    }
}

/// The limits that hold for what is asked; none of a kind: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds([Option<u64>; KINDS]);

impl Bounds {
    /// Those of `limits`, for `ask`. `unset_is_unlimited` is true on simnet and regtest only.
    ///
    /// # Errors
    /// A [`Refusal`] that names what is asked without being limited, where that means refused.
    pub fn of(limits: &Limits, ask: &Reservation, unset_is_unlimited: bool) -> Result<Self, Refusal> {
        let all = limits.all();
        for ((name, limit), asked) in all.into_iter().zip(ask.amounts()) {
            if asked > 0 && limit.is_none() && !unset_is_unlimited {
                let message = format!("no {name} is set for this app, which on this network means none");
                return Err(Refusal::new(Code::LimitUnset, message).with("limit_name", name));
            }
        }
        Ok(Self(all.map(|(_, limit)| limit)))
    }

    /// Whether nothing is limited.
    #[must_use]
    pub fn are_none(&self) -> bool {
        self.0 == [None; KINDS]
    }
}

impl Reservation {
    fn amounts(&self) -> [u64; KINDS] {
        [self.nodes, self.creates, self.funding_sat.0, self.outgoing_sat.0]
    }
}

impl Usage {
    /// Nothing used yet: the first document of a subject.
    #[must_use]
    pub fn of(subject: impl Into<String>) -> Self {
        Self { subject: subject.into(), ..Self::default() }
    }

    /// The id of the document that is number `shard` of `subject`. The first has the subject's name, as the only one had when
    /// there was one. No app has an underscore in its name.
    #[must_use]
    pub fn id_of(subject: &str, shard: u8) -> String {
        if shard == 0 { subject.to_owned() } else { format!("{subject}_{shard}") }
    }

    fn amounts(&self) -> [u64; KINDS] {
        [self.nodes, self.creates, self.funding_sat.0, self.outgoing_sat.0]
    }

    /// Goes on to this hour and day, which begin with nothing.
    fn roll(&mut self, hour: i64, day: i64) {
        if self.hour < hour {
            (self.hour, self.creates) = (hour, 0);
        }
        if self.day < day {
            (self.day, self.funding_sat, self.outgoing_sat) = (day, Sat(0), Sat(0));
        }
    }

    fn add(&mut self, ask: &Reservation) {
        self.nodes = self.nodes.saturating_add(ask.nodes);
        self.creates = self.creates.saturating_add(ask.creates);
        self.funding_sat = self.funding_sat.saturating_add(ask.funding_sat);
        self.outgoing_sat = self.outgoing_sat.saturating_add(ask.outgoing_sat);
    }

    /// Gives back what was set aside and not used. What was set aside in another hour or on another day no longer counts.
    pub fn release(&mut self, back: &Reservation) {
        self.nodes = self.nodes.saturating_sub(back.nodes);
        if self.hour == back.hour {
            self.creates = self.creates.saturating_sub(back.creates);
        }
        if self.day == back.day {
            self.funding_sat = self.funding_sat.saturating_sub(back.funding_sat);
            self.outgoing_sat = self.outgoing_sat.saturating_sub(back.outgoing_sat);
        }
    }

    /// What was set aside as `held` came to `kept`: the rest is given back, and what was spent beyond it is counted. What was
    /// set aside in another hour or on another day no longer counts.
    pub fn settle(&mut self, held: &Reservation, kept: &Reservation) {
        self.release(held);
        self.nodes = self.nodes.saturating_add(kept.nodes);
        if self.hour == held.hour {
            self.creates = self.creates.saturating_add(kept.creates);
        }
        if self.day == held.day {
            self.funding_sat = self.funding_sat.saturating_add(kept.funding_sat);
            self.outgoing_sat = self.outgoing_sat.saturating_add(kept.outgoing_sat);
        }
    }
}
