//! What is wrong with a file, on one line: where, what, and what to do.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::model::escape;

/// What is wrong with a file.
#[derive(Debug)]
pub struct Complaint {
    path: PathBuf,
    line: Option<u64>,
    what: String,
}

impl std::error::Error for Complaint {}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, " line {line}")?;
        }
        write!(f, ": {}", self.what)
    }
}

impl Complaint {
    /// About a file as a whole.
    pub fn about(path: &Path, what: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line: None,
            what: one_line(&what.into()),
        }
    }

    /// About a line of it.
    pub fn at(path: &Path, line: u64, what: impl Into<String>) -> Self {
        Self {
            line: Some(line),
            ..Self::about(path, what)
        }
    }

    /// About a key that there is not.
    pub fn unknown(path: &Path, line: Option<u64>, key: &str, known: &[&str]) -> Self {
        Self {
            line,
            ..Self::about(path, format!("unknown key {key} ({})", hint(key, known)))
        }
    }
}

/// Fit for a terminal: what a file has in it is part of the text.
fn one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    escape(lines.collect::<Vec<_>>().join(", ").as_bytes())
}

/// What to take in place of a name that there is not.
pub fn hint(name: &str, known: &[&str]) -> String {
    match nearest(name, known) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("there are: {}", known.join(", ")),
    }
}

/// The known name that a mistyped one is most like; `None` if it is like none.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let likeness = |candidate: &str| strsim::jaro_winkler(name, candidate);
    let best = known
        .iter()
        .copied()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(best) > 0.75).then_some(best)
}

/// The key and the known ones in serde's "unknown field `x`, expected one of `a`, `b`"; `None` for other messages.
pub fn unknown_field(message: &str) -> Option<(&str, Vec<&str>)> {
    let mut quoted = message
        .strip_prefix("unknown field ")?
        .split('`')
        .skip(1)
        .step_by(2);
    Some((quoted.next()?, quoted.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_key_gets_the_nearest_name() {
        let known = ["listen", "max_groups", "retention"];
        assert_eq!(nearest("listn", &known), Some("listen"));
        assert_eq!(nearest("max-groups", &known), Some("max_groups"));
        assert_eq!(nearest("colour", &known), None);
        let complaint = Complaint::unknown(Path::new("/x"), Some(3), "colour", &known);
        assert_eq!(
            complaint.to_string(),
            "/x line 3: unknown key colour (there are: listen, max_groups, retention)"
        );
    }

    #[test]
    fn serdes_words_are_understood() {
        assert_eq!(
            unknown_field("unknown field `b`, expected one of `a`, `c`"),
            Some(("b", vec!["a", "c"]))
        );
        assert_eq!(
            unknown_field("unknown field `b`, expected `a`"),
            Some(("b", vec!["a"]))
        );
        assert_eq!(unknown_field("missing field `b`"), None);
    }
}
