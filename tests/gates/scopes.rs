//! Every route there is, as the description of the API lists them, with every kind of key.

use super::money::ADDRESS;
use super::{payreqs, with_new_key};
use crate::harness::{Answer, Api, Deployment, eventually};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

const SCOPES: [&str; 4] = ["read", "invoice", "pay", "manage"];

/// A call of the API, as its description has it.
#[derive(Debug, Clone)]
struct Route {
    method: Method,
    path: String,
    scopes: Vec<String>,
    /// Names of the parameters in the query or the body, and whether each is required.
    params: Vec<(String, bool)>,
}

async fn routes(api: &Api) -> Vec<Route> {
    let description = api.get("openapi.json", &[]).await.ok();
    let mut routes = Vec::new();
    for (path, methods) in description["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            if operation["security"] == json!([]) {
                continue;
            }
            let scopes = operation["description"].as_str().unwrap();
            let scopes = scopes.strip_prefix("Scope: ").unwrap().trim_end_matches('.').split(" or ");
            routes.push(Route {
                method: method.to_uppercase().parse().unwrap(),
                path: path.clone(),
                scopes: scopes.map(str::to_owned).collect(),
                params: params(operation),
            });
        }
    }
    assert!(routes.len() > 40, "{}", routes.len());
    routes
}

fn params(operation: &Value) -> Vec<(String, bool)> {
    let listed = operation["parameters"].as_array().into_iter().flatten().filter(|p| p["in"] == "query");
    let in_query = listed.map(|p| (p["name"].as_str().unwrap().to_owned(), p["required"] == true));
    let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
    let required = |name: &str| schema["required"].as_array().is_some_and(|all| all.iter().any(|r| r == name));
    let in_body = schema["properties"].as_object().into_iter().flatten();
    in_query.chain(in_body.map(|(name, _)| (name.clone(), required(name)))).collect()
}

impl Route {
    fn needs_user(&self) -> bool {
        self.params.iter().any(|(name, required)| name == "uuid" && *required)
    }

    fn is_open_to(&self, scope: &str) -> bool {
        self.scopes.iter().any(|s| s == scope)
    }

    /// Calls it for a user, with parameters that are all right.
    async fn call(&self, api: &Api, uuid: &str) -> Answer {
        let wanted = self.params.iter().filter(|(name, required)| *required || name == "amt");
        let mut given: Vec<(String, Value)> = wanted.map(|(name, _)| (name.clone(), example(name))).collect();
        for (name, value) in &mut given {
            if name == "uuid" {
                *value = json!(uuid);
            }
        }
        self.send(api, &given).await
    }

    /// Calls it with a parameter that no call has: where the key opens it, it is refused for that and does nothing.
    async fn call_badly(&self, api: &Api) -> Answer {
        self.send(api, &[("bogus".to_owned(), json!(1))]).await
    }

    async fn send(&self, api: &Api, given: &[(String, Value)]) -> Answer {
        let path = self.path.replace("{id}", "op00000000000000000000000000000000");
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let (query, body) = if self.method == Method::GET {
            (given.iter().map(|(name, value)| (name.clone(), text(value))).collect(), None)
        } else {
            (Vec::new(), Some(Value::Object(given.iter().cloned().collect())))
        };
        let query: Vec<(&str, &str)> = query.iter().map(|(n, v): &(String, String)| (n.as_str(), v.as_str())).collect();
        api.request(self.method.clone(), &path, &query, body, &[]).await.unwrap()
    }
}

/// A good value of every parameter that a call may require.
fn example(name: &str) -> Value {
    match name {
        "uuid" => json!("alice"),
        "amt" => json!(50_000),
        "pubkey" => json!(payreqs::SOMEBODY),
        "host" => json!("203.0.113.7:9735"),
        "payreq" => json!(payreqs::good(50_000)),
        "payment_hash" => json!("01".repeat(32)),
        "address" => json!(ADDRESS),
        other => panic!("this test needs an example of the parameter {other}"),
    }
}

pub async fn open_what_they_name_and_nothing_else(d: &Deployment, api: &Api) {
    let routes = routes(api).await;
    let garbage = api.key.replace(|c: char| c.is_ascii_digit(), "0");
    for key in ["", "nonsense", &garbage] {
        let stranger = api.with_key(key);
        for route in &routes {
            let answer = route.call(&stranger, "alice").await;
            assert_eq!(answer.problem(401), "unauthorized", "{key:?} {route:?}");
            assert!(answer.header("www-authenticate").is_some());
        }
    }
    for scope in SCOPES {
        let narrow = with_new_key(api, &d.create_key("app", scope).await).await;
        for route in &routes {
            check(route, route.is_open_to(scope), &narrow).await;
        }
    }
    let operator = with_new_key(api, &d.operator_key().await).await;
    for route in &routes {
        check(route, route.is_open_to("operator"), &operator).await;
        // An app's key never is an operator's, whatever its scopes.
        check(route, SCOPES.iter().any(|scope| route.is_open_to(scope)), api).await;
    }
    assert!(routes.iter().any(|route| route.scopes == ["operator"]), "there are routes of the operator's");
    assert_eq!(operator.get("hosts", &[]).await.ok()["hosts"].as_array().map(Vec::len), Some(1));
}

async fn check(route: &Route, is_open: bool, api: &Api) {
    if is_open {
        let answer = route.call_badly(api).await;
        // A route without parameters but that in its path finds no such operation, or names the bogus one.
        assert!(matches!(answer.status, 400 | 404), "{route:?}: {} {}", answer.status, answer.text);
    } else {
        let answer = route.call(api, "alice").await;
        assert_eq!(answer.problem(403), "forbidden", "{route:?}");
    }
}

/// With a good key of another app, somebody's user and nobody are the same, to the byte.
pub async fn another_apps_user_is_as_unknown_as_nobody(d: &Deployment, api: &Api) {
    d.config_cli(&["app", "create", "other", "--nodes", "0"]).await;
    let other = with_new_key(api, &d.create_key("other", "read,invoice,pay,manage").await).await;
    for route in routes(api).await.iter().filter(|route| route.needs_user() && !route.is_open_to("operator")) {
        let (alices, nobodys) = (route.call(&other, "alice").await, route.call(&other, "nobody").await);
        let is_create = route.path.ends_with("/create");
        // A user of this app would be made; a join with the other app's node would be a success.
        let (status, code) = if is_create { (409, "limit_exceeded") } else { (404, "user_not_found") };
        assert_eq!(alices.problem(status), code, "{route:?}");
        assert_eq!(alices.text, nobodys.text, "{route:?}");
        assert_eq!(header_names(&alices), header_names(&nobodys), "{route:?}");
    }
    let operations = api.get("operations", &[]).await.ok();
    let id = operations["operations"][0]["id"].as_str().unwrap();
    let theirs = other.get(&format!("operations/{id}"), &[]).await;
    let none = other.get("operations/op00000000000000000000000000000000", &[]).await;
    assert_eq!((theirs.problem(404), &theirs.text), ("operation_not_found", &none.text));
    assert_eq!(other.get("operations", &[]).await.ok()["operations"], json!([]));
    assert_eq!(other.get("nodes", &[]).await.ok()["nodes"], json!([]));
}

fn header_names(answer: &Answer) -> Vec<&str> {
    answer.headers.iter().map(|(name, _)| name.as_str()).collect()
}

pub async fn a_revoked_key_opens_nothing(d: &Deployment, api: &Api) {
    let key = d.create_key("app", "read,invoice,pay,manage").await;
    let revoked = with_new_key(api, &key).await;
    assert_eq!(revoked.get("nodes", &[]).await.status, 200);
    let id = key.split('_').nth(2).unwrap();
    d.config_cli(&["key", "revoke", id]).await;
    eventually("the revoked key is refused", Duration::from_secs(5), || async {
        (revoked.get("nodes", &[]).await.status == 401).then_some(())
    })
    .await;
    for route in routes(api).await {
        assert_eq!(route.call(&revoked, "alice").await.problem(401), "unauthorized", "{route:?}");
    }
}
