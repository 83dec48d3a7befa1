//! The workflows: one step in, one effect outside the Store at most, one [`Advance`] out. What a step needs to be repeated
//! is in the step itself; every step first looks whether its effect is there already.

mod choosing;
mod close;
mod create;
mod create_wallet;
mod delete;
mod funding;
mod launch;
mod onchain;
mod opening;
mod pay;
mod peers;
mod recover;
mod resume;
mod update;
mod upgrade;
mod withdraw;

pub(super) use opening::{coins, refuse_too_late};
pub(super) use peers::fleet_address;

use super::step::{Advance, Ctx};
use crate::error::Result;
use crate::lnd::client::LndClient;
use crate::lnd::macaroon::Macaroon;
use crate::model::node::Node;
use crate::model::operation::Operation;
use crate::model::work::Work;
use crate::store::repo::Versioned;
use std::time::Duration;

/// How long to wait before looking again where no event tells.
pub(super) const SOON: Duration = Duration::from_millis(250);

/// Does the step that `operation` is at.
pub async fn advance(ctx: &Ctx, operation: &Operation) -> Result<Advance> {
    match &operation.work {
        Work::Create(work) => create::advance(ctx, operation, work).await,
        Work::Pay(work) => pay::advance(ctx, operation, work).await,
        Work::Close(work) => close::advance(ctx, operation, work).await,
        Work::Withdraw(work) => withdraw::advance(ctx, operation, work).await,
        Work::Delete(work) => delete::advance(ctx, operation, work).await,
        Work::Funding(work) => funding::advance(ctx, operation, work).await,
        Work::Launch(work) => launch::advance(ctx, operation, work).await,
        Work::Recover(work) => recover::advance(ctx, operation, work).await,
        Work::Resume(work) => resume::advance(ctx, operation, work).await,
        Work::Update(work) => update::advance(ctx, operation, work).await,
        Work::Upgrade(work) => upgrade::advance(ctx, operation, work).await,
    }
}

/// A node with its connection and a macaroon for looking.
struct Reached {
    node: Versioned<Node>,
    lnd: LndClient,
    read: Macaroon,
}

async fn reach(ctx: &Ctx, operation: &Operation) -> Result<Reached> {
    let node = ctx.node(operation.node.as_ref()).await?;
    let lnd = ctx.parts.lnds.client(&node.value)?;
    let read = ctx.reading_macaroon(&node.value)?;
    Ok(Reached { node, lnd, read })
}
