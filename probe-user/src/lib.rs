//! The procprobe agent.
//!
//! ```text
//! kernel ──▶ source ──▶ model ──▶ view, export
//! (eBPF)     (records    (pure)    (terminal, JSON, Prometheus)
//!  /proc ──▶  to model)
//! ```
//!
//! Data flows one way. [`kernel`] loads the programs and reads their records; [`source`] turns those, or
//! /proc, into the model's input; [`model`] draws the conclusions and touches nothing outside; [`view`] and
//! [`export`] show them; [`cli`] has one file per verb and ties the rest together; [`config`] is what it
//! reads from files. [`confine`] is what the agent and its two processes, [`namer`] and [`aide`], give up.

pub mod aide;
pub mod cli;
pub mod config;
pub mod confine;
pub mod export;
pub mod kernel;
pub mod model;
pub mod namer;
pub mod source;
pub mod view;

#[cfg(test)]
mod hostile;
