//! The graphs of locks, of states and of processes as metric families: an edge is a series.

use prometheus::proto::MetricFamily;

use super::catalog;
use super::collector::{family, point};
use super::engine::View;
use crate::model::groups::{OTHER, parents};

/// A lock that no symbol names: one on the heap.
const UNNAMED: &str = "(unnamed)";

/// All three.
pub fn families(view: &View<'_>) -> Vec<MetricFamily> {
    let transitions = view.groups.transitions().map(|transition| {
        let labels = [transition.from, transition.to];
        point(catalog::TRANSITIONS, &labels, transition.count as f64)
    });
    let edges = parents::pairs(&view.snapshot, view.groups);
    let edges = edges.iter().map(|((above, below), &count)| {
        let labels = [&*above.unit, &*above.comm, &*below.unit, &*below.comm];
        point(catalog::TREE_EDGES, &labels, count as f64)
    });
    let (rows, other_ns) = view.groups.lock_edges().counters();
    let mut waits = vec![point(
        catalog::LOCK_EDGES,
        &["", OTHER, "", "", "", "", ""],
        other_ns as f64 / 1e9,
    )];
    for (edge, ns) in rows {
        let (waiter, holder) = (edge.waiter.to_string(), edge.holder.to_string());
        let labels = [
            &*edge.group.unit,
            &*edge.group.comm,
            &*waiter,
            &*holder,
            edge.lock.as_deref().unwrap_or(UNNAMED),
            edge.kind.name(),
            edge.grade.name(),
        ];
        waits.push(point(catalog::LOCK_EDGES, &labels, ns as f64 / 1e9));
    }
    vec![
        family(catalog::LOCK_EDGES, waits),
        family(catalog::TRANSITIONS, transitions.collect()),
        family(catalog::TREE_EDGES, edges.collect()),
    ]
}
