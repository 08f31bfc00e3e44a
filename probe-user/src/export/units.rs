//! What units may take as metric families. What is not known has no series.

use prometheus::proto::MetricFamily;

use super::catalog::{self, Metric};
use super::collector::{family, point};
use super::engine::View;
use crate::model::unit_resources::Shown;

/// All of them.
pub fn families(view: &View<'_>) -> Vec<MetricFamily> {
    let seconds = |ns: u64| ns as f64 / 1e9;
    let of = |metric: Metric, value: &dyn Fn(&Shown) -> Option<f64>| {
        let points = view
            .units
            .iter()
            .filter_map(|(unit, shown)| Some(point(metric, &[unit], value(shown)?)));
        family(metric, points.collect())
    };
    let infos = view.named_units.iter().map(|unit| {
        let name = &unit.name;
        let labels = [
            &*unit.unit,
            &name.namespace,
            &name.pod,
            &name.container,
            &unit.runtime,
        ];
        point(catalog::UNIT_INFO, &labels, 1.0)
    });
    vec![
        family(catalog::UNIT_INFO, infos.collect()),
        of(catalog::UNIT_THROTTLED, &|unit| unit.throttled_ns.map(seconds)),
        of(catalog::UNIT_OOM_KILLS, &|unit| {
            unit.oom_kills.map(|kills| kills as f64)
        }),
        of(catalog::UNIT_CPU_LIMIT, &|unit| unit.cores),
        of(catalog::UNIT_PIDS_USED, &|unit| {
            unit.pids_used.map(|pids| pids as f64)
        }),
        of(catalog::UNIT_PIDS_LIMIT, &|unit| {
            unit.pids_limit.map(|pids| pids as f64)
        }),
        family(
            catalog::UNITS_LEFT_OUT,
            vec![point(catalog::UNITS_LEFT_OUT, &[], view.units_left_out as f64)],
        ),
    ]
}
