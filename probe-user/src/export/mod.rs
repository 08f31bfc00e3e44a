//! What leaves the host: Prometheus metrics and the HTTP API.
//!
//! | module | does |
//! |---|---|
//! | [`catalog`] | every metric: name, type, help, labels. METRICS.md is generated from it |
//! | [`engine`] | owns the running picture: source, event ring, books |
//! | [`engine_thread`] | the thread that has it, and how to ask it |
//! | [`workers`] | the threads that draw answers |
//! | [`scrapes`] | scrapes at the same time share one look |
//! | [`collector`] | one look at the engine as metric families; no series outlives its group |
//! | [`unit_watch`], `units` | what units may take: kept current, and as families |
//! | `graphs` | the graphs of locks, states and processes: an edge is a series |
//! | [`bound`] | how many series there can be |
//! | [`format`] | in which format a scraper gets them |
//! | [`http`] | /metrics, /healthz, /readyz, /api/v1 |
//! | [`guard`] | what stands before those: passwords, sizes, turns |
//! | [`auth`], [`tls`] | passwords, certificates |
//! | [`host`] | whether a request means this host |
//! | [`doors`] | the addresses it listens on, and the socket |
//! | [`peer`], [`accounts`] | who is at the other end |
//! | [`connections`] | who has a connection, and who has to go |
//! | [`serve`] | serves them |
//! | [`compression`] | compresses answers |

pub mod accounts;
pub mod auth;
pub mod bound;
pub mod catalog;
pub mod collector;
pub mod compression;
pub mod connections;
pub mod doors;
pub mod engine;
pub mod engine_thread;
pub mod format;
mod graphs;
pub mod guard;
pub mod host;
pub mod http;
pub mod locks;
pub mod peer;
pub mod scrapes;
pub mod serve;
pub mod tls;
pub mod unit_watch;
mod units;
pub mod workers;
