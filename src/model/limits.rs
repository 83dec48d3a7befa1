//! What an app may cost, and what is set aside before it is spent. Pure arithmetic: the caller writes the new [`Usage`] in
//! the same commit that creates the operation.

use super::amount::Sat;
use super::app::Limits;
use super::problem::{Code, Refusal};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// What was used, of one app or of the whole deployment. One document each.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// The app, or `_deployment`.
    pub subject: String,
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
}

impl Reservation {
    /// A reservation made now.
    #[must_use]
    pub fn at(now: OffsetDateTime) -> Self {
        let seconds = now.unix_timestamp();
        Self { hour: seconds.div_euclid(3600), day: seconds.div_euclid(86_400), ..Self::default() }
    }
}

impl Usage {
    /// Nothing used yet.
    #[must_use]
    pub fn of(subject: impl Into<String>) -> Self {
        Self { subject: subject.into(), ..Self::default() }
    }

    fn roll(&mut self, ask: &Reservation) {
        if self.hour < ask.hour {
            (self.hour, self.creates) = (ask.hour, 0);
        }
        if self.day < ask.day {
            (self.day, self.funding_sat, self.outgoing_sat) = (ask.day, Sat(0), Sat(0));
        }
    }

    /// Sets `ask` aside. `unset_is_unlimited` is true on simnet and regtest only.
    ///
    /// # Errors
    /// A [`Refusal`] that names the limit, what is used and what was asked; `self` is then as it was.
    pub fn reserve(&mut self, limits: &Limits, ask: &Reservation, unset_is_unlimited: bool) -> Result<(), Refusal> {
        let mut next = self.clone();
        next.roll(ask);
        next.nodes = next.nodes.saturating_add(ask.nodes);
        next.creates = next.creates.saturating_add(ask.creates);
        next.funding_sat = next.funding_sat.saturating_add(ask.funding_sat);
        next.outgoing_sat = next.outgoing_sat.saturating_add(ask.outgoing_sat);
        let checks = [
            ("nodes", limits.nodes, ask.nodes, next.nodes),
            ("creates_per_hour", limits.creates_per_hour, ask.creates, next.creates),
            ("funding_sat_per_day", limits.funding_sat_per_day, ask.funding_sat.0, next.funding_sat.0),
            ("outgoing_sat_per_day", limits.outgoing_sat_per_day, ask.outgoing_sat.0, next.outgoing_sat.0),
        ];
        for (name, limit, asked, total) in checks {
            check(name, limit, asked, total, unset_is_unlimited)?;
        }
        *self = next;
        Ok(())
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

fn check(name: &str, limit: Option<u64>, asked: u64, total: u64, unset_is_unlimited: bool) -> Result<(), Refusal> {
    match limit {
        _ if asked == 0 => Ok(()),
        None if unset_is_unlimited => Ok(()),
        None => {
            let message = format!("no {name} is set for this app, which on this network means none");
            Err(Refusal::new(Code::LimitUnset, message).with("limit_name", name))
        }
        Some(limit) if total > limit => {
            let refusal = Refusal::new(Code::LimitExceeded, format!("{name} would be exceeded"))
                .with("limit_name", name)
                .with("limit", limit)
                .with("used", total.saturating_sub(asked))
                .with("needed", asked);
            Err(refusal)
        }
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ask(outgoing: u64) -> Reservation {
        Reservation { day: 1, hour: 24, outgoing_sat: Sat(outgoing), ..Reservation::default() }
    }

    proptest! {
        /// Whatever is asked and given back in whatever order: never over the limit, and all given back is nothing used.
        #[test]
        fn never_over_the_limit(limit in 0u64..1_000_000, asks in proptest::collection::vec(1u64..500_000, 1..40)) {
            let limits = Limits { outgoing_sat_per_day: Some(limit), ..Limits::default() };
            let mut usage = Usage::of("a");
            let mut held = Vec::new();
            for (i, sat) in asks.iter().enumerate() {
                let before = usage.clone();
                match usage.reserve(&limits, &ask(*sat), false) {
                    Ok(()) => held.push(ask(*sat)),
                    Err(_) => prop_assert_eq!(before.outgoing_sat, usage.outgoing_sat),
                }
                prop_assert!(usage.outgoing_sat.0 <= limit);
                prop_assert_eq!(usage.outgoing_sat.0, held.iter().map(|r| r.outgoing_sat.0).sum::<u64>());
                if i % 3 == 2 && let Some(back) = held.pop() {
                    usage.release(&back);
                }
            }
            for back in &held {
                usage.release(back);
            }
            prop_assert_eq!(usage.outgoing_sat.0, 0);
        }
    }

    #[test]
    fn unset_means_refused_where_coins_are_worth_something() {
        let mut usage = Usage::of("a");
        let refusal = usage.reserve(&Limits::default(), &ask(1), false).expect_err("refused");
        assert_eq!(refusal.code, Code::LimitUnset);
        assert!(usage.reserve(&Limits::default(), &ask(1), true).is_ok());
    }

    #[test]
    fn a_new_day_starts_at_zero_and_late_releases_do_not_touch_it() {
        let limits = Limits { outgoing_sat_per_day: Some(10), ..Limits::default() };
        let mut usage = Usage::of("a");
        usage.reserve(&limits, &ask(10), false).expect("fits");
        let tomorrow = Reservation { day: 2, hour: 48, ..ask(7) };
        usage.reserve(&limits, &tomorrow, false).expect("a new day");
        usage.release(&ask(10));
        assert_eq!(usage.outgoing_sat, Sat(7));
    }
}
