//! What the API server alone decides: admission, server-side apply, conflicts, rights, leases.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::float_cmp,
    clippy::format_push_string,
    clippy::case_sensitive_file_extension_comparisons,
    clippy::print_stderr,
    clippy::disallowed_types,
    missing_docs,
    reason = "a test program"
)]

#[path = "../support/mod.rs"]
mod support;

mod admission;
mod admission_table;
mod autoscaling;
mod burst;
mod common;
mod crash;
mod crd_lifecycle;
mod drift;
mod fields;
mod foreign;
mod hostile;
mod immutable;
mod leadership;
mod metrics_api;
mod receivers;
mod rights;
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
            case!(autoscaling::a_fleet_follows_its_load),
            case!(autoscaling::a_person_stops_it_by_annotation),
            case!(autoscaling::what_cannot_be_holds_that_fleet_and_no_other),
            case!(autoscaling::a_killed_operator_keeps_the_rest_after_a_change),
            case!(receivers::a_gateway_trusts_a_new_operator_at_once),
            case!(drift::a_deleted_child_returns),
            case!(drift::every_owned_field_comes_back),
            case!(drift::stripped_owner_references_come_back),
            case!(drift::what_we_do_not_own_stays),
            case!(drift::a_scale_set_by_an_autoscaler_stays),
            case!(foreign::a_stranger_is_never_touched),
            case!(foreign::a_child_of_an_earlier_fleet_is_never_touched),
            case!(foreign::a_stranger_with_our_labels_is_never_touched),
            case!(foreign::orphans_are_taken_up),
            case!(foreign::a_fleet_made_again_gets_new_children),
            case!(fields::every_field_is_set_changed_and_removed),
            case!(fields::everything_at_once_and_back),
            case!(fields::replicas_are_kept_when_removed),
            case!(burst::new_fleets_get_their_services_before_any_deployment),
            case!(hostile::nonsense_is_refused_or_contained),
            case!(hostile::a_broken_fleet_does_not_slow_the_others),
            case!(hostile::a_refused_child_is_told_and_mended),
            case!(rights::every_right_is_used_and_none_is_missing),
            case!(rights::no_right_is_dangerous),
            case!(rights::one_namespace_needs_no_cluster_wide_right),
            case!(rights::the_schema_has_no_way_out_of_the_namespace),
            case!(rights::a_user_of_one_namespace_gets_nothing_of_another),
            case!(rights::generated_pods_are_restricted),
            case!(metrics_api::from_registration_to_removal),
            case!(leadership::another_leads_after_a_kill),
            case!(leadership::another_leads_after_a_kill_with_the_default_lease),
            case!(leadership::the_lease_is_handed_over_on_sigterm),
            case!(leadership::a_standby_never_writes),
            case!(leadership::a_leader_that_slept_through_its_lease_ends),
            case!(crd_lifecycle::the_operator_waits_for_the_crd),
            case!(crash::a_killed_operator_leaves_no_trace),
            case!(crash::a_restart_writes_nothing),
            case!(immutable::a_headless_service_with_an_address_is_made_anew),
            case!(immutable::a_deployment_with_another_selector_is_reported),
            case!(immutable::another_load_balancer_class_is_reported),
        ],
    )
}
