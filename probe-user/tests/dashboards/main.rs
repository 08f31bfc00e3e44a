//! Dashboards, rules and what they say about themselves, held against the catalogue of metrics, Grafana's own types, and
//! Prometheus's own tools. What a real Prometheus answers is `tests/live/dashboards.rs`.
#![expect(clippy::expect_used, clippy::panic, reason = "helpers of tests fail the test")]
#![expect(clippy::format_push_string, reason = "a few, in a test")]

mod expressions;
mod grafana;
mod labels;
mod layout;
mod names;
mod panels;
mod rules;
