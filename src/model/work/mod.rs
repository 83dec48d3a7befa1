//! What operations do, step by step. Every step is one effect outside the Store (or none); what was decided is in the
//! step's data, so that the effect can be repeated. The names of the steps are enumerated for the tests that kill at each.

pub mod close;
pub mod create;
pub mod delete;
pub mod launch;
pub mod onchain;
pub mod pay;
pub mod plan;
pub mod recover;
pub mod resume;
pub mod update;
pub mod upgrade;

use serde::{Deserialize, Serialize};

/// The kinds of work, each with its parameters and its step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Work {
    /// Give a user a node.
    Create(create::Create),
    /// Pay an invoice.
    Pay(pay::Pay),
    /// Close a channel.
    #[serde(rename = "closechannel")]
    Close(close::Close),
    /// Send on-chain.
    Withdraw(onchain::Withdraw),
    /// Take a node out of service.
    Delete(delete::Delete),
    /// The treasury funds new wallets in one transaction.
    Funding(onchain::FundingBatch),
    /// Start a machine for a host.
    Launch(launch::Launch),
    /// Replace a host's machine that is gone.
    Recover(recover::Recover),
    /// Start a node on its host's new machine.
    Resume(resume::Resume),
    /// Look for a release.
    Update(update::Update),
    /// Replace a node's lnd by that of a release.
    Upgrade(upgrade::Upgrade),
}

impl Work {
    /// The name in the API.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Pay(_) => "pay",
            Self::Close(_) => "closechannel",
            Self::Withdraw(_) => "withdraw",
            Self::Delete(_) => "delete",
            Self::Funding(_) => "funding",
            Self::Launch(_) => "launch",
            Self::Recover(_) => "recover",
            Self::Resume(_) => "resume",
            Self::Update(_) => "update",
            Self::Upgrade(_) => "upgrade",
        }
    }

    /// The name of the step it is at.
    #[must_use]
    pub fn step(&self) -> &'static str {
        match self {
            Self::Create(w) => w.step.name(),
            Self::Pay(w) => w.step.name(),
            Self::Close(w) => w.step.name(),
            Self::Withdraw(w) => w.step.name(),
            Self::Delete(w) => w.step.name(),
            Self::Funding(w) => w.step.name(),
            Self::Launch(w) => w.step.name(),
            Self::Recover(w) => w.step.name(),
            Self::Resume(_) => resume::Resume::STEP,
            Self::Update(_) => update::Update::STEP,
            Self::Upgrade(w) => w.step.name(),
        }
    }

    /// Whether a step may turn this into `next`: what was frozen stays as it is, and no step goes back behind an effect that
    /// cannot be taken back. Work may always stay as it is.
    #[must_use]
    pub fn may_become(&self, next: &Self) -> bool {
        match (self, next) {
            (now, next) if now == next => true,
            (Self::Create(now), Self::Create(next)) => now.may_become(next),
            (Self::Pay(now), Self::Pay(next)) => now.may_become(next),
            (Self::Close(now), Self::Close(next)) => now.may_become(next),
            (Self::Withdraw(now), Self::Withdraw(next)) => now.may_become(next),
            (Self::Delete(now), Self::Delete(next)) => now.step <= next.step,
            (Self::Funding(now), Self::Funding(next)) => now.outputs == next.outputs && now.step.may_become(&next.step),
            (Self::Launch(now), Self::Launch(next)) => now.step.may_become(&next.step),
            (Self::Recover(now), Self::Recover(next)) => {
                now.terminate == next.terminate && now.step.may_become(&next.step)
            }
            (Self::Upgrade(now), Self::Upgrade(next)) => now.may_become(next),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;
