//! `pay`: over what is there; and where that is definitely not enough, over a channel opened for it.

use crate::model::amount::{Msat, Sat};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// Whether a pay may open a channel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpenPolicy {
    /// When there is no way without.
    #[default]
    Auto,
    /// Never.
    Never,
}

/// What is to be paid and what it may cost. Frozen when the operation is accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayTerms {
    /// The payment request (BOLT 11).
    pub payreq: String,
    /// Its payment hash (hexadecimal): what the payment is known by.
    pub payment_hash: String,
    /// The payee's key (hexadecimal).
    pub payee: String,
    /// What the payee gets.
    pub amount_msat: Msat,
    /// Whether the amount is not in the payment request, so that it has to be told to lnd.
    pub amount_is_ours: bool,
    /// The most that routing may cost.
    pub max_fee_sat: Sat,
    /// When the payment request expires.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
    /// Whether a channel may be opened.
    pub open: OpenPolicy,
    /// The capacity wished for it, if any.
    pub capacity_sat: Option<Sat>,
    /// The most that opening it may cost on-chain; none: 1% of the capacity, at least 2,000.
    pub max_open_fee_sat: Option<Sat>,
    /// The peer to open with (hexadecimal): the payee, unless told otherwise.
    pub peer: String,
    /// Where that peer is (literal IP address and port), once known and checked.
    pub peer_address: Option<String>,
}

impl PayTerms {
    /// Whether the same was asked. Where the peer is may have been resolved to another of its addresses since.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        Self { peer_address: None, ..self.clone() } == Self { peer_address: None, ..other.clone() }
    }
}

/// A payment under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pay {
    /// What was asked.
    pub terms: PayTerms,
    /// The channel that was opened for it, `txid:index`, with its cost.
    pub opened: Option<Opened>,
    /// The step.
    pub step: PayStep,
}

impl Pay {
    /// The terms are frozen, so is a channel's opening once it was decided; and one payment opens one channel at most.
    pub(super) fn may_become(&self, next: &Self) -> bool {
        use PayStep::{AwaitChannel, Connect, Open, PlanOpening, Send, SendOverNew};
        let step = match (&self.step, &next.step) {
            (Send, PlanOpening) | (PlanOpening, Connect { .. } | AwaitChannel { .. }) => true,
            (Connect { opening: now }, Open { opening: next, put_off: None }) => now == next,
            (Open { opening: now, put_off: None }, Open { opening: next, put_off: Some(_) }) => now == next,
            // The opening came to nothing, which was proven; or it came true.
            (Open { .. }, PlanOpening | AwaitChannel { .. }) => true,
            (AwaitChannel { channel_point: now }, SendOverNew { channel_point: next, .. }) => now == next,
            // There was a channel of another's, and it was not enough.
            (SendOverNew { .. }, PlanOpening) => true,
            _ => self.step == next.step,
        };
        let opens_again = matches!(next.step, PlanOpening | Connect { .. } | Open { .. });
        let opened = match (&self.opened, &next.opened) {
            (Some(now), Some(next)) => now == next && !opens_again,
            (Some(_), None) => false,
            (None, Some(_)) => matches!((&self.step, &next.step), (Open { .. }, AwaitChannel { .. })),
            (None, None) => true,
        };
        self.terms == next.terms && step && opened
    }
}

/// A channel that was opened for a payment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// `txid:index`.
    pub channel_point: String,
    /// Its capacity.
    pub capacity_sat: Sat,
    /// What its funding transaction cost.
    pub fee_sat: Sat,
    /// The peer (hexadecimal).
    pub peer: String,
}

/// A channel opening, decided and frozen before it is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    /// The peer (hexadecimal).
    pub peer: String,
    /// Where it is (literal IP address and port).
    pub peer_address: String,
    /// The capacity, all of it ours at first.
    pub capacity_sat: Sat,
    /// The fee rate of the funding transaction.
    pub sat_per_vbyte: u64,
    /// What the funding transaction may cost at that rate.
    pub fee_sat: Sat,
    /// Its inputs, `txid:index`: a repeat spends the same and so can never be a second channel.
    pub outpoints: Vec<String>,
}

/// The steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum PayStep {
    /// Send over the channels that are there; a payment of this hash that exists is followed, never repeated.
    Send,
    /// Decide on a channel to open (capacity, fee, inputs), or find the one that is being opened.
    PlanOpening,
    /// Connect to the peer.
    Connect {
        /// What was decided.
        opening: Opening,
    },
    /// Open the channel, unless one that carries this operation's memo is there.
    Open {
        /// What was decided.
        opening: Opening,
        /// Since when the peer puts it off, if it does.
        #[serde(default, with = "time::serde::rfc3339::option")]
        put_off: Option<OffsetDateTime>,
    },
    /// Wait until the channel is active.
    AwaitChannel {
        /// The channel, `txid:index`.
        channel_point: String,
    },
    /// Send again, over the channel that has just become active.
    SendOverNew {
        /// The channel, `txid:index`.
        channel_point: String,
        /// When it was first seen active: lnd's router lags a few seconds behind.
        #[serde(with = "time::serde::rfc3339")]
        since: OffsetDateTime,
    },
}

impl PayStep {
    /// The names of all, in order.
    pub const NAMES: [&'static str; 6] = ["send", "plan_opening", "connect", "open", "await_channel", "send_over_new"];

    /// The name in the API.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::PlanOpening => "plan_opening",
            Self::Connect { .. } => "connect",
            Self::Open { .. } => "open",
            Self::AwaitChannel { .. } => "await_channel",
            Self::SendOverNew { .. } => "send_over_new",
        }
    }
}
