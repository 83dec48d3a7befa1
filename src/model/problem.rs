//! What a user is told when the answer is no: a stable code, the parameters at fault, and what is there against what is
//! needed. The HTTP layer turns a [`Refusal`] into problem+json (RFC 9457).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Why something is refused or failed. The names (snake_case) are part of the API and never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    // 400
    /// One or more parameters are wrong; `faults` names each.
    InvalidParameters,
    /// The body is not JSON.
    MalformedBody,
    /// The payment request cannot be read.
    PayreqMalformed,
    /// The payment request's signature does not fit.
    PayreqBadSignature,
    /// The payment request is for another network.
    PayreqWrongNetwork,
    /// The payment request names no amount and none was given.
    PayreqNoAmount,
    /// The payment request names an amount and another was given.
    PayreqAmountConflict,
    // 401, 403
    /// No key, or not a valid one.
    Unauthorized,
    /// The key's scopes do not cover this call.
    Forbidden,
    /// The delivery of the webhook has no signature.
    WebhookUnsigned,
    /// The signature of the delivery is not one of this body.
    WebhookSignatureWrong,
    // 404
    /// No such user, for this app.
    UserNotFound,
    /// No such operation, for this app.
    OperationNotFound,
    /// There is no such rollout.
    RolloutNotFound,
    /// No such route.
    NotFound,
    /// lnd does not know what was asked for.
    LndNotFound,
    /// There is no manifest where one was looked for.
    ReleaseNotFound,
    // 405, 413, 415, 422, 429
    /// The route exists, not with this method.
    MethodNotAllowed,
    /// The body is too large.
    BodyTooLarge,
    /// The body's content type is not application/json.
    UnsupportedMediaType,
    /// This Idempotency-Key was used with another payload.
    IdempotencyKeyReused,
    /// Too many requests with this key.
    RateLimited,
    // 409
    /// A request with this Idempotency-Key is still being worked on.
    IdempotencyKeyInFlight,
    /// The payment request has expired.
    PayreqExpired,
    /// The invoice is the node's own.
    PayreqOwnInvoice,
    /// The invoice would expire before a channel is open.
    InvoiceExpiresTooSoon,
    /// The invoice was paid already, not by this system.
    AlreadyPaid,
    /// The same payment is under way or done with other parameters.
    PaymentConflict,
    /// There is not enough money, even once everything is confirmed.
    InsufficientFunds,
    /// No route within the fee bound and no channel may be opened.
    NoRoute,
    /// The payment failed for another reason that lnd names.
    PaymentFailed,
    /// Opening a channel would cost more than `max_open_fee`.
    OpenFeeTooHigh,
    /// The transaction would cost more than `max_fee`.
    FeeTooHigh,
    /// The peer cannot be reached.
    PeerUnreachable,
    /// The address of the peer is not known: give `host`.
    PeerAddressUnknown,
    /// The channel could not be opened.
    ChannelOpenFailed,
    /// There are several channels with this peer; name one.
    SeveralChannels,
    /// There is no channel with this peer or of this name.
    ChannelNotFound,
    /// A close of this channel runs with other parameters.
    CloseConflict,
    /// A limit of the app or the deployment would be exceeded.
    LimitExceeded,
    /// The app has no limit set for this, which on this network means none of it.
    LimitUnset,
    /// The node cannot be deleted while there is something left to lose.
    NodeNotEmpty,
    /// This user's node was deleted; a uuid is never given a second wallet.
    NodeDeleted,
    /// The operation is not parked.
    NotParked,
    /// The rollout is not in a state in which that can be said to it.
    RolloutState,
    /// The operation is parked: an operator has to look at it.
    Parked,
    /// lnd says no.
    LndRefused,
    /// The node's lnd was not replaced, or did not pass as the same node afterwards.
    UpgradeFailed,
    /// The manifest cannot be read, or makes no sense.
    ReleaseMalformed,
    /// The release is signed with a key that nobody trusts.
    ReleaseUnknownKey,
    /// The release's signature is none, or not of this manifest.
    ReleaseSignatureWrong,
    /// The release is another deployment's.
    ReleaseOtherDeployment,
    /// The release is for another network.
    ReleaseOtherNetwork,
    /// The release has expired.
    ReleaseExpired,
    /// A release with a higher serial is wanted already.
    ReleaseOlder,
    /// Another release has this serial.
    ReleaseSerialTaken,
    // 503
    /// The node is still being created.
    NodeCreating,
    /// The node's lnd is not running.
    NodeStopped,
    /// The node's wallet is being unlocked.
    NodeUnlocking,
    /// The node's lnd is starting.
    NodeStarting,
    /// The node's lnd is not synced to the chain.
    NodeNotSynced,
    /// The node does not answer.
    NodeUnreachable,
    /// Too many calls to this node are waiting.
    NodeBusy,
    /// No host has a free slot.
    NoCapacity,
    /// This master cannot be sure of what it knows; ask again or ask another.
    NotReady,
    /// The store does not answer.
    StoreUnavailable,
    /// Too many requests at once.
    Overloaded,
    /// The call took too long.
    Timeout,
    // 500
    /// A defect of the system; the log has it under the request's id.
    Internal,
}

impl Code {
    /// The name used in the API.
    #[must_use]
    pub fn as_str(self) -> String {
        match serde_json::to_value(self) {
            Ok(Value::String(name)) => name,
            _ => "internal".to_owned(),
        }
    }
}

/// One parameter and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The parameter's name.
    pub parameter: String,
    /// What is wrong, for a person.
    pub message: String,
}

/// A no, with its reasons. `details` has what is there and what is needed, in the API's own names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// The stable code.
    pub code: Code,
    /// For a person. Never a secret, a path or the address of a host.
    pub message: String,
    /// The parameters at fault, all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
    /// More, by name.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub details: Map<String, Value>,
    /// Seconds after which asking again makes sense.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u32>,
}

impl Refusal {
    /// A no with its reason.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), faults: Vec::new(), details: Map::new(), retry_after: None }
    }

    /// A no because of one parameter.
    pub fn parameter(code: Code, parameter: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        let fault = Fault { parameter: parameter.to_owned(), message: message.clone() };
        Self { faults: vec![fault], ..Self::new(code, message) }
    }

    /// With one more detail.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    /// With a time after which asking again makes sense, in seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }
}
