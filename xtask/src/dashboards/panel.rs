//! A panel: a question, the query that answers it, its unit, and what to do about the answer.

use super::board::Scope;

/// How a panel shows its data.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Stat,
    Series,
    Table,
    Heatmap,
    Graph,
}

/// From which value on a panel has which colour.
#[derive(Clone, Copy)]
pub(super) struct Step {
    pub(super) from: f64,
    pub(super) color: &'static str,
}

/// Leaves out the sums over whatever had no place of its own: a sum of strangers leads no ranking.
pub const NAMED: &str = r#"comm!~"[(](other|lost)[)]""#;

/// 0 where nothing is wrong and an agent is there to say so; without one nothing, for that is not health.
pub fn or_zero(expression: &str) -> String {
    format!("{expression} or 0 * count(procprobe_build_info{{HOST}})")
}

pub(super) struct Query {
    pub(super) expression: String,
    pub(super) legend: &'static str,
}

/// A column of a table.
pub(super) struct Column {
    pub(super) title: &'static str,
    pub(super) unit: &'static str,
    pub(super) steps: Vec<Step>,
}

/// See the module.
pub struct Panel {
    pub(super) kind: Kind,
    pub(super) title: &'static str,
    pub(super) unit: &'static str,
    pub(super) description: &'static str,
    pub(super) queries: Vec<Query>,
    pub(super) steps: Vec<Step>,
    pub(super) columns: Vec<Column>,
    /// The colour below the first step.
    pub(super) base: &'static str,
    /// Alerts whose thresholds the steps are.
    pub(super) alerts: Vec<&'static str>,
    /// From this value on the words stand in for the number.
    pub(super) never: Option<(f64, &'static str)>,
    /// The columns of labels in a table, left to right, before those of values.
    pub(super) labels: &'static [&'static str],
    /// What a legend is sorted by, largest first: "Mean" or "Max".
    pub(super) sorted_by: &'static str,
    pub(super) stacked: bool,
    pub(super) link: Option<(&'static str, &'static str)>,
    pub width: u32,
    pub height: u32,
}

/// One number, small: three of them fill half a line.
pub fn stat(title: &'static str, unit: &'static str, description: &'static str) -> Panel {
    Panel::new(Kind::Stat, title, unit, description, 4, 4)
}

/// Lines over time.
pub fn series(title: &'static str, unit: &'static str, description: &'static str) -> Panel {
    Panel::new(Kind::Series, title, unit, description, 12, 8)
}

/// One line per thing, as it is now; see [`Panel::column`].
pub fn table(title: &'static str, description: &'static str) -> Panel {
    Panel::new(Kind::Table, title, "short", description, 12, 8)
}

/// Who is connected to whom: the edges of a graph, and what each weighs in `unit`, which is shown as it is
/// written.
pub fn graph(title: &'static str, unit: &'static str, description: &'static str) -> Panel {
    Panel::new(Kind::Graph, title, unit, description, 14, 14)
}

/// The buckets of a histogram over time.
pub fn heatmap(title: &'static str, description: &'static str) -> Panel {
    Panel::new(Kind::Heatmap, title, "s", description, 12, 8)
}

impl Panel {
    fn new(
        kind: Kind,
        title: &'static str,
        unit: &'static str,
        description: &'static str,
        width: u32,
        height: u32,
    ) -> Self {
        Self {
            kind,
            title,
            unit,
            description,
            queries: Vec::new(),
            steps: Vec::new(),
            columns: Vec::new(),
            base: if kind == Kind::Stat { "green" } else { "text" },
            alerts: Vec::new(),
            never: None,
            labels: &[],
            sorted_by: "Mean",
            stacked: false,
            link: None,
            width,
            height,
        }
    }

    /// Adds a query. `HOST`, `GROUP` and `UNIT` in it stand for the selectors that the dashboard's variables
    /// make: of a host, of groups, and of what is counted of units or of groups, whichever the agent was
    /// told.
    pub fn query(mut self, expression: &str, legend: &'static str) -> Self {
        self.queries.push(Query {
            expression: selectors(expression),
            legend,
        });
        self
    }

    /// Adds a column to a table: a query with one value for each of its lines.
    pub fn column(mut self, title: &'static str, unit: &'static str, expression: &str) -> Self {
        self.columns.push(Column {
            title,
            unit,
            steps: Vec::new(),
        });
        self.query(expression, title)
    }

    /// Warns from where this alert does, the panel or the table's last column, and leads to its section of
    /// the runbook.
    pub fn warn(self, alert: &'static str, from: f64) -> Self {
        self.step(from, "orange").of(alert)
    }

    /// The same of an alert that wakes somebody.
    pub fn alarm(self, alert: &'static str, from: f64) -> Self {
        self.step(from, "red").of(alert)
    }

    /// Is bad up to this value, from where an alert warns.
    pub fn warn_below(mut self, alert: &'static str, from: f64) -> Self {
        self.base = "orange";
        self.step(from, "green").of(alert)
    }

    /// A value that is worth knowing, though no alert is about it.
    pub fn mark(self, from: f64) -> Self {
        self.step(from, "blue")
    }

    fn of(mut self, alert: &'static str) -> Self {
        if !self.alerts.contains(&alert) {
            self.alerts.push(alert);
        }
        self
    }

    /// Words in place of numbers that stand for "never".
    pub fn never(mut self, from: f64, words: &'static str) -> Self {
        self.never = Some((from, words));
        self
    }

    /// Which labels a table shows, left to right.
    pub fn labels(mut self, labels: &'static [&'static str]) -> Self {
        self.labels = labels;
        self
    }

    /// Sorts the legend by the highest value, as [`top_gauge`] ranks.
    pub fn by_max(mut self) -> Self {
        self.sorted_by = "Max";
        self
    }

    fn step(mut self, from: f64, color: &'static str) -> Self {
        let steps = match self.columns.last_mut() {
            Some(column) => &mut column.steps,
            None => &mut self.steps,
        };
        steps.push(Step { from, color });
        self
    }

    /// Puts the lines on top of each other: for parts of a whole.
    pub fn stacked(mut self) -> Self {
        self.stacked = true;
        self
    }

    pub fn wide(mut self, width: u32) -> Self {
        self.width = width;
        self
    }

    pub fn tall(mut self, height: u32) -> Self {
        self.height = height;
        self
    }

    /// Where to go on: another dashboard's file name, and what to call it.
    pub fn link(mut self, file: &'static str, title: &'static str) -> Self {
        self.link = Some((file, title));
        self
    }
}

fn selectors(expression: &str) -> String {
    expression
        .replace("GROUP", &Scope::Groups.selector())
        .replace("OF_UNITS", r#"HOST,unit=~"$unit""#)
        .replace(",NAMED", &format!(",{NAMED}"))
        // Durations of units have no process name; those of a group are of the one that was chosen.
        .replace("UNIT", r#"HOST,unit=~"$unit",comm=~"|$comm""#)
        .replace("HOST", &Scope::Host.selector())
}

/// The ten that had most of something over the whole range, as they are at each moment of it; ranked anew at
/// each moment, a graph would show ten times as many, none of them whole. `by` are the labels of the
/// expression.
pub fn top(by: &str, expression: &str) -> String {
    let over_all = named(expression).replace("[$__rate_interval]", "[$__range] @ end()");
    format!("({expression}) and on ({by}) topk(10, {over_all})")
}

/// The same of a gauge, added up by labels; those are ranked by the highest they had.
pub fn top_gauge(by: &str, gauge: &str) -> String {
    let highest = format!(
        "sum by ({by}) (max_over_time({}[$__range] @ end()))",
        named(gauge)
    );
    format!("sum by ({by}) ({gauge}) and on ({by}) topk(10, {highest})")
}

/// The same of a recorded series with one value for each host.
pub fn top_hosts(recorded: &str) -> String {
    format!(
        "{recorded} and on (cluster, job, instance) topk(10, max_over_time({recorded}[$__range] @ end()))"
    )
}

/// Without the sums over the rest.
fn named(expression: &str) -> String {
    ["GROUP", "UNIT", "HOST"]
        .iter()
        .fold(expression.to_owned(), |text, selector| {
            text.replace(&format!("{{{selector}"), &format!("{{{selector},{NAMED}"))
        })
}

/// Edges as the *Node graph* panel takes them, in an instant query shown as a table: `id`, `source` and
/// `target` are labels of each, made of those that name the two ends, and of `more` where several edges have
/// the same. An end's host comes before its unit, which may be empty and then leaves no separator behind.
pub fn edges(sum: &str, source: &str, target: &str, more: &[&str]) -> String {
    let end = |sum: &str, name: &str, labels: &str| {
        let joined = format!(r#"label_join({sum}, "{name}", " · ", {labels})"#);
        format!(r#"label_replace({joined}, "{name}", "$1", "{name}", "(.*?)(?: · )?")"#)
    };
    let both = end(&end(sum, "source", source), "target", target);
    let labels: Vec<String> = ["source", "target"]
        .iter()
        .chain(more)
        .map(|label| format!("{label:?}"))
        .collect();
    format!(r#"label_join({both}, "id", " → ", {})"#, labels.join(", "))
}

/// The growth of a histogram's series, as two expressions: where Prometheus stores it as a native histogram
/// (`convert_classic_histograms_to_nhcb`), the second one has data, else the first.
fn growth(metric: &str, suffix: &str, selector: &str) -> (String, String) {
    let of = |suffix: &str| format!("rate({metric}{suffix}{{{selector}}}[$__rate_interval])");
    (of(suffix), of(""))
}

/// A histogram, added up by bucket.
pub fn by_bucket(metric: &str, selector: &str) -> String {
    let (classic, native) = growth(metric, "_bucket", selector);
    format!("sum by (le) ({classic}) or sum({native})")
}

/// A quantile of a histogram, added up by the labels in `by`.
pub fn quantile(quantile: &str, metric: &str, selector: &str, by: &str) -> String {
    let (classic, native) = growth(metric, "_bucket", selector);
    let le = ["le", by]
        .map(str::trim)
        .into_iter()
        .filter(|labels| !labels.is_empty());
    let le = le.collect::<Vec<_>>().join(", ");
    let of =
        |labels: &str, growth: &str| format!("histogram_quantile({quantile}, sum by ({labels}) ({growth}))");
    format!("{} or {}", of(&le, &classic), of(by, &native))
}

/// How much of what a histogram measures comes in a second, by the labels in `by`.
pub fn sums(metric: &str, selector: &str, by: &str) -> String {
    let (classic, native) = growth(metric, "_sum", selector);
    format!("sum by ({by}) ({classic}) or sum by ({by}) (histogram_sum({native}))")
}

/// How often in a second, by the labels in `by`.
pub fn counts(metric: &str, selector: &str, by: &str) -> String {
    let (classic, native) = growth(metric, "_count", selector);
    format!("sum by ({by}) ({classic}) or sum by ({by}) (histogram_count({native}))")
}

impl Scope {
    /// The label matchers that the variables of this scope make.
    fn selector(self) -> String {
        let labels: &[&str] = match self {
            Self::Groups => &["cluster", "job", "instance", "unit", "comm"],
            Self::Host | Self::Fleet => &["cluster", "job", "instance"],
        };
        let matchers: Vec<String> = labels
            .iter()
            .map(|label| format!("{label}=~\"${label}\""))
            .collect();
        matchers.join(",")
    }
}
