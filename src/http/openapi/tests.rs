use super::*;
use crate::http::router::routes;
use std::collections::HashSet;

fn references<'a>(value: &'a Value, into: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => {
            into.extend(members.get("$ref").and_then(Value::as_str));
            members.values().for_each(|value| references(value, into));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, into)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_somewhere() {
    let description = describe(&routes());
    let mut found = Vec::new();
    references(&description, &mut found);
    assert!(found.len() > 100, "{}", found.len());
    for reference in found {
        let pointer = reference.strip_prefix('#').expect("local");
        assert!(description.pointer(pointer).is_some(), "{reference}");
    }
}

#[test]
fn every_route_is_described_once_by_each_of_its_methods() {
    let routes = routes();
    let description = describe(&routes);
    let mut ids = HashSet::new();
    let mut count = 0;
    for route in &routes {
        let path = &description["paths"][format!("/lnd/v1/{}", route.path)];
        assert_eq!(path.get("get").is_some(), route.takes_get(true), "{}", route.path);
        // GitHub's webhook is no call of the API's.
        let is_webhook = route.path == "update";
        assert_eq!(path.get("post").is_some(), route.takes_post() || is_webhook, "{}", route.path);
        for operation in path.as_object().expect("methods").values() {
            assert!(ids.insert(operation["operationId"].as_str().expect("an id").to_owned()), "{}", route.path);
            assert!(operation["summary"].as_str().is_some_and(|about| about.ends_with('.')), "{}", route.path);
            count += 1;
        }
    }
    assert_eq!(ids.len(), count);
    assert_eq!(description["paths"].as_object().expect("paths").len(), routes.len() + 2);
}

#[test]
fn parameters_are_those_that_are_read() {
    let description = describe(&routes());
    let pay = &description["paths"]["/lnd/v1/pay"];
    let names: Vec<_> = pay["get"]["parameters"].as_array().expect("list").iter().map(|p| p["name"].clone()).collect();
    assert_eq!(names.len(), 11, "ten parameters and the Idempotency-Key");
    let body = &pay["post"]["requestBody"]["content"]["application/json"]["schema"];
    assert_eq!(body["required"], json!(["uuid", "payreq"]));
    assert_eq!(body["properties"]["max_fee"]["minimum"], 0);
    assert_eq!(body["additionalProperties"], false);
    let retry = &description["paths"]["/lnd/v1/operations/{id}/retry"]["post"];
    assert_eq!((&retry["parameters"][0]["in"], retry.get("requestBody")), (&json!("path"), None));
    assert!(description["paths"]["/lnd/v1/withdraw"].get("get").is_none());
}

/// The schemas must say of lnd's JSON what `lnd/json.rs` writes: every name is there, and every value is of its type.
#[test]
fn lnds_schemas_fit_lnds_json() {
    use crate::lnd::proto::lnrpc;
    let description = describe(&routes());
    let check = |name: &str, value: Value| {
        let schema = &description["components"]["schemas"][name];
        let faults = mismatches(&description, schema, &value, name);
        assert_eq!(faults, Vec::<String>::new());
    };
    let chain = lnrpc::Chain { network: "simnet".into(), ..Default::default() };
    let mut info = lnrpc::GetInfoResponse { chains: vec![chain], block_height: 7, ..Default::default() };
    info.features.insert(9, lnrpc::Feature { name: "tlv-onion".into(), ..Default::default() });
    check("lnrpc.GetInfoResponse", serde_json::to_value(&info).expect("JSON"));
    let htlc = lnrpc::InvoiceHtlc { custom_records: [(1, vec![2])].into(), ..Default::default() };
    let invoice = lnrpc::Invoice { r_hash: vec![1; 32], htlcs: vec![htlc], ..Default::default() };
    check("lnrpc.Invoice", serde_json::to_value(&invoice).expect("JSON"));
    let payment = lnrpc::Payment { htlcs: vec![lnrpc::HtlcAttempt::default()], ..Default::default() };
    let payments = lnrpc::ListPaymentsResponse { payments: vec![payment], ..Default::default() };
    check("lnrpc.ListPaymentsResponse", serde_json::to_value(&payments).expect("JSON"));
    check(
        "lnrpc.ChannelBalanceResponse",
        serde_json::to_value(lnrpc::ChannelBalanceResponse::default()).expect("JSON"),
    );
}

/// A small validator of the part of JSON Schema that is used here.
fn mismatches(root: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = root.pointer(&reference[1..]).expect("exists");
        return mismatches(root, target, value, at);
    }
    if let Some(options) = schema["anyOf"].as_array() {
        let fits = options.iter().any(|option| mismatches(root, option, value, at).is_empty());
        return if fits { Vec::new() } else { vec![format!("{at}: {value} fits none of {schema}")] };
    }
    let kind = schema["type"].as_str().unwrap_or_default();
    let fits = match value {
        Value::Null => kind == "null",
        Value::Bool(_) => kind == "boolean",
        Value::Number(n) => kind == "number" || (kind == "integer" && !n.is_f64()),
        Value::String(text) => {
            kind == "string" && schema["enum"].as_array().is_none_or(|e| e.iter().any(|v| v == text))
        }
        Value::Array(_) => kind == "array",
        Value::Object(_) => kind == "object",
    };
    if !fits {
        return vec![format!("{at}: {value} is no {schema}")];
    }
    match value {
        Value::Array(items) => items.iter().flat_map(|item| mismatches(root, &schema["items"], item, at)).collect(),
        Value::Object(members) => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let missing =
                required.filter(|name| !members.contains_key(*name)).map(|name| format!("{at}.{name} is missing"));
            let inside = members.iter().flat_map(|(name, value)| {
                let at = format!("{at}.{name}");
                match schema["properties"].get(name).or_else(|| schema.get("additionalProperties")) {
                    Some(schema) => mismatches(root, schema, value, &at),
                    None => vec![format!("{at} is not described")],
                }
            });
            missing.chain(inside).collect()
        }
        _ => Vec::new(),
    }
}
