//! Reads the text that `/metrics` serves, strictly: what it cannot read is a failure.

use std::collections::{BTreeMap, BTreeSet};

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Name, with `_bucket`, `_sum` or `_count` for a histogram.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Value.
    pub value: f64,
}

/// One scrape.
pub struct Exposition {
    /// All samples.
    pub samples: Vec<Sample>,
    /// Type by family.
    pub types: BTreeMap<String, String>,
}

impl Exposition {
    /// Reads a scrape.
    ///
    /// # Panics
    /// At a line that does not follow the format.
    pub fn parse(text: &str) -> Self {
        let mut samples = Vec::new();
        let mut types = BTreeMap::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a name and a type");
                assert!(
                    types.insert(name.to_owned(), kind.to_owned()).is_none(),
                    "{name} comes twice"
                );
            } else if !line.starts_with('#') {
                samples.push(sample(line).unwrap_or_else(|| panic!("not a sample: {line:?}")));
            }
        }
        Self { samples, types }
    }

    /// Samples with a name and at least these labels; one that is missing is empty, as to Prometheus.
    pub fn select<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Sample> {
        let has = |sample: &Sample| {
            labels
                .iter()
                .all(|(key, value)| sample.labels.get(*key).map_or("", String::as_str) == *value)
        };
        self.samples
            .iter()
            .filter(move |sample| sample.name == name && has(sample))
    }

    /// Their sum; 0 if there are none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.select(name, labels).map(|sample| sample.value).sum()
    }

    /// The same as a count.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counters hold whole numbers here"
    )]
    pub fn count(&self, name: &str) -> u64 {
        assert!(self.select(name, &[]).next().is_some(), "no {name}");
        self.sum(name, &[]) as u64
    }

    /// Label names by family, without the `le` of buckets.
    pub fn labels(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for sample in &self.samples {
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| {
                    sample
                        .name
                        .strip_suffix(end)
                        .filter(|name| self.types.contains_key(*name))
                })
                .unwrap_or(&sample.name);
            let labels = all.entry(family.to_owned()).or_default();
            labels.extend(sample.labels.keys().filter(|key| *key != "le").cloned());
        }
        all
    }
}

fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (key, quoted) = rest.split_once("=\"")?;
            let (value, after) = unquote(quoted)?;
            assert!(
                labels.insert(key.to_owned(), value).is_none(),
                "{key} comes twice: {line}"
            );
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ')?.parse().ok()?;
    Some(Sample {
        name: name.to_owned(),
        labels,
        value,
    })
}

/// A label's value up to its closing quote, and what follows that.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((position, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[position + 1..])),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
    None
}

#[test]
fn samples_are_read_with_whatever_their_labels_hold() {
    let text = "# TYPE a counter\na{x=\"} \\\"\\\\\\n,=\",y=\"\"} 12\nb 0.5\n";
    let read = Exposition::parse(text);
    assert_eq!(read.samples[0].labels["x"], "} \"\\\n,=");
    assert!((read.sum("a", &[("y", "")]) - 12.0).abs() < f64::EPSILON);
    assert!((read.sum("b", &[]) - 0.5).abs() < f64::EPSILON);
}
