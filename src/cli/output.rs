//! What verbs print: a table for people, or JSON for programs.

use serde_json::{Map, Value};

/// Rows with named columns.
#[derive(Debug)]
pub struct Output {
    columns: &'static [&'static str],
    rows: Vec<Vec<Value>>,
}

impl Output {
    /// No rows yet.
    #[must_use]
    pub fn new(columns: &'static [&'static str]) -> Self {
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row; its values are in the order of the columns.
    pub fn row(&mut self, values: impl IntoIterator<Item = Value>) {
        self.rows.push(values.into_iter().collect());
    }

    /// Prints it.
    pub fn print(&self, json: bool) {
        print!("{}", if json { self.json() } else { self.table() });
    }

    fn json(&self) -> String {
        let object = |row: &Vec<Value>| {
            let pairs = self.columns.iter().map(|name| (*name).to_owned()).zip(row.iter().cloned());
            Value::Object(pairs.collect::<Map<_, _>>())
        };
        let rows: Vec<Value> = self.rows.iter().map(object).collect();
        format!("{:#}\n", Value::Array(rows))
    }

    fn table(&self) -> String {
        let header = self.columns.iter().map(|name| name.to_uppercase()).collect();
        let mut lines: Vec<Vec<String>> = vec![header];
        lines.extend(self.rows.iter().map(|row| row.iter().map(cell).collect()));
        let width = |column: usize| lines.iter().filter_map(|line| line.get(column)).map(|c| c.chars().count()).max();
        let widths: Vec<usize> = (0..self.columns.len()).map(|column| width(column).unwrap_or(0)).collect();
        let mut text = String::new();
        for line in &lines {
            let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_table_for_people_and_json_for_programs() {
        let mut output = Output::new(&["app", "nodes", "scopes"]);
        output.row([json!("wallet"), json!(12), json!(["read", "pay"])]);
        output.row([json!("a"), Value::Null, json!([])]);
        assert_eq!(output.table(), "APP     NODES  SCOPES\nwallet  12     read,pay\na       -\n");
        let json: Value = serde_json::from_str(&output.json()).unwrap();
        assert_eq!(json[0], json!({"app": "wallet", "nodes": 12, "scopes": ["read", "pay"]}));
        assert_eq!(json[1]["nodes"], Value::Null);
    }
}
