//! `GET update`, for the operator: which release is wanted, how far it is, and what was heard of others.

use super::call::{Call, ok};
use super::operations;
use super::params::params;
use super::rollouts;
use crate::model::problem::Refusal;
use crate::model::updates::{GitRef, Heard, Ignored, ReleaseRecord};
use crate::release::manifest;
use axum::response::Response;
use serde::Serialize;
use time::OffsetDateTime;

params! {
    /// Nothing.
    pub struct Nothing {}
}

#[derive(Debug, Serialize)]
struct View<'a> {
    wanted: Option<WantedView<'a>>,
    rollout: Option<rollouts::View<'a>>,
    looking: Vec<operations::View<'a>>,
    deliveries: Vec<DeliveryView<'a>>,
}

#[derive(Debug, Serialize)]
struct WantedView<'a> {
    serial: u64,
    lnd: Option<String>,
    lndserver: Option<String>,
    signed_by: &'a str,
    source: Option<&'a GitRef>,
    #[serde(with = "time::serde::rfc3339")]
    wanted_since: OffsetDateTime,
}

#[derive(Debug, Serialize)]
struct DeliveryView<'a> {
    id: &'a str,
    event: &'a str,
    #[serde(with = "time::serde::rfc3339")]
    received_at: OffsetDateTime,
    ignored: Option<Ignored>,
    operation: Option<operations::View<'a>>,
}

fn wanted(record: &ReleaseRecord) -> WantedView<'_> {
    let release = manifest::parse(record.manifest.as_bytes()).ok().map(|(_, release)| release);
    let release = release.as_ref();
    WantedView {
        serial: record.serial,
        lnd: release.and_then(|release| release.lnd.as_ref()).map(|lnd| lnd.version.to_string()),
        lndserver: release.and_then(|release| release.lndserver.as_ref()).map(|agent| agent.version.to_string()),
        signed_by: &record.signed_by,
        source: record.source.as_ref(),
        wanted_since: record.wanted_since,
    }
}

pub(super) async fn show(call: Call, _params: Nothing) -> Result<Response, Refusal> {
    let standing = call.state.service.updates().await?;
    let deliveries = standing.deliveries.iter().map(|(delivery, operation)| DeliveryView {
        id: delivery.id.as_str(),
        event: &delivery.event,
        received_at: delivery.received_at,
        ignored: match delivery.heard {
            Heard::Ignored { reason } => Some(reason),
            Heard::Hint { .. } => None,
        },
        operation: operation.as_ref().map(operations::View::from),
    });
    ok(&View {
        wanted: standing.wanted.as_ref().map(wanted),
        rollout: standing.rollout.as_ref().map(rollouts::View::from),
        looking: standing.looking.iter().map(operations::View::from).collect(),
        deliveries: deliveries.collect(),
    })
}
