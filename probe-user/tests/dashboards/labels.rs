//! Which labels the result of an expression has, from those of the metrics in it; and that everything it mentions is there.

use std::collections::{BTreeMap, BTreeSet};

use promql_parser::label::Matcher;
use promql_parser::parser::{AggregateExpr, BinaryExpr, Call, Expr, LabelModifier, VectorSelector, token};

/// Label names.
pub type Labels = BTreeSet<String>;

/// The metrics there are, with their labels.
pub struct Known {
    /// By name.
    pub metrics: BTreeMap<String, Labels>,
    /// Values of labels, where there is a list of them.
    pub values: BTreeMap<&'static str, BTreeSet<String>>,
    /// Metrics that Prometheus may store as native histograms: under their own names, without buckets.
    pub histograms: BTreeSet<String>,
}

impl Known {
    /// The labels of an expression's result.
    pub fn labels(&self, expression: &Expr) -> Result<Labels, String> {
        match expression {
            Expr::Aggregate(aggregate) => self.aggregate(aggregate),
            Expr::Unary(unary) => self.labels(&unary.expr),
            Expr::Binary(binary) => self.binary(binary),
            Expr::Paren(paren) => self.labels(&paren.expr),
            Expr::Subquery(subquery) => self.labels(&subquery.expr),
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) => Ok(Labels::new()),
            Expr::VectorSelector(selector) => self.selector(selector),
            Expr::MatrixSelector(matrix) => self.selector(&matrix.vs),
            Expr::Call(call) => self.call(call),
            Expr::Extension(_) => Err("an extension".to_owned()),
        }
    }

    fn selector(&self, selector: &VectorSelector) -> Result<Labels, String> {
        let name = selector.name.as_ref().ok_or("a selector without a name")?;
        let labels = self.metrics.get(name).ok_or(format!("no metric {name}"))?;
        for matcher in &selector.matchers.matchers {
            if !labels.contains(&matcher.name) {
                return Err(format!("{name} has no label {}", matcher.name));
            }
            self.check_values(name, matcher)?;
        }
        Ok(labels.clone())
    }

    /// A list of alternatives names values that there are.
    fn check_values(&self, name: &str, matcher: &Matcher) -> Result<(), String> {
        let Some(values) = self.values.get(matcher.name.as_str()) else {
            return Ok(());
        };
        let is_known = |value: &str| values.contains(value) || value.contains(['.', '*']);
        match matcher.value.split('|').find(|value| !is_known(value)) {
            Some(value) => Err(format!("{name}: {} is never {value:?}", matcher.name)),
            None => Ok(()),
        }
    }

    fn aggregate(&self, aggregate: &AggregateExpr) -> Result<Labels, String> {
        let inner = self.labels(&aggregate.expr)?;
        let keeps_all = [token::T_TOPK, token::T_BOTTOMK].contains(&aggregate.op.id());
        match &aggregate.modifier {
            None if keeps_all => Ok(inner),
            None => Ok(Labels::new()),
            Some(modifier) => {
                let named = named(modifier, &inner)?;
                let kept = if modifier.is_include() {
                    named
                } else {
                    &inner - &named
                };
                Ok(if keeps_all { inner } else { kept })
            }
        }
    }

    fn binary(&self, binary: &BinaryExpr) -> Result<Labels, String> {
        let (left, right) = (self.labels(&binary.lhs)?, self.labels(&binary.rhs)?);
        if let Some(matching) = binary
            .modifier
            .as_ref()
            .and_then(|modifier| modifier.matching.as_ref())
        {
            named(matching, &(&left | &right))?;
            if matching.is_include() {
                named(matching, &left)?;
                named(matching, &right)?;
            } else {
                same(&without(&left, matching), &without(&right, matching))?;
            }
            let is_set = [token::T_LAND, token::T_LOR, token::T_LUNLESS].contains(&binary.op.id());
            return Ok(if is_set || matching.is_include() {
                left
            } else {
                without(&left, matching)
            });
        }
        let scalar = |side: &Expr| side.value_type() == promql_parser::parser::value::ValueType::Scalar;
        // `or` of unlike sides is how a default is written; all else needs equal labels to find its partner.
        if scalar(&binary.lhs) {
            return Ok(right);
        }
        if !scalar(&binary.rhs) && binary.op.id() != token::T_LOR {
            same(&left, &right)?;
        }
        Ok(left)
    }

    /// Whether it asks for a histogram by its own name.
    fn is_native(&self, call: &Call) -> bool {
        let asked = call.args.args.iter().map(ToString::to_string);
        let asked = asked.collect::<String>();
        let names = |name: &String| asked.contains(&format!("{name}{{"));
        self.histograms.iter().any(names)
    }

    fn call(&self, call: &Call) -> Result<Labels, String> {
        let mut labels = Labels::new();
        for argument in &call.args.args {
            labels.extend(self.labels(argument)?);
        }
        // The label that is made, and of a whole selector that finds nothing: nothing.
        match (call.func.name, call.args.args.get(1).map(AsRef::as_ref)) {
            ("label_join" | "label_replace", Some(Expr::StringLiteral(made))) => {
                made_of(call, &labels)?;
                labels.insert(made.val.clone());
            }
            ("absent", _) => labels.clear(),
            _ => {}
        }
        let of_histogram =
            ["histogram_quantile", "histogram_sum", "histogram_count"].contains(&call.func.name);
        if of_histogram && !labels.remove("le") && !self.is_native(call) {
            return Err(format!("{} of something without buckets", call.func.name));
        }
        Ok(labels)
    }
}

/// Whether the labels are there that another one is made of.
fn made_of(call: &Call, there: &Labels) -> Result<(), String> {
    let named = call.args.args.iter().skip(3).map(AsRef::as_ref);
    let named = named.filter_map(|argument| match argument {
        Expr::StringLiteral(label) => Some(label.val.as_str()),
        _ => None,
    });
    // What stands last in a replacement is the pattern.
    let count = if call.func.name == "label_replace" {
        1
    } else {
        usize::MAX
    };
    match named.take(count).find(|label| !there.contains(*label)) {
        Some(missing) => Err(format!("no label {missing} to make another of")),
        None => Ok(()),
    }
}

/// The labels of a clause, all of which have to be there.
fn named(modifier: &LabelModifier, there: &Labels) -> Result<Labels, String> {
    let named: Labels = modifier.labels().labels.iter().cloned().collect();
    match named.difference(there).next() {
        Some(missing) => Err(format!("no label {missing} to group or match by")),
        None => Ok(named),
    }
}

fn without(labels: &Labels, modifier: &LabelModifier) -> Labels {
    labels - &modifier.labels().labels.iter().cloned().collect()
}

fn same(left: &Labels, right: &Labels) -> Result<(), String> {
    if left == right {
        return Ok(());
    }
    Err(format!("{left:?} never matches {right:?}"))
}
