//! A panel: a question, the query that answers it, its unit, and what to do about the answer.

use super::board::Scope;

/// How a panel shows its data.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Stat,
    Series,
    Table,
    Heatmap,
}

/// From which value on a panel warns.
#[derive(Clone, Copy)]
pub(super) struct Step {
    pub(super) from: f64,
    pub(super) color: &'static str,
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

    /// Warns from this value on: the panel, or the table's last column.
    pub fn warn(self, from: f64) -> Self {
        self.step(from, "orange")
    }

    /// Alarms from this value on.
    pub fn alarm(self, from: f64) -> Self {
        self.step(from, "red")
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
        // Durations of units have no process name; those of a group are of the one that was chosen.
        .replace("UNIT", r#"instance=~"$instance",unit=~"$unit",comm=~"|$comm""#)
        .replace("HOST", &Scope::Host.selector())
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
            Self::Groups => &["instance", "unit", "comm"],
            Self::Host | Self::Fleet => &["instance"],
        };
        let matchers: Vec<String> = labels
            .iter()
            .map(|label| format!("{label}=~\"${label}\""))
            .collect();
        matchers.join(",")
    }
}
