//! The one place where a no becomes HTTP: [`Code`] to status, [`Refusal`] to problem+json (RFC 9457).

use crate::model::ids::OperationId;
use crate::model::problem::{Code, Fault, Refusal};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::{Map, Value};

/// The media type of every refusal.
pub const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

macro_rules! statuses {
    ($($status:ident: $($code:ident),+;)+) => {
        /// The status that goes with a code. Every code has exactly one.
        #[must_use]
        pub fn status(code: Code) -> StatusCode {
            match code {
                $($(Code::$code)|+ => StatusCode::$status,)+
            }
        }

        /// Every code there is, by status: for the description of the API.
        pub const CODES: &[Code] = &[$($(Code::$code,)+)+];
    };
}

statuses! {
    BAD_REQUEST: InvalidParameters, MalformedBody, PayreqMalformed, PayreqBadSignature, PayreqWrongNetwork,
        PayreqNoAmount, PayreqAmountConflict;
    UNAUTHORIZED: Unauthorized, WebhookUnsigned, WebhookSignatureWrong;
    FORBIDDEN: Forbidden;
    NOT_FOUND: UserNotFound, OperationNotFound, RolloutNotFound, NotFound, LndNotFound, ReleaseNotFound;
    METHOD_NOT_ALLOWED: MethodNotAllowed;
    CONFLICT: IdempotencyKeyInFlight, PayreqExpired, PayreqOwnInvoice, InvoiceExpiresTooSoon, AlreadyPaid,
        PaymentConflict, InsufficientFunds, NoRoute, PaymentFailed, OpenFeeTooHigh, FeeTooHigh, PeerUnreachable,
        PeerAddressUnknown, ChannelOpenFailed, SeveralChannels, ChannelNotFound, CloseConflict, LimitExceeded,
        LimitUnset, NodeNotEmpty, NodeDeleted, NotParked, RolloutState, Parked, LndRefused, UpgradeFailed, ReleaseMalformed, ReleaseUnknownKey,
        ReleaseSignatureWrong, ReleaseOtherDeployment, ReleaseOtherNetwork, ReleaseExpired, ReleaseOlder,
        ReleaseSerialTaken;
    PAYLOAD_TOO_LARGE: BodyTooLarge;
    UNSUPPORTED_MEDIA_TYPE: UnsupportedMediaType;
    UNPROCESSABLE_ENTITY: IdempotencyKeyReused;
    TOO_MANY_REQUESTS: RateLimited;
    INTERNAL_SERVER_ERROR: Internal;
    SERVICE_UNAVAILABLE: NodeCreating, NodeStopped, NodeUnlocking, NodeStarting, NodeNotSynced, NodeUnreachable,
        NodeBusy, NoCapacity, NotReady, StoreUnavailable, Overloaded, Timeout;
}

/// A few words that are the same for every problem of this code.
#[must_use]
pub fn title(code: Code) -> String {
    let words = code.as_str().replace('_', " ");
    let mut letters = words.chars();
    letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
}

/// What a problem's `type` points at: the code's place in the description of the API.
#[must_use]
pub fn type_of(code: Code) -> String {
    format!("/lnd/v1/docs#{}", code.as_str())
}

/// A problem+json body, member by member. It holds nothing that differs from one request to the next, so that two
/// refusals for the same reason are the same bytes; the request's id is in a header.
#[derive(Debug, Serialize)]
pub struct Body<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: String,
    status: u16,
    code: Code,
    detail: &'a str,
    #[serde(skip_serializing_if = "<[Fault]>::is_empty")]
    faults: &'a [Fault],
    #[serde(skip_serializing_if = "Map::is_empty")]
    details: &'a Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<&'a OperationId>,
}

/// The body for a refusal, and for the `error` of the operation that ended in it.
#[must_use]
pub fn body<'a>(refusal: &'a Refusal, operation: Option<&'a OperationId>) -> Body<'a> {
    Body {
        kind: type_of(refusal.code),
        title: title(refusal.code),
        status: status(refusal.code).as_u16(),
        code: refusal.code,
        detail: &refusal.message,
        faults: &refusal.faults,
        details: &refusal.details,
        operation,
    }
}

/// The answer for a refusal; with the operation that failed or is parked, where there is one.
#[must_use]
pub fn response(refusal: &Refusal, operation: Option<&OperationId>) -> Response {
    let bytes = serde_json::to_vec(&body(refusal, operation)).unwrap_or_default();
    let mut response = (status(refusal.code), bytes).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(seconds) = refusal.retry_after.or_else(|| default_retry_after(refusal.code)) {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if refusal.code == Code::Unauthorized {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"scale-lnd\""));
    }
    response
}

/// Every 503 and 429 says when to ask again, even where nobody thought of it.
fn default_retry_after(code: Code) -> Option<u32> {
    matches!(status(code), StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS).then_some(1)
}

/// A refusal on its way out.
#[derive(Debug)]
pub struct Problem(pub Refusal);

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        response(&self.0, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_status() {
        let table: Vec<String> = CODES
            .iter()
            .map(|&code| format!("{} {} ({})", status(code).as_u16(), code.as_str(), title(code)))
            .collect();
        insta::assert_snapshot!(table.join("\n"));
    }

    #[test]
    fn codes_are_listed_once() {
        let names: std::collections::BTreeSet<String> = CODES.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), CODES.len());
    }

    #[tokio::test]
    async fn a_problem_names_what_is_wrong_and_when_to_ask_again() {
        let refusal = Refusal::parameter(Code::InvalidParameters, "amt", "must be at least 1").with("needed", 5);
        let body = serde_json::to_string_pretty(&body(&refusal, None)).expect("json");
        insta::assert_snapshot!(body);
        let busy = response(&Refusal::new(Code::NodeBusy, "busy"), None);
        assert_eq!(busy.headers()[header::RETRY_AFTER], "1");
        assert_eq!(busy.headers()[header::CONTENT_TYPE], "application/problem+json");
        let unauthorized = response(&Refusal::new(Code::Unauthorized, "no"), None);
        assert!(unauthorized.headers().contains_key(header::WWW_AUTHENTICATE));
    }
}
