//! The description against the table of operations, and against every answer that a story gets.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use axum::http::Method;
use serde_json::{Map, Value, json};

use super::fake::{ADMIN, Got, House};
use crate::control::auth::Need;
use crate::control::description::TEXT;
use crate::control::operations::{self, Credentials, Form};

fn description() -> &'static Value {
    static READ: OnceLock<Value> = OnceLock::new();
    READ.get_or_init(|| serde_json::from_str(TEXT).unwrap())
}

fn matches(template: &str, path: &str) -> bool {
    let (template, path): (Vec<&str>, Vec<&str>) = (template.split('/').collect(), path.split('/').collect());
    template.len() == path.len()
        && template.iter().zip(&path).all(|(t, p)| match t.split_once('}') {
            Some((_, rest)) if t.starts_with('{') => !p.is_empty() && p.ends_with(rest),
            _ => t == p,
        })
}

/// The operation of a request: exact paths before those with parameters.
fn operation(method: &Method, path: &str) -> Option<&'static Value> {
    let path = path.strip_prefix("/api").unwrap_or(path);
    let paths = description()["paths"].as_object().unwrap();
    let found = paths
        .get(path)
        .or_else(|| paths.iter().find(|(template, _)| matches(template, path)).map(|(_, item)| item))?;
    found.get(method.as_str().to_ascii_lowercase())
}

fn follow(value: &'static Value) -> &'static Value {
    match value.get("$ref").and_then(Value::as_str) {
        Some(pointer) => description().pointer(pointer.trim_start_matches('#')).unwrap(),
        None => value,
    }
}

/// An answer must be one of those that are written down for the operation, and look as written.
pub fn check(method: &Method, path: &str, got: &Got) {
    let Some(operation) = operation(method, path) else { return };
    let status = got.status.as_str();
    let Some(response) = operation["responses"].get(status) else {
        panic!("{method} {path} may not answer {status}: {}", got.text);
    };
    let Some(content) = follow(response).get("content").and_then(Value::as_object) else { return };
    let kind = got.header("content-type").split(';').next().unwrap_or_default();
    let described = content.get(kind);
    assert!(described.is_some(), "{method} {path} {status}: {kind} is not described");
    if let Some(schema) = described.filter(|_| kind == "application/json").and_then(|kind| kind.get("schema"))
    {
        let faults = faults(schema, &got.json(), "");
        assert!(faults.is_empty(), "{method} {path} {status}: {faults:?}\n{}", got.text);
    }
}

/// As much of JSON Schema as the description uses.
fn faults(schema: &'static Value, value: &Value, at: &str) -> Vec<String> {
    let schema = follow(schema);
    if let Some(any) = schema.get("anyOf").and_then(Value::as_array) {
        let each: Vec<Vec<String>> = any.iter().map(|schema| faults(schema, value, at)).collect();
        return if each.iter().any(Vec::is_empty) { Vec::new() } else { each.concat() };
    }
    let mut found = Vec::new();
    let is = |name: &str| match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("{other} is no type"),
    };
    let fits = match &schema["type"] {
        Value::String(name) => is(name),
        Value::Array(names) => names.iter().any(|name| is(name.as_str().unwrap())),
        _ => true,
    };
    if !fits {
        found.push(format!("{at} is {value}, not {}", schema["type"]));
    }
    if let Some(words) = schema.get("enum").and_then(Value::as_array)
        && !words.contains(value)
    {
        found.push(format!("{at} is {value}, not one of {words:?}"));
    }
    if schema["format"] == "date-time"
        && let Some(text) = value.as_str()
        && crate::control::stamp::read(text).is_none()
    {
        found.push(format!("{at} is no date-time: {text}"));
    }
    if let (Some(items), Some(list)) = (schema.get("items"), value.as_array()) {
        for (n, item) in list.iter().enumerate() {
            found.extend(faults(items, item, &format!("{at}[{n}]")));
        }
    }
    if let Some(fields) = value.as_object() {
        for name in schema["required"].as_array().into_iter().flatten() {
            if !fields.contains_key(name.as_str().unwrap()) {
                found.push(format!("{at} lacks {name}"));
            }
        }
        for (name, value) in fields {
            let at = format!("{at}.{name}");
            match (schema["properties"].get(name), schema.get("additionalProperties")) {
                (Some(schema), _) => found.extend(faults(schema, value, &at)),
                (None, Some(Value::Bool(false))) => found.push(format!("{at} is not described")),
                (None, Some(schema)) => found.extend(faults(schema, value, &at)),
                (None, None) => {}
            }
        }
    }
    found
}

#[test]
fn every_operation_is_described_and_nothing_else_is() {
    let served: BTreeSet<(String, String, String)> = operations::ALL
        .iter()
        .map(|row| (row.verb.as_str().to_owned(), row.path.to_owned(), row.id.to_owned()))
        .collect();
    let mut described = BTreeSet::new();
    for (path, item) in description()["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap().to_owned();
            described.insert((method.clone(), path.clone(), id));
        }
    }
    assert_eq!(served, described);
    assert_eq!(served.len(), operations::ALL.len(), "no operation is there twice");
}

#[test]
fn the_description_says_which_role_an_operation_needs_and_which_parameters_its_path_has() {
    for row in operations::ALL {
        let operation = &description()["paths"][row.path][row.verb.as_str()];
        let text = operation["description"].as_str().unwrap_or_default();
        for (need, role) in [(Need::Operate, "`operator`"), (Need::Administer, "`admin`")] {
            assert_eq!(text.contains(&format!("Needs the role {role}")), row.need == need, "{}", row.id);
        }
        if row.credentials == Credentials::Bearer {
            for status in ["400", "401", "429"] {
                assert!(operation["responses"].get(status).is_some(), "{} {status}", row.id);
            }
            assert_eq!(operation["responses"].get("403").is_some(), row.need != Need::Look, "{}", row.id);
        }
        let mut parameters: Vec<&str> = operation["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|parameter| parameter["in"] == "path")
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        parameters.sort_unstable();
        let mut wanted: Vec<&str> =
            row.path.split('{').skip(1).map(|rest| rest.split('}').next().unwrap()).collect();
        wanted.sort_unstable();
        assert_eq!(parameters, wanted, "{}", row.id);
    }
}

#[test]
fn every_reference_in_the_description_leads_somewhere() {
    fn walk(value: &'static Value) {
        follow(value);
        match value {
            Value::Object(fields) => fields.values().for_each(walk),
            Value::Array(items) => items.iter().for_each(walk),
            _ => {}
        }
    }
    walk(description());
}

/// What fields of a body are when they are right: enough for every operation to get to the field that is wrong.
fn right(name: &str) -> Option<Value> {
    Some(match name {
        "accountId" => json!("acme"),
        "forwardTo" => json!("sip:200@pbx"),
        "to" => json!("+4915112345678"),
        "code" => json!("123456"),
        "_id" | "webhookId" => json!("crm"),
        "eventId" => json!("evt_1"),
        "name" => json!("crm"),
        "url" => json!("https://a.example/hook"),
        "events" => json!(["call.ended"]),
        "enabled" => json!(false),
        "paused" => json!(true),
        _ => return None,
    })
}

#[tokio::test]
async fn a_field_whose_type_or_null_is_not_described_is_refused_by_its_name() {
    let mut tried = 0;
    for row in operations::ALL.iter().filter(|row| row.form == Form::Json) {
        let operation = &description()["paths"][row.path][row.verb.as_str()];
        let schema = follow(&operation["requestBody"]["content"]["application/json"]["schema"]);
        let required: Map<String, Value> = schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|name| name.as_str().unwrap())
            .map(|name| (name.to_owned(), right(name).unwrap_or_else(|| panic!("{name} of {}", row.id))))
            .collect();
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            for wrong in [
                json!(null),
                json!(true),
                json!(7),
                json!("\n"),
                json!([7]),
                json!([null]),
                json!({ "a": null }),
            ] {
                if faults(field, &wrong, "").is_empty() {
                    continue;
                }
                let house = House::new();
                let mut body = required.clone();
                body.insert(name.clone(), wrong);
                let (path, body) = (row.path.replace("{id}", "support"), Value::Object(body));
                let got = house
                    .ask(ADMIN, &row.verb.as_str().to_ascii_uppercase(), &path, Some(body.clone()))
                    .await;
                assert_eq!(got.status, 400, "{}: {body} is not described: {}", row.id, got.text);
                let param = got.fault().2;
                assert!(param.starts_with(name.as_str()), "{}: {body} is refused for \"{param}\"", row.id);
                tried += 1;
            }
        }
    }
    assert!(tried > 200, "{tried} fields of a wrong type");
}
