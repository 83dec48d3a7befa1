//! `resume`: a node goes on on its host's new machine, which has the old one's data volume: the same folder, wallet and
//! certificate at another address. Unlocking it and reconnecting its channels is the upkeep's, as after every start.

use super::super::step::{Advance, Ctx, Settle};
use super::create::{host_of, is_its_own};
use crate::error::{AgentError, Result};
use crate::lndserver::client::Order;
use crate::model::host::Host;
use crate::model::node::{Endpoint, Node, Phase};
use crate::model::operation::Operation;
use crate::model::problem::{Code, Refusal};
use crate::model::work::resume::Resume;
use crate::store::repo::{self, Versioned};
use serde_json::json;

/// The only step. To start what runs is nothing; what is written depends on the node as it was read.
pub(super) async fn advance(ctx: &Ctx, operation: &Operation, work: &Resume) -> Result<Advance> {
    let mut node = ctx.node(operation.node.as_ref()).await?;
    let (Some(placement), Some(known)) = (&node.value.placement, &node.value.endpoint) else {
        return Ok(failed("the node is on no host any more"));
    };
    if placement.host != work.host {
        return Ok(failed("the node is on another host"));
    }
    let host = host_of(ctx, &node.value).await?.value;
    if host.generation != work.generation {
        return Ok(failed("the host has another machine by now"));
    }
    if node.value.phase == Phase::Deleting {
        // Whether it is to run is for its delete to say; the agent goes on as it was told.
        let Some(address) = host.address else { return Ok(failed("the host has no address")) };
        let at = Endpoint { address, ..known.clone() };
        return done(node, at);
    }
    let spec = ctx.parts.settings.spec_for(&node.value);
    let order = Order { host: &host, epoch: ctx.claim.epoch() };
    match ctx.parts.agents.ensure_node(order, spec).await {
        Ok(endpoint) if !is_the_same(&endpoint, known, &node.value, &host) => {
            tracing::error!(node = %node.value.id, host.id = %host.id, "ALARM: a host names another lnd as a node's own");
            Ok(park("the host named another lnd than this node's: it is not the node's volume, or not its folder"))
        }
        Ok(endpoint) => {
            node.value.endpoint = Some(endpoint.clone());
            done(node, endpoint)
        }
        Err(AgentError::Refused(reason)) => {
            tracing::error!(node = %node.value.id, host.id = %host.id, reason, "the host refused to start an lnd");
            Ok(park("the host refused to start the lnd; the operator's log has the reason"))
        }
        Err(AgentError::Revoked) => Ok(failed("the host was revoked")),
        Err(error) => Err(error.into()),
    }
}

/// The certificate is on the volume, and so tells whether it is the right one.
fn is_the_same(endpoint: &Endpoint, known: &Endpoint, node: &Node, host: &Host) -> bool {
    endpoint.certificate_pem == known.certificate_pem && is_its_own(endpoint, node, host)
}

fn done(mut node: Versioned<Node>, at: Endpoint) -> Result<Advance> {
    node.value.endpoint = Some(at);
    let result = json!({ "uuid": node.value.uuid, "host": node.value.placement.as_ref().map(|placed| &placed.host) });
    Ok(Advance::Done { result, settle: Settle::Keep, writes: vec![repo::update(&node.value, node.version)?] })
}

fn failed(why: &str) -> Advance {
    Advance::failed(Refusal::new(Code::NoCapacity, why))
}

fn park(why: &str) -> Advance {
    Advance::Park { refusal: Refusal::new(Code::Parked, why) }
}
