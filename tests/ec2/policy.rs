//! What a role may do, by the statements of its policies: as much of IAM's rules as ours use, since moto has no simulation of
//! them. A statement with something else in it is a failure, not a guess.

use serde_json::Value;

/// The statements of a role.
#[derive(Debug)]
pub struct Policy<'a>(pub &'a [Value]);

/// What is known of a request, by the names of IAM's condition keys.
pub type Context<'a> = &'a [(&'a str, &'a str)];

impl Policy<'_> {
    /// Whether this may be done with this resource.
    pub fn allows(&self, action: &str, resource: &str, context: Context<'_>) -> bool {
        self.0.iter().any(|statement| {
            assert_eq!(statement["Effect"], "Allow", "{statement:#}");
            let known = ["Sid", "Effect", "Action", "Resource", "Condition"];
            assert!(statement.as_object().unwrap().keys().all(|key| known.contains(&key.as_str())), "{statement:#}");
            texts(&statement["Action"]).iter().any(|pattern| matches(pattern, action))
                && texts(&statement["Resource"]).iter().any(|pattern| matches(pattern, resource))
                && conditions(statement).iter().all(|(key, values)| {
                    let given = context.iter().find(|(name, _)| name == key);
                    given.is_some_and(|(_, given)| values.iter().any(|value| matches(value, given)))
                })
        })
    }

    /// The actions of statements that have no condition.
    pub fn unconditional(&self) -> Vec<&str> {
        let free = self.0.iter().filter(|statement| conditions(statement).is_empty());
        free.flat_map(|statement| texts(&statement["Action"])).collect()
    }

    /// All actions.
    pub fn actions(&self) -> Vec<&str> {
        self.0.iter().flat_map(|statement| texts(&statement["Action"])).collect()
    }
}

/// The keys, each with the values of which it must have one.
fn conditions(statement: &Value) -> Vec<(&str, Vec<&str>)> {
    let operators = statement["Condition"].as_object().into_iter().flatten();
    let keys = operators.flat_map(|(operator, keys)| {
        assert!(["StringEquals", "ArnEquals", "Bool"].contains(&operator.as_str()), "{statement:#}");
        keys.as_object().unwrap()
    });
    keys.map(|(key, values)| (key.as_str(), texts(values))).collect()
}

fn texts(one_or_more: &Value) -> Vec<&str> {
    match one_or_more {
        Value::Array(all) => all.iter().map(|text| text.as_str().unwrap()).collect(),
        one => vec![one.as_str().unwrap()],
    }
}

/// With `*` for whatever, at the end only.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => {
            assert!(rest.is_empty(), "{pattern}");
            text.starts_with(start)
        }
    }
}
