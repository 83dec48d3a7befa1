//! Hosts, for the operator: `hosts`.

use super::call::{Call, ok};
use super::page::PageParams;
use crate::app::refuse;
use crate::model::host::{Enrolment, Host, HostReport};
use crate::model::ids::HostId;
use crate::model::problem::Refusal;
use crate::store::repo;
use axum::response::Response;
use serde::Serialize;
use time::OffsetDateTime;

/// A host as the API shows it: never where it is, nor anything of its enrolment but how far it is.
#[derive(Debug, Serialize)]
struct View<'a> {
    id: &'a HostId,
    state: &'static str,
    generation: u64,
    capacity: u16,
    used: usize,
    report: Option<&'a HostReport>,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

impl<'a> From<&'a Host> for View<'a> {
    fn from(host: &'a Host) -> Self {
        let state = match host.enrolment {
            Enrolment::Invited { .. } => "invited",
            Enrolment::Enrolled { .. } => "enrolled",
            Enrolment::Revoked => "revoked",
        };
        Self {
            id: &host.id,
            state,
            generation: host.generation,
            capacity: host.capacity,
            used: host.slots.len(),
            report: host.report.as_ref(),
            created_at: host.created_at,
        }
    }
}

pub(super) async fn list(call: Call, params: PageParams) -> Result<Response, Refusal> {
    #[derive(Serialize)]
    struct Page<'a> {
        hosts: Vec<View<'a>>,
        next_cursor: Option<String>,
    }
    let (limit, after) = params.limit_and_after();
    let page = repo::list::<Host>(&*call.state.store, None, after, limit, false).await;
    let (page, next_cursor) = page.map_err(|error| refuse::store(&error))?;
    let hosts = page.iter().map(|host| View::from(&host.value)).collect();
    ok(&Page { hosts, next_cursor })
}
