//! What a program of the corpus says of itself: the lines described in `xtask/corpus/locks.c`.

use anyhow::{Context, Result, bail};

/// A kind that is not judged.
const ANY: &str = "any";

/// What there is to be told about a scene.
#[derive(Debug, Default, PartialEq)]
pub struct Truth {
    pub objects: Vec<Object>,
    pub expected: Expected,
    /// A thread that has ended with a lock whose memory names it.
    pub dead: Option<u32>,
}

/// Something that is waited at.
#[derive(Debug, PartialEq)]
pub struct Object {
    /// The name in the matrix, and what else is as right.
    pub kinds: Vec<String>,
    pub address: u64,
    /// 0: anywhere where no other object is.
    pub size: u64,
    pub contended: Contended,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Contended {
    Yes,
    No,
    /// Both are right, and so is to say nothing.
    Either,
}

/// Which word is due.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Expected {
    #[default]
    None,
    /// It does not get on, but that cannot be known: a stall is right, and so is nothing.
    Maybe,
    /// It can be known that it does not get on, but not who is to blame: a stall or a deadlock.
    Stall,
    Deadlock,
}

/// What a line means for who reads them.
#[derive(Debug, PartialEq)]
pub enum Line {
    More,
    Ready,
    /// This library does not have what was asked for.
    Without(String),
}

impl Truth {
    /// Takes in one line.
    pub fn read(&mut self, line: &str) -> Result<Line> {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match *words.as_slice() {
            ["ready"] => return Ok(Line::Ready),
            ["without", ..] => return Ok(Line::Without(words.get(1..).unwrap_or_default().join(" "))),
            ["object", kinds, address, size, contended] => {
                let object = Object::read(kinds, address, size, contended);
                self.objects
                    .push(object.with_context(|| format!("not an object: {line:?}"))?);
            }
            ["expect", what] => self.expected = expected(what)?,
            ["dead", tid] => self.dead = Some(tid.parse().context("reading the tid of the dead")?),
            _ => bail!("a program of the corpus said {line:?}"),
        }
        Ok(Line::More)
    }

    /// Of a program of Rust without symbols: a count may stand at any value that a lock waits for, so where
    /// nobody was ever seen to wake another, no kind is right as well; and a `Once` cannot be told at all.
    pub fn without_symbols(&mut self, protocol: &str) {
        for object in &mut self.objects {
            object.kinds.push("unknown".to_owned());
            if protocol == "once" {
                object.kinds.push("condvar".to_owned());
                object.contended = Contended::Either;
            }
        }
    }

    /// What is at an address.
    pub fn at(&self, address: u64) -> Option<&Object> {
        let there = self.objects.iter().find(|object| object.covers(address));
        there.or_else(|| self.objects.iter().find(|object| object.size == 0))
    }
}

impl Object {
    fn read(kinds: &str, address: &str, size: &str, contended: &str) -> Option<Self> {
        Some(Self {
            kinds: kinds.split('|').map(str::to_owned).collect(),
            address: u64::from_str_radix(address.trim_start_matches("0x"), 16).ok()?,
            size: size.parse().ok()?,
            contended: match contended {
                "contended" => Contended::Yes,
                "idle" => Contended::No,
                "either" => Contended::Either,
                _ => return None,
            },
        })
    }

    fn covers(&self, address: u64) -> bool {
        (self.address..self.address.saturating_add(self.size)).contains(&address)
    }

    pub fn name(&self) -> &str {
        self.kinds.first().map_or(ANY, String::as_str)
    }

    pub fn is_judged(&self) -> bool {
        self.name() != ANY
    }

    pub fn is(&self, kind: &str) -> bool {
        self.kinds.iter().any(|right| right == kind)
    }
}

fn expected(word: &str) -> Result<Expected> {
    Ok(match word {
        "none" => Expected::None,
        "maybe" => Expected::Maybe,
        "stall" => Expected::Stall,
        "deadlock" => Expected::Deadlock,
        other => bail!("{other:?} cannot be expected"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_a_truth() {
        let mut truth = Truth::default();
        for line in [
            "object semaphore|mutex 0x10 8 contended",
            "object condvar 0 0 idle",
            "dead 7",
            "expect deadlock",
        ] {
            assert_eq!(truth.read(line).unwrap(), Line::More);
        }
        assert_eq!(truth.read("ready").unwrap(), Line::Ready);
        assert_eq!(
            truth.read("without a thing").unwrap(),
            Line::Without("a thing".into())
        );
        assert_eq!((truth.dead, truth.expected), (Some(7), Expected::Deadlock));
        assert_eq!(truth.at(0x17).unwrap().name(), "semaphore");
        assert!(truth.at(0x17).unwrap().is("mutex"));
        assert_eq!(truth.at(0x18).unwrap().name(), "condvar");
        assert!(truth.read("object x").is_err());
        assert!(truth.read("expect rain").is_err());
    }
}
