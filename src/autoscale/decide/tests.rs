//! Tests of decisions: one file for each question.

mod actuators;
mod basics;
mod classic;
mod closed_loop;
mod failures;
mod properties;
mod restarts;
mod strategies;
mod support;
