//! What the controllers decide: scaling, garbage collection, rollouts, on fake nodes (kwok).
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

mod at_rest;
mod autoscaling;
mod chart;
mod deletion;
mod gateways;
mod look;
mod scaling;
mod status;
mod upgrade;

use std::process::ExitCode;

use mcp_fleet_cluster::Tier;

use crate::{
    autoscaling::{actuators, differential, following, holding},
    support::{Suite, operator::Operator},
};

/// The operator of the tests that do not disturb it; it compares fleets at rest every 10 s.
fn operator(suite: &Suite) -> &Operator {
    suite.operator_with(&["--resync-seconds", "10"])
}

fn main() -> ExitCode {
    support::run(
        Tier::T2,
        |builder| {
            // At the default of 15 s every step of an autoscaler would be a wait.
            builder.name("t2").kwok_nodes(4).kcm_args(["--horizontal-pod-autoscaler-sync-period=2s"])
        },
        vec![
            case!(differential::the_port_answers_as_the_controller_manager),
            case!(actuators::a_killed_leader_loses_no_rest),
            case!(actuators::a_standby_that_takes_over_keeps_the_rest),
            case!(following::an_hpa_follows_the_load_up_and_down),
            case!(following::a_step_up_does_not_wait_for_the_hpa),
            case!(holding::at_steady_load_nothing_is_written),
            case!(holding::without_metrics_it_holds_and_then_falls_back),
            case!(holding::a_person_pauses_and_goes_on),
            case!(holding::a_rollout_with_surge_moves_no_scale),
            case!(holding::a_users_autoscaler_is_not_fought),
            case!(actuators::direct_and_an_hpa_come_to_the_same),
            case!(actuators::where_the_metrics_api_is_taken_the_operator_scales_itself),
            case!(scaling::our_autoscaler_scales_through_the_fleet),
            case!(scaling::kubectl_scale_works_without_autoscaling),
            case!(scaling::kubectl_autoscale_works_where_ours_is_off),
            case!(scaling::a_users_autoscaler_makes_ours_step_aside),
            case!(scaling::an_autoscaler_on_the_deployment_is_left_alone),
            case!(scaling::an_autoscaler_on_the_deployment_is_told_without_autoscaling_too),
            case!(scaling::applying_the_same_file_again_changes_nothing),
            case!(scaling::replicas_in_the_file_are_told),
            case!(scaling::a_removed_line_is_seeded_again),
            case!(scaling::surge_pods_are_not_counted),
            case!(status::every_revision_tells_the_truth),
            case!(status::a_used_up_quota_is_told_and_recovers),
            case!(status::a_missing_service_account_is_told_and_recovers),
            case!(status::an_unschedulable_pod_is_told_and_recovers),
            case!(status::a_rollout_that_cannot_finish_keeps_the_old_pods),
            case!(at_rest::nothing_is_written),
            case!(upgrade::another_version_restarts_nobody),
            case!(gateways::a_scale_down_takes_the_emptiest),
            case!(chart::the_offline_checks_hold),
            case!(chart::the_api_server_takes_what_the_chart_renders),
            case!(chart::the_api_server_takes_deploy_and_the_samples),
            case!(chart::install_upgrade_uninstall),
            case!(chart::namespaced_mode_needs_a_role_only),
            case!(deletion::nothing_is_left),
            case!(deletion::a_namespace_with_fleets_ends),
            case!(deletion::the_name_can_be_used_again_at_once),
            case!(deletion::what_is_no_longer_asked_for_goes),
        ],
    )
}
