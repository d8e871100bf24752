//! The CEL rules of the schema without an API server; `tests/t1/admission.rs` judges the same table on one.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::format_push_string,
    missing_docs,
    unreachable_pub,
    dead_code,
    reason = "a test program"
)]

#[path = "t1/admission_table.rs"]
mod admission_table;
#[path = "t1/samples.rs"]
mod samples;
#[path = "t1/schema.rs"]
mod schema;

use std::collections::BTreeSet;

use admission_table::{BAD, BAD_NAMES, GOOD, GOOD_NAMES};
use mcp_fleet::api::v1alpha1::McpFleet;
use serde_json::json;

fn fleet(name: &str, spec: &str) -> McpFleet {
    let object = json!({"apiVersion": "mcpfleet.io/v1alpha1", "kind": "McpFleet", "metadata": {"name": name}, "spec": samples::parse(spec)});
    serde_json::from_value(object).unwrap_or_else(|e| panic!("{e}: {spec}"))
}

#[test]
fn each_bad_specification_is_refused_by_its_rule() {
    for bad in BAD {
        let errors = fleet("weather", bad.spec).validate_cel().expect_err(bad.spec).to_string();
        assert!(errors.contains(bad.says), "{}: {errors}", bad.spec);
    }
}

#[test]
fn good_specifications_are_accepted() {
    for spec in GOOD.iter().chain([&samples::FULL, &samples::MINIMAL]) {
        fleet("weather", spec).validate_cel().unwrap_or_else(|e| panic!("{e}: {spec}"));
    }
}

#[test]
fn names_must_be_good_for_a_service() {
    for name in BAD_NAMES {
        let errors = fleet(name, samples::MINIMAL).validate_cel().expect_err(name).to_string();
        assert!(errors.contains("at most 50 characters"), "{name}: {errors}");
    }
    for name in GOOD_NAMES {
        fleet(name, samples::MINIMAL).validate_cel().unwrap_or_else(|e| panic!("{e}: {name}"));
    }
}

/// Without this a new rule could go untested.
#[test]
fn the_table_has_every_rule() {
    let mut rules = BTreeSet::new();
    schema::visit(&schema::spec(), "", &mut |path, schema| {
        for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            rules.insert((
                path.trim_start_matches('.').to_owned(),
                rule["message"].as_str().unwrap().to_owned(),
            ));
        }
    });
    assert!(rules.len() > 25, "the walk over the schema finds {} rules only", rules.len());
    rules.retain(|(at, message)| !BAD.iter().any(|bad| bad.at == at && message.contains(bad.says)));
    assert!(rules.is_empty(), "rules without a bad specification in tests/t1/admission_table.rs: {rules:#?}");
}
