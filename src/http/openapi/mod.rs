//! The OpenAPI 3.1 description, made of the routes themselves, lnd's own descriptors, and the schemas of our answers.

mod lnd;
mod schemas;

use super::params::Described;
use super::problem::{CODES, status, title};
use super::route::{Answer, Effect, Methods, Route};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

const ABOUT: &str = "A Lightning node for every user of an app. Every call takes the same parameters by GET in the query \
    and by POST as a JSON object (some by POST only). Amounts are in satoshi. Refusals are problem+json with a stable \
    `code`; all faults of a request are named at once. Calls that start an operation wait for it up to `wait` seconds \
    and then answer 202 with the operation and its `Location`.";

/// The description of these routes.
pub(super) fn describe(routes: &[Route]) -> Value {
    let mut paths = Map::new();
    let mut messages = BTreeSet::new();
    for route in routes {
        if let Answer::Lnd(message) | Answer::LndPage(message) = route.answer {
            messages.insert(message);
        }
        paths.insert(format!("/lnd/v1/{}", route.path), path(route));
    }
    paths["/lnd/v1/update"]["post"] = webhook();
    for (name, about) in [("healthz", "The process answers."), ("readyz", "This master can be sent calls.")] {
        paths.insert(format!("/{name}"), health(name, about));
    }
    let mut schemas = lnd::schemas(&messages);
    schemas.append(&mut schemas::own(CODES));
    json!({
        "openapi": "3.1.0",
        "info": {"title": "scale-lnd", "version": env!("CARGO_PKG_VERSION"), "description": ABOUT, "license": {"name": "MIT", "identifier": "MIT"}},
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "bearerFormat": "slnd_<network>_<id>_<secret>"}},
            "schemas": schemas,
        },
    })
}

fn path(route: &Route) -> Value {
    let mut methods = Map::new();
    if route.takes_get(true) {
        methods.insert("get".to_owned(), operation(route, "get"));
    }
    if route.takes_post() {
        methods.insert("post".to_owned(), operation(route, "post"));
    }
    Value::Object(methods)
}

fn operation(route: &Route, method: &str) -> Value {
    let in_path = route.path_parameter();
    let (path_params, others): (Vec<_>, Vec<_>) = route.params.iter().partition(|param| Some(param.name) == in_path);
    let mut parameters: Vec<Value> = path_params.into_iter().map(|param| parameter(param, "path")).collect();
    let scopes: Vec<&str> = route.scopes.iter().map(|scope| scope.as_str()).collect();
    let mut operation = json!({
        "operationId": format!("{}{}", operation_name(route), if method == "post" && route.methods == Methods::GetAndPost { "Post" } else { "" }),
        "summary": route.about,
        "description": format!("Scope: {}.", scopes.join(" or ")),
        "responses": responses(route),
    });
    if method == "get" {
        parameters.extend(others.iter().map(|param| parameter(param, "query")));
    } else if !others.is_empty() {
        operation["requestBody"] = body(&others);
    }
    if route.effect != Effect::Looks {
        parameters.push(json!({
            "name": "Idempotency-Key", "in": "header", "required": false,
            "description": "The same key and request give the same outcome; 422 with another request, 409 while the first is in flight. Kept as long as the operation, or, where there is none, for a day.",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255},
        }));
    }
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    operation
}

fn operation_name(route: &Route) -> String {
    route.path.replace("/{id}", "_id").replace('/', "_")
}

fn parameter(param: &Described, place: &str) -> Value {
    json!({"name": param.name, "in": place, "required": param.required, "description": param.about, "schema": param.schema})
}

fn body(params: &[&Described]) -> Value {
    let mut properties = Map::new();
    for param in params {
        let mut schema = param.schema.clone();
        schema["description"] = param.about.into();
        properties.insert(param.name.to_owned(), schema);
    }
    let required: Vec<&str> = params.iter().filter(|param| param.required).map(|param| param.name).collect();
    let mut schema = json!({"type": "object", "properties": properties, "additionalProperties": false});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    json!({"required": !required.is_empty(), "content": {"application/json": {"schema": schema}}})
}

fn responses(route: &Route) -> Value {
    let mut responses = Map::new();
    responses.insert("200".to_owned(), json!({"description": "Done.", "content": content(route)}));
    if route.effect == Effect::Operates {
        responses.insert(
            "202".to_owned(),
            json!({
                "description": "Still running: the operation, and its Location.",
                "headers": {"Location": {"schema": {"type": "string"}}},
                "content": {"application/json": {"schema": reference("Operation")}},
            }),
        );
    }
    if route.path == "operations/{id}" {
        responses.insert("204".to_owned(), json!({"description": "A finished operation whose last event was seen."}));
    }
    responses.insert("default".to_owned(), problem());
    Value::Object(responses)
}

fn content(route: &Route) -> Value {
    let schema = match route.answer {
        Answer::Lnd(message) => reference(message),
        Answer::LndPage(message) => json!({
            "allOf": [
                reference(message),
                {"type": "object", "required": ["next_cursor"], "properties": {"next_cursor": {"type": ["string", "null"]}}},
            ]
        }),
        Answer::Own(name) => reference(name),
    };
    let mut content = json!({"application/json": {"schema": schema}});
    if route.path == "operations/{id}" {
        content["text/event-stream"] = json!({"schema": {"type": "string"}});
    }
    content
}

fn problem() -> Value {
    json!({
        "description": "A refusal.",
        "content": {"application/problem+json": {"schema": reference("Problem")}},
    })
}

/// It has no parameters of ours: what is in its body GitHub says.
fn webhook() -> Value {
    let header = |name: &str, about: &str| json!({"name": name, "in": "header", "required": true, "description": about, "schema": {"type": "string"}});
    let any = json!({"schema": {"type": "object"}});
    json!({
        "operationId": "update_webhook",
        "summary": "GitHub's webhook: there may be another release.",
        "description": "Instead of a key a delivery has a signature. 202 with the operation that looks for a release, or with `ignored` and why.",
        "security": [],
        "parameters": [
            header("X-Hub-Signature-256", "sha256= and the HMAC of the body under the webhook's secret, hexadecimal."),
            header("X-GitHub-Delivery", "The delivery's name. One that was accepted before is what it was."),
            header("X-GitHub-Event", "push, release, pull_request; any other is ignored."),
        ],
        "requestBody": {"required": true, "content": {"application/json": any.clone(), "application/x-www-form-urlencoded": any.clone()}},
        "responses": {
            "200": {"description": "A ping.", "content": {"application/json": any.clone()}},
            "202": {"description": "Accepted, or ignored.", "content": {"application/json": any}},
            "default": problem(),
        },
    })
}

fn health(name: &str, about: &str) -> Value {
    let schema = json!({"type": "object", "required": ["status"], "properties": {"status": {"type": "string"}}});
    json!({"get": {
        "operationId": name,
        "summary": about,
        "security": [],
        "responses": {
            "200": {"description": "Yes.", "content": {"application/json": {"schema": schema}}},
            "default": problem(),
        },
    }})
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{}", schemas::key(name))})
}

/// The codes as a table, for the schema of problems: code, status, title.
fn codes_table() -> String {
    let line = |&code| format!("`{}` {} {}", code_name(code), status(code).as_u16(), title(code));
    CODES.iter().map(line).collect::<Vec<_>>().join("\n\n")
}

fn code_name(code: crate::model::problem::Code) -> String {
    code.as_str()
}

#[cfg(test)]
mod tests;
