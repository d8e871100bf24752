//! The whole on real nodes: the product as its chart installs it, real pods of a real MCP server, probes,
//! drains, failures, and the real autoscaler.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::disallowed_types,
    missing_docs,
    reason = "a test program"
)]

#[path = "../support/images.rs"]
mod images;
#[path = "../support/mod.rs"]
mod support;

mod autoscaling;
mod cpu_scaling;
mod drain;
mod gateway;
mod lab;
mod life;
mod load;
mod security;
mod trouble;

use std::process::ExitCode;

use mcp_fleet_cluster::Tier;

fn main() -> ExitCode {
    support::run_with(
        Tier::T3,
        |builder| {
            let images = images::build().unwrap_or_else(|error| panic!("no images: {error:#}"));
            builder
                .name("t3")
                .real_nodes(3)
                .images(images)
                .kcm_args(["--horizontal-pod-autoscaler-sync-period=5s"])
        },
        false,
        // The long ones first: the others then run beside them.
        vec![
            case!(autoscaling::calls_that_slow_down_get_what_they_hold_and_keep_it),
            case!(cpu_scaling::load_scales_up_and_its_end_scales_down),
            case!(autoscaling::an_outage_that_fails_fast_takes_nothing_away),
            case!(gateway::planned_changes_fail_no_call),
            case!(autoscaling::load_scales_up_and_down_and_no_call_fails),
            case!(autoscaling::the_first_call_wakes_a_fleet_at_zero),
            case!(life::a_dead_node_is_told_and_left),
            case!(autoscaling::what_waits_in_the_gateway_asks_for_replicas),
            case!(drain::a_server_that_ignores_sigterm_ends_at_once),
            case!(drain::an_image_update_fails_no_call),
            case!(drain::a_scale_down_fails_no_call),
            case!(drain::a_node_drain_fails_no_call),
            case!(gateway::a_session_outlives_its_pods),
            case!(trouble::a_bad_value_is_told_and_reverted),
            case!(trouble::a_server_that_needs_more_memory_is_told_so),
            case!(drain::a_busy_pod_ends_after_its_call_and_an_empty_one_at_once),
            case!(drain::a_held_connection_is_cut_at_the_drain_time),
            case!(drain::the_other_ways_to_drain),
            case!(life::from_apply_to_answered_calls),
            case!(life::killed_pods_and_processes_come_back),
            case!(life::the_leader_is_killed_and_the_other_replica_goes_on),
            case!(security::a_restricted_namespace_runs_a_fleet),
            case!(security::the_product_itself_is_restricted),
            case!(trouble::a_hung_server_is_restarted_although_a_connection_is_held),
            case!(trouble::a_missing_secret_is_told_and_waited_for),
            case!(trouble::a_crash_loop_is_told_and_over_with_the_next_spec),
            case!(trouble::trouble_is_in_the_events),
        ],
    )
}
