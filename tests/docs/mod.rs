//! What the documents promise is what the program has.

mod aws;
mod bitcoin;

use std::collections::{BTreeMap, BTreeSet};

const README: &str = include_str!("../../README.md");

/// The calls of the README's table with their parameters.
fn told() -> BTreeMap<String, BTreeSet<String>> {
    let rows = README.lines().filter(|line| line.starts_with("| `"));
    let call = |row: &str| {
        let cells: Vec<&str> = row.split(" | ").collect();
        let name = cells[0].split('`').nth(1).unwrap().to_owned();
        let words = cells[1].split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let params = words.filter(|word| !word.is_empty() && *word != "or" && *word != "GET").map(str::to_owned);
        (name, params.collect())
    };
    rows.map(call).collect()
}

/// The calls of the API's description with theirs.
fn there() -> BTreeMap<String, BTreeSet<String>> {
    let description = scale_lnd::http::description();
    let mut calls: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, methods) in description["paths"].as_object().unwrap() {
        let Some(name) = path.strip_prefix("/lnd/v1/") else { continue };
        let params = calls.entry(name.to_owned()).or_default();
        for method in methods.as_object().unwrap().values() {
            let query = method["parameters"].as_array().into_iter().flatten().filter(|p| p["in"] == "query");
            params.extend(query.map(|p| p["name"].as_str().unwrap().to_owned()));
            let body = &method["requestBody"]["content"]["application/json"]["schema"]["properties"];
            params.extend(body.as_object().into_iter().flatten().map(|(name, _)| name.clone()));
        }
    }
    calls
}

#[test]
fn the_readme_names_every_call_with_every_parameter() {
    assert_eq!(told(), there());
}
