//! A histogram as lines of text.

use probe_ebpf::histogram::{lower_bound_ns, upper_bound_ns};

use super::number::{bar, count, duration};
use crate::model::account::Histogram;

/// Cells of the longest bar.
const BAR: usize = 20;

/// One line per bucket from the first that is not empty to the last.
pub fn lines(cells: &Histogram) -> Vec<String> {
    let first = cells.iter().position(|&cell| cell > 0).unwrap_or(0);
    let Some(last) = cells.iter().rposition(|&cell| cell > 0) else {
        return Vec::new();
    };
    let greatest = cells.iter().copied().max().unwrap_or(0);
    let mut lines = Vec::new();
    let mut gap = false;
    for (bucket, &cell) in cells.iter().enumerate().take(last + 1).skip(first) {
        if cell == 0 {
            // One line for any number of empty buckets: an outlier far off should be seen beside the rest.
            if !std::mem::replace(&mut gap, true) {
                lines.push(format!("  {:>7}", "…"));
            }
            continue;
        }
        gap = false;
        let upper = upper_bound_ns(bucket).map_or_else(|| "…".to_owned(), |bound| duration(Some(bound)));
        let lower = duration(Some(lower_bound_ns(bucket)));
        lines.push(format!(
            "  {lower:>7} – {upper:<7} {:>9}  {}",
            count(cell),
            bar(cell, greatest, BAR)
        ));
    }
    lines
}
