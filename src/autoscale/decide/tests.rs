//! Tests of decisions: one file for each question.

mod basics;
mod classic;
mod failures;
mod support;
