//! `pay`: look the payment hash up, send, follow; open a channel only after a definite "no way" (`opening`). A transport
//! error is never a failure: the hash is looked up again.

use super::super::refuse;
use super::super::step::{Advance, Ctx, Settle};
use super::{Reached, SOON, opening, reach};
use crate::error::{Error, Result};
use crate::lnd::LndErrorKind;
use crate::lnd::macaroon::Grant;
use crate::lnd::proto::lnrpc::htlc_attempt::HtlcStatus;
use crate::lnd::proto::lnrpc::payment::PaymentStatus;
use crate::lnd::proto::lnrpc::{HtlcAttempt, Payment, PaymentFailureReason};
use crate::lnd::proto::routerrpc::SendPaymentRequest;
use crate::model::amount::{Msat, Sat};
use crate::model::invoice::Invoice;
use crate::model::operation::Operation;
use crate::model::problem::{Code, Refusal};
use crate::model::work::Work;
use crate::model::work::pay::{OpenPolicy, Pay, PayStep};
use prost::Message;
use serde_json::json;
use std::time::Duration;
use time::OffsetDateTime;

/// How long lnd looks for ways (`timeout_seconds`); what is in flight then goes on.
const SEND_TIMEOUT_SECONDS: i32 = 45;
/// For a few seconds after a channel has become active lnd's router does not know it.
const ROUTER_LAG: time::Duration = time::Duration::seconds(20);

pub(super) async fn advance(ctx: &Ctx, operation: &Operation, work: &Pay) -> Result<Advance> {
    match &work.step {
        PayStep::Send => send(ctx, operation, work, None).await,
        PayStep::PlanOpening => opening::plan(ctx, operation, work).await,
        PayStep::Connect { opening } => opening::connect(ctx, operation, work, opening).await,
        PayStep::Open { opening, put_off } => opening::open(ctx, operation, work, opening, *put_off).await,
        PayStep::AwaitChannel { channel_point } => opening::await_channel(ctx, operation, work, channel_point).await,
        PayStep::SendOverNew { since, .. } => send(ctx, operation, work, Some(*since)).await,
    }
}

/// The same work at another step.
pub(super) fn at(work: &Pay, step: PayStep) -> Work {
    Work::Pay(Pay { step, ..work.clone() })
}

/// A failure, with the channel it leaves behind, whose cost is not given back.
pub(super) fn failed(work: &Pay, refusal: Refusal) -> Advance {
    let spent_sat = work.opened.as_ref().map_or(Sat(0), |channel| channel.fee_sat);
    let refusal = match &work.opened {
        Some(channel) => refusal.with("channel", json!(channel)),
        None => refusal,
    };
    Advance::Failed { refusal, spent_sat, writes: Vec::new() }
}

fn payment_hash(work: &Pay) -> Result<[u8; 32]> {
    let mut hash = [0u8; 32];
    hex::decode_to_slice(&work.terms.payment_hash, &mut hash)
        .map_err(|_| Error::Invariant("a stored payment hash is not 32 bytes".to_owned()))?;
    Ok(hash)
}

async fn send(ctx: &Ctx, operation: &Operation, work: &Pay, since: Option<OffsetDateTime>) -> Result<Advance> {
    let reached = reach(ctx, operation).await?;
    let hash = payment_hash(work)?;
    let known = reached.lnd.payment(&reached.read, hash).await?;
    let payment = match known.map(|p| (p.status(), p)) {
        Some((PaymentStatus::Succeeded, payment)) => payment,
        Some((PaymentStatus::InFlight | PaymentStatus::Initiated, _)) => follow(&reached, hash).await?,
        _ => {
            if work.terms.expires_at <= ctx.parts.clock.now() {
                return Ok(failed(work, Refusal::new(Code::PayreqExpired, "the payment request has expired")));
            }
            match start(ctx, &reached, work).await? {
                Started::Ended(payment) => *payment,
                Started::LookAgain => return Ok(Advance::again("sending", Duration::ZERO)),
                Started::Refused(message) => {
                    let refusal =
                        Refusal::new(Code::LndRefused, "lnd refused the payment").with("lnd_message", message);
                    return Ok(failed(work, refusal));
                }
            }
        }
    };
    if was_overtaken(ctx, &reached, work, &payment).await? {
        return Ok(Advance::again("blocks came while the payment was under way", SOON));
    }
    Ok(judge(ctx, work, &payment, since))
}

/// Whether more blocks came while the payment was under way than its time had room for (lnd leaves 3). The payee refuses it
/// then with the words for a wrong amount or an unknown hash (BOLT 4), but it may be sent again. Our own lnd's view of the
/// chain decides, so that each of these costs a payee who plays it three blocks, and the end of the invoice's time ends it:
/// holding the first HTLC for as long would have done the same.
async fn was_overtaken(ctx: &Ctx, reached: &Reached, work: &Pay, payment: &Payment) -> Result<bool> {
    if payment.failure_reason() != PaymentFailureReason::FailureReasonIncorrectPaymentDetails {
        return Ok(false);
    }
    let terms = Invoice::parse(&work.terms.payreq, ctx.parts.settings.network)
        .map_err(|_| Error::Invariant("a stored payment request cannot be read".to_owned()))?;
    let height = reached.lnd.get_info(&reached.read).await?.block_height;
    Ok(came_too_late(payment, height, terms.final_cltv_delta))
}

/// Whether an HTLC of `payment` had too few blocks left for its payee at `height`, or one that the payee saw before us.
fn came_too_late(payment: &Payment, height: u32, final_cltv_delta: u32) -> bool {
    let last_hops = payment.htlcs.iter().filter_map(|htlc| htlc.route.as_ref()?.hops.last());
    let earliest_expiry = last_hops.map(|hop| hop.expiry).min();
    earliest_expiry.is_some_and(|expiry| expiry < (height + 1).saturating_add(final_cltv_delta))
}

/// Follows a payment under way to its end.
async fn follow(reached: &Reached, hash: [u8; 32]) -> Result<Payment> {
    let mut updates = reached.lnd.track_payment(&reached.read, hash)?;
    while let Some(payment) = updates.next().await? {
        if payment.is_final() {
            return Ok(payment);
        }
    }
    Err(unknown_end())
}

enum Started {
    Ended(Box<Payment>),
    LookAgain,
    Refused(String),
}

async fn start(ctx: &Ctx, reached: &Reached, work: &Pay) -> Result<Started> {
    let terms = &work.terms;
    let amt_msat = if terms.amount_is_ours { signed(terms.amount_msat.0)? } else { 0 };
    let ask = SendPaymentRequest {
        payment_request: terms.payreq.clone(),
        amt_msat,
        fee_limit_sat: signed(terms.max_fee_sat.0)?,
        timeout_seconds: SEND_TIMEOUT_SECONDS,
        no_inflight_updates: true,
        ..Default::default()
    };
    let macaroon = ctx.spending_macaroon(&reached.node.value, Grant::Pay)?;
    let mut updates = reached.lnd.send_payment(&macaroon, ask)?;
    loop {
        match updates.next().await {
            Ok(Some(payment)) if payment.is_final() => return Ok(Started::Ended(Box::new(payment))),
            Ok(Some(_)) => {}
            Ok(None) => return Err(unknown_end()),
            Err(e) if matches!(e.kind, LndErrorKind::AlreadyPaid | LndErrorKind::InTransition) => {
                return Ok(Started::LookAgain);
            }
            Err(e) if e.kind == LndErrorKind::Refused => {
                // lnd may have begun before it said no: only an unknown or failed payment is a definite failure.
                let known = reached.lnd.payment(&reached.read, payment_hash(work)?).await?;
                return Ok(match known.map(|payment| payment.status()) {
                    None | Some(PaymentStatus::Failed) => Started::Refused(refuse::words(&e)),
                    Some(_) => Started::LookAgain,
                });
            }
            Err(e) => return Err(e.into()),
        }
    }
}

fn signed(value: u64) -> Result<i64> {
    i64::try_from(value).map_err(|_| Error::Invariant("an amount beyond all bitcoin".to_owned()))
}

fn unknown_end() -> Error {
    crate::lnd::LndError::new(LndErrorKind::Unknown, "lnd ended the stream before the payment ended").into()
}

/// What an ended payment means for the operation.
fn judge(ctx: &Ctx, work: &Pay, payment: &Payment, since: Option<OffsetDateTime>) -> Advance {
    if payment.status() == PaymentStatus::Succeeded {
        return done(work, payment);
    }
    let no_way = matches!(
        payment.failure_reason(),
        PaymentFailureReason::FailureReasonNoRoute | PaymentFailureReason::FailureReasonInsufficientBalance
    );
    let lagging = since.is_some_and(|since| ctx.parts.clock.now() - since < ROUTER_LAG);
    match (no_way, since) {
        (true, Some(_)) if lagging => Advance::again("waiting for lnd's router to see the new channel", SOON),
        (true, _) if work.opened.is_none() && work.terms.open == OpenPolicy::Auto => {
            Advance::next(at(work, PayStep::PlanOpening), "no way over the channels that are there")
        }
        (true, _) => {
            let refusal = Refusal::new(Code::NoRoute, "there is no way to the payee within the fee bound");
            failed(work, refusal.with("failure_reason", payment.failure_reason().as_str_name()))
        }
        (false, _) => {
            let refusal = Refusal::new(Code::PaymentFailed, "the payment failed");
            failed(work, refusal.with("failure_reason", payment.failure_reason().as_str_name()))
        }
    }
}

fn done(work: &Pay, payment: &Payment) -> Advance {
    let msat = |value: i64| Msat::from_lnd(value).to_sat_ceil();
    let opening_fee = work.opened.as_ref().map_or(Sat(0), |channel| channel.fee_sat);
    let spent = msat(payment.value_msat).saturating_add(msat(payment.fee_msat)).saturating_add(opening_fee);
    let result = json!({ "payment": storable(payment), "channel": work.opened });
    Advance::Done { result, settle: Settle::Spent(spent), writes: Vec::new() }
}

/// The payment as it is kept. One after many attempts would not fit into a document of the Store (1 MiB in Firestore), which
/// must never keep a payment from being told; so the attempts that failed are left out then, and at worst all.
fn storable(payment: &Payment) -> Payment {
    let mut kept = payment.clone();
    let settled = |htlc: &HtlcAttempt| htlc.status() == HtlcStatus::Succeeded;
    if kept.encoded_len() > MOST_KEPT {
        kept.htlcs.retain(settled);
    }
    if kept.encoded_len() > MOST_KEPT {
        kept.htlcs.clear();
    }
    kept
}

/// Bytes of a payment, as lnd sends it, that are kept. JSON takes about twice as many.
const MOST_KEPT: usize = 200 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lnd::proto::lnrpc::{Hop, Route};

    /// Sent at height 100 to a payee who wants 80 blocks, with lnd's room of 3.
    fn sent_at_100() -> Payment {
        let hops = vec![Hop { expiry: 300, ..Hop::default() }, Hop { expiry: 183, ..Hop::default() }];
        let attempt = HtlcAttempt { route: Some(Route { hops, ..Route::default() }), ..HtlcAttempt::default() };
        Payment { htlcs: vec![attempt], ..Payment::default() }
    }

    #[test]
    fn a_payment_of_many_attempts_is_kept_without_those_that_failed() {
        let attempt = |status: HtlcStatus| HtlcAttempt {
            preimage: vec![7; 600],
            status: status.into(),
            ..HtlcAttempt::default()
        };
        let mut payment =
            Payment { htlcs: vec![attempt(HtlcStatus::Failed), attempt(HtlcStatus::Succeeded)], ..Payment::default() };
        assert_eq!(storable(&payment), payment);
        payment.htlcs.extend(vec![attempt(HtlcStatus::Failed); 400]);
        assert_eq!(storable(&payment).htlcs, [attempt(HtlcStatus::Succeeded)]);
        payment.htlcs = vec![attempt(HtlcStatus::Succeeded); 400];
        assert_eq!(storable(&payment).htlcs, []);
    }

    #[test]
    fn a_payment_that_blocks_overtook_is_told_from_one_that_its_payee_does_not_want() {
        assert!(!came_too_late(&sent_at_100(), 100, 80));
        assert!(!came_too_late(&sent_at_100(), 102, 80));
        assert!(came_too_late(&sent_at_100(), 103, 80), "the payee may have seen one more");
        assert!(came_too_late(&sent_at_100(), u32::MAX - 1, 80));
        assert!(!came_too_late(&Payment::default(), 103, 80), "nothing was sent");
    }
}
