//! Walks the schema of the CRD.

use mcp_fleet::api::crd;
use serde_json::Value;

/// One step of a path through a specification.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// A named field.
    Field(String),
    /// Any entry of a list.
    Item,
    /// Any value of a map.
    Entry,
}

/// A field without fields of its own.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// Where it is, from `spec`.
    pub path: Vec<Step>,
    /// What the schema says of it.
    pub schema: Value,
    /// Whether its parent cannot be without it.
    pub required: bool,
}

impl Leaf {
    /// As in `server.env[].name`.
    pub fn name(&self) -> String {
        name(&self.path)
    }
}

/// As in `server.podLabels{}`.
pub fn name(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Field(field) if text.is_empty() => text.push_str(field),
            Step::Field(field) => text.push_str(&format!(".{field}")),
            Step::Item => text.push_str("[]"),
            Step::Entry => text.push_str("{}"),
        }
    }
    text
}

/// The schema of the whole object.
pub fn root() -> Value {
    let crd = serde_json::to_value(crd::mcpfleet_crd()).expect("JSON");
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// The schema of `spec`.
pub fn spec() -> Value {
    root()["properties"]["spec"].clone()
}

/// All leaves below `spec`. `server.affinity` is one: it is taken over from Kubernetes and copied as a whole.
pub fn leaves() -> Vec<Leaf> {
    let mut leaves = Vec::new();
    collect(&spec(), &mut Vec::new(), true, &mut leaves);
    leaves
}

fn collect(schema: &Value, path: &mut Vec<Step>, required: bool, leaves: &mut Vec<Leaf>) {
    let mut within = |step, schema: &Value, required, leaves: &mut Vec<Leaf>| {
        path.push(step);
        collect(schema, path, required, leaves);
        path.pop();
    };
    if let Some(fields) = schema["properties"].as_object() {
        for (field, inner) in fields {
            let needed = schema["required"].as_array().is_some_and(|all| all.iter().any(|r| r == field));
            within(Step::Field(field.clone()), inner, needed, leaves);
        }
    } else if schema["items"].is_object() {
        within(Step::Item, &schema["items"], false, leaves);
    } else if schema["additionalProperties"].is_object() {
        within(Step::Entry, &schema["additionalProperties"], false, leaves);
    } else {
        leaves.push(Leaf { path: path.clone(), schema: schema.clone(), required });
    }
    // Of an embedded type only the whole counts.
    if path.last() == Some(&Step::Field("affinity".into())) {
        leaves.retain(|leaf| !leaf.path.starts_with(path));
        leaves.push(Leaf { path: path.clone(), schema: schema.clone(), required });
    }
}

/// All schemas of objects below the root, with the path to each.
pub fn visit(schema: &Value, path: &str, look: &mut impl FnMut(&str, &Value)) {
    look(path, schema);
    for (field, inner) in schema["properties"].as_object().into_iter().flatten() {
        visit(inner, &format!("{path}.{field}"), look);
    }
    for (mark, key) in [("[]", "items"), ("{}", "additionalProperties")] {
        if schema[key].is_object() {
            visit(&schema[key], &format!("{path}{mark}"), look);
        }
    }
}

/// JSON pointers of the places in `value` that a path leads to.
pub fn places(value: &Value, path: &[Step]) -> Vec<String> {
    let Some((step, rest)) = path.split_first() else { return vec![String::new()] };
    let under = |key: &str, inner: &Value| -> Vec<String> {
        let key = key.replace('~', "~0").replace('/', "~1");
        places(inner, rest).into_iter().map(|place| format!("/{key}{place}")).collect()
    };
    match (step, value) {
        (Step::Field(field), Value::Object(map)) => {
            map.get(field).map(|inner| under(field, inner)).unwrap_or_default()
        }
        (Step::Item, Value::Array(items)) => {
            items.iter().enumerate().flat_map(|(i, inner)| under(&i.to_string(), inner)).collect()
        }
        (Step::Entry, Value::Object(map)) => map.iter().flat_map(|(key, inner)| under(key, inner)).collect(),
        _ => Vec::new(),
    }
}

/// Takes away what a JSON pointer leads to.
pub fn remove(value: &mut Value, place: &str) {
    let (parent, key) = place.rsplit_once('/').expect("a pointer");
    let key = key.replace("~1", "/").replace("~0", "~");
    match value.pointer_mut(parent) {
        Some(Value::Object(map)) => {
            map.remove(&key);
        }
        Some(Value::Array(items)) => {
            items.remove(key.parse().expect("an index"));
        }
        _ => panic!("{place} is not there"),
    }
}
