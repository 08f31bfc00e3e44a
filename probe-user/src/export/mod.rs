//! What leaves the host: Prometheus metrics and the HTTP API.
//!
//! | module | does |
//! |---|---|
//! | [`catalog`] | every metric: name, type, help, labels. METRICS.md is generated from it |
//! | [`engine`] | owns the running picture: source, event ring, books |
//! | [`collector`] | one look at the engine as metric families; no series outlives its group |
//! | [`bound`] | how many series there can be |
//! | [`format`] | in which format a scraper gets them |
//! | [`http`] | /metrics, /healthz, /readyz, /api/v1 |
//! | [`guard`] | what stands before those: passwords, sizes, turns |
//! | [`auth`], [`tls`] | passwords, certificates |
//! | [`serve`] | connections and their limits |

pub mod auth;
pub mod bound;
pub mod catalog;
pub mod collector;
pub mod engine;
pub mod format;
pub mod guard;
pub mod http;
pub mod locks;
pub mod serve;
pub mod tls;
