//! Schemas of our own answers.

use super::{code_name, codes_table};
use crate::model::problem::Code;
use serde_json::{Map, Value, json};

/// A schema's key: nothing but letters, digits, dots and underscores.
pub(super) fn key(name: &str) -> String {
    name.trim_start_matches('.').replace(' ', "_")
}

/// All of them, by key.
pub(super) fn own(codes: &[Code]) -> Map<String, Value> {
    let schemas = [
        ("Problem", problem(codes)),
        ("Fault", fault()),
        ("Funding", funding()),
        ("Operation", operation()),
        ("Operations", page("operations", "Operation")),
        ("Node", node(true)),
        ("NodeSummary", node(false)),
        ("Nodes", page("nodes", "NodeSummary")),
        ("Host", host()),
        ("Hosts", page("hosts", "Host")),
        ("Updates", updates()),
        ("Rollout", rollout()),
        ("Rollouts", page("rollouts", "Rollout")),
        ("Rollout_nodes", rollout_nodes()),
        ("Node_created", result("What the node is once it can be used.")),
        ("Node_deleted", result("The tombstone that is left.")),
        ("Payment", result("The payment, and the channel that was opened for it, if any.")),
        (
            "Close",
            result("The close, with its transaction and what that cost this node (`fee_sat`; null where unknown)."),
        ),
        ("Withdrawal", result("The transaction, and what it cost.")),
    ];
    schemas.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect()
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn object(required: &[&str], properties: Value) -> Value {
    json!({"type": "object", "required": required, "properties": properties})
}

fn page(items: &str, item: &str) -> Value {
    let mut properties = Map::new();
    properties.insert(items.to_owned(), json!({"type": "array", "items": reference(item)}));
    properties.insert("next_cursor".to_owned(), optional("string"));
    object(&[items, "next_cursor"], Value::Object(properties))
}

fn optional(kind: &str) -> Value {
    json!({"type": [kind, "null"]})
}

fn time() -> Value {
    json!({"type": "string", "format": "date-time"})
}

fn result(about: &str) -> Value {
    json!({"type": "object", "description": about})
}

fn problem(codes: &[Code]) -> Value {
    let names: Vec<String> = codes.iter().map(|&code| code_name(code)).collect();
    let mut schema = object(
        &["type", "title", "status", "code", "detail"],
        json!({
            "type": {"type": "string", "format": "uri-reference"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "code": {"type": "string", "enum": names},
            "detail": {"type": "string"},
            "faults": {"type": "array", "items": reference("Fault"), "description": "Every parameter at fault."},
            "details": {"type": "object", "description": "What is there and what is needed."},
            "operation": {"type": "string", "description": "The operation that failed or is parked."},
        }),
    );
    schema["description"] = format!("RFC 9457. The codes, with their status:\n\n{}", codes_table()).into();
    schema
}

fn fault() -> Value {
    object(&["parameter", "message"], json!({"parameter": {"type": "string"}, "message": {"type": "string"}}))
}

fn funding() -> Value {
    object(
        &["state"],
        json!({
            "state": {"type": "string", "enum": ["none", "requested", "published", "confirmed"]},
            "amount_sat": {"type": "integer", "minimum": 0},
            "txid": {"type": "string"},
        }),
    )
}

fn operation() -> Value {
    object(
        &["id", "kind", "uuid", "state", "step", "progress", "result", "error", "created_at", "updated_at"],
        json!({
            "id": {"type": "string"},
            "kind": {"type": "string"},
            "uuid": optional("string"),
            "state": {"type": "string", "enum": ["running", "succeeded", "failed", "parked"]},
            "step": {"type": "string"},
            "progress": {"type": "string", "description": "What is going on, for a person."},
            "result": {"description": "What it came to, once it succeeded."},
            "error": {"anyOf": [reference("Problem"), {"type": "null"}]},
            "created_at": time(),
            "updated_at": time(),
        }),
    )
}

fn node(full: bool) -> Value {
    let states =
        ["creating", "ready", "starting", "unlocking", "not_synced", "stopped", "unreachable", "deleting", "deleted"];
    let mut required =
        vec!["uuid", "state", "identity_pubkey", "p2p_address", "deposit_address", "funding", "created_at"];
    let mut properties = json!({
        "uuid": {"type": "string"},
        "state": {"type": "string", "enum": states},
        "identity_pubkey": optional("string"),
        "p2p_address": optional("string"),
        "deposit_address": optional("string"),
        "funding": reference("Funding"),
        "created_at": time(),
    });
    if full {
        required.extend(["network", "versions", "spendable_sat", "receivable_sat"]);
        properties["network"] = json!({"type": "string"});
        properties["versions"] =
            object(&["lnd", "scale_lnd"], json!({"lnd": optional("string"), "scale_lnd": {"type": "string"}}));
        properties["spendable_sat"] = optional("integer");
        properties["receivable_sat"] = optional("integer");
    }
    object(&required, properties)
}

fn rollout() -> Value {
    let of_each = |of: Value, about: &str| json!({"type": "object", "additionalProperties": of, "description": about});
    let nodes = |about: &str| json!({"type": "array", "items": {"type": "string"}, "description": about});
    let progress = object(
        &["nodes", "updated", "waiting"],
        json!({
            "nodes": {"type": "integer", "description": "The nodes in use."},
            "updated": {"type": "integer", "description": "Those that have the release."},
            "waiting": of_each(json!({"type": "integer"}), "How many of the others wait, by reason."),
        }),
    );
    let properties = json!({
        "serial": {"type": "integer"},
        "state": {"enum": ["running", "paused", "halted", "aborted", "superseded", "done"]},
        "why": {"type": ["string", "null"], "description": "Why it is halted."},
        "superseded_by": optional("integer"),
        "progress": progress,
        "canaries": nodes("The nodes that go first."),
        "well_since": {"type": ["string", "null"], "format": "date-time", "description": "Since when all of them are well."},
        "under_way": of_each(json!({"type": "string"}), "The operation of each node that is being updated."),
        "failed": of_each(json!({"type": "string"}), "The nodes that did not pass, and why."),
        "again": nodes("The nodes that are tried again."),
        "created_at": time(),
    });
    let all = [
        "serial",
        "state",
        "why",
        "superseded_by",
        "progress",
        "canaries",
        "well_since",
        "under_way",
        "failed",
        "again",
        "created_at",
    ];
    object(&all, properties)
}

fn rollout_nodes() -> Value {
    let properties = json!({"node": {"type": "string"}, "reason": {"type": "string"}, "detail": {"type": "string"}});
    let node = object(&["node", "reason", "detail"], properties);
    object(
        &["serial", "state", "nodes"],
        json!({
            "serial": {"type": "integer"},
            "state": {"type": "string"},
            "nodes": {"type": "array", "items": node},
        }),
    )
}

fn updates() -> Value {
    let wanted = object(
        &["serial", "lnd", "lndserver", "signed_by", "source", "wanted_since"],
        json!({
            "serial": {"type": "integer"},
            "lnd": optional("string"),
            "lndserver": optional("string"),
            "signed_by": {"type": "string"},
            "source": optional("string"),
            "wanted_since": time(),
        }),
    );
    let delivery = object(
        &["id", "event", "received_at", "ignored", "operation"],
        json!({
            "id": {"type": "string", "description": "X-GitHub-Delivery."},
            "event": {"type": "string"},
            "received_at": time(),
            "ignored": optional("string"),
            "operation": {"anyOf": [reference("Operation"), {"type": "null"}]},
        }),
    );
    object(
        &["wanted", "rollout", "looking", "deliveries"],
        json!({
            "rollout": {"anyOf": [reference("Rollout"), {"type": "null"}]},
            "wanted": {"anyOf": [wanted, {"type": "null"}]},
            "looking": {"type": "array", "items": reference("Operation")},
            "deliveries": {"type": "array", "items": delivery, "description": "The last ones, newest first."},
        }),
    )
}

fn host() -> Value {
    object(
        &["id", "state", "generation", "capacity", "used", "report", "created_at"],
        json!({
            "id": {"type": "string"},
            "state": {"type": "string", "enum": ["invited", "enrolled", "revoked"]},
            "generation": {"type": "integer"},
            "capacity": {"type": "integer"},
            "used": {"type": "integer"},
            "report": {"anyOf": [
                object(
                    &["agent_version", "lnd_version", "disk_free_bytes", "disk_total_bytes"],
                    json!({
                        "agent_version": {"type": "string"},
                        "lnd_version": {"type": "string"},
                        "disk_free_bytes": {"type": "integer"},
                        "disk_total_bytes": {"type": "integer"},
                    }),
                ),
                {"type": "null"},
            ]},
            "created_at": time(),
        }),
    )
}
