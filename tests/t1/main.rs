//! What the API server alone decides: admission, server-side apply, conflicts, rights, leases.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::disallowed_types,
    missing_docs,
    reason = "a test program"
)]

#[path = "../support/mod.rs"]
mod support;

mod admission;
mod admission_table;
mod common;
mod drift;
mod samples;
mod schema;

use std::process::ExitCode;

use mcp_fleet_cluster::Tier;

fn main() -> ExitCode {
    support::run(
        Tier::T1,
        |builder| builder.name("t1"),
        vec![
            case!(admission::each_rule_refuses_with_its_message),
            case!(admission::good_specifications_are_accepted),
            case!(admission::the_schema_refuses_what_is_out_of_bounds),
            case!(admission::defaults_are_filled_in),
            case!(admission::explain_reads_like_documentation),
            case!(admission::columns_show_the_state),
            case!(admission::kubectl_scale_works),
            case!(drift::a_deleted_child_returns),
            case!(drift::every_owned_field_comes_back),
            case!(drift::what_we_do_not_own_stays),
            case!(drift::a_scale_set_by_an_autoscaler_stays),
        ],
    )
}
