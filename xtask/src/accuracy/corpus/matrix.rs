//! The cells: which scene, by which library, in which place, under which load.

use super::programs::{BUILDS, Build, Language};

/// A program in a scene.
#[derive(Clone, Copy)]
pub struct Cell {
    pub build: &'static Build,
    pub protocol: &'static str,
    pub scene: &'static str,
    pub place: Place,
    pub load: Load,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Place {
    Host,
    /// A pid namespace of its own, with enough threads that small numbers are tids.
    Namespace,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Load {
    Idle,
    Busy,
}

/// Scenes of a language: a protocol with its scenes.
type Scenes = &'static [(&'static str, &'static [&'static str])];

const C: Scenes = &[
    (
        "mutex",
        &[
            "short", "brief", "long", "abba", "ticks", "self", "ended", "forked", "killed", "shm", "stopped",
            "twons",
        ],
    ),
    (
        "errorcheck",
        &[
            "brief", "long", "abba", "ended", "forked", "killed", "shm", "stopped",
        ],
    ),
    ("recursive", &["brief", "long", "abba", "ended"]),
    (
        "adaptive",
        &["short", "brief", "long", "abba", "self", "ended", "forked"],
    ),
    ("robust", &["brief", "long", "abba", "self", "stopped", "twons"]),
    ("pi", &["brief", "long", "abba", "self", "stopped"]),
    ("protect", &["long", "abba"]),
    (
        "rwlock",
        &[
            "long", "readers", "abba", "reread", "ended", "forked", "shm", "stopped",
        ],
    ),
    (
        "sem",
        &[
            "long", "brief", "idle", "abba", "ticks", "self", "ended", "forked", "killed", "stopped",
        ],
    ),
    ("cond", &["idle", "still", "herd", "pingpong"]),
    ("barrier", &["idle"]),
    ("join", &["idle", "ring"]),
    ("once", &["behind", "abba", "self"]),
    ("stdio", &["long", "abba"]),
    ("arena", &["short"]),
];

/// What is asked of a library that differs little from one of which all is asked.
const FEW: [&str; 8] = [
    "mutex", "rwlock", "sem", "cond", "barrier", "join", "once", "arena",
];

const CXX: Scenes = &[
    ("mutex", &["brief", "long"]),
    ("shared", &["long"]),
    ("binary", &["brief", "long", "abba"]),
    ("semaphore", &["long", "idle"]),
    ("cond", &["idle"]),
    ("atomic", &["idle"]),
    ("barrier", &["idle"]),
    ("latch", &["idle"]),
    ("static", &["behind", "abba"]),
];

const RUST: Scenes = &[
    ("mutex", &["short", "brief", "long", "abba", "ticks"]),
    ("rwlock", &["long", "readers"]),
    ("cond", &["idle"]),
    ("barrier", &["idle"]),
    ("channel", &["idle"]),
    ("park", &["idle"]),
    ("once", &["behind", "self"]),
];

const PYTHON: Scenes = &[("lock", &["long", "ticks", "idle"]), ("process", &["long"])];

/// Of these, what is asked in a namespace: all that could be taken for a tid there.
const IN_NAMESPACE: [&str; 6] = ["mutex", "pi", "rwlock", "sem", "cond", "lock"];
/// Libraries that are seen in every place and under every load.
const EVERYWHERE: [&str; 4] = ["glibc", "musl-static", "rust", "python"];
/// Scenes that a busy machine could make look different.
const SHIFTING: [&str; 6] = ["short", "brief", "long", "idle", "herd", "readers"];

/// The cells of the short form, by the beginning of their names.
const SHORT: [&str; 31] = [
    "glibc/mutex/short/host/idle",
    "glibc/mutex/brief/host/busy",
    "glibc/arena/short",
    "glibc/mutex/abba/host",
    "glibc/mutex/ended/host",
    "glibc/mutex/forked",
    "glibc/mutex/shm",
    "glibc/mutex/twons",
    "glibc/mutex/stopped",
    "glibc/pi/self/host",
    "glibc/protect/abba",
    "glibc/rwlock/readers/host/idle",
    "glibc/rwlock/abba/host",
    "glibc/cond/herd/host/idle",
    "glibc/cond/pingpong/host",
    "glibc/join/ring",
    "glibc/once/abba",
    "glibc-32/sem/abba",
    "glibc-static-stripped/mutex/long",
    "musl/join/idle",
    "musl-static/mutex/brief/namespace/idle",
    "musl-static/mutex/long/namespace/idle",
    "musl-static-stripped/mutex/long",
    "c++20/atomic",
    "c++20/static",
    "c++20/barrier",
    "c++20/binary/long",
    "rust/mutex/long/host/idle",
    "rust/mutex/short/host/idle",
    "rust/once/self",
    "python/lock/long/host/idle",
];

impl Cell {
    /// What it is called: library, protocol, scene, place, load.
    pub fn name(&self) -> String {
        let Self {
            build,
            protocol,
            scene,
            ..
        } = self;
        let place = match self.place {
            Place::Host => "host",
            Place::Namespace => "namespace",
        };
        let load = match self.load {
            Load::Idle => "idle",
            Load::Busy => "busy",
        };
        format!("{}/{protocol}/{scene}/{place}/{load}", build.name)
    }

    /// Whether it takes the CPU, so that it must be alone.
    pub fn is_hot(&self) -> bool {
        ["short", "brief", "pingpong"].contains(&self.scene)
    }

    pub fn is_short(&self) -> bool {
        let name = self.name();
        SHORT.iter().any(|beginning| name.starts_with(beginning))
    }

    /// Whether anything is to be learnt from this combination.
    fn is_worthwhile(&self) -> bool {
        let everywhere = EVERYWHERE.contains(&self.build.name);
        let placed = match self.place {
            Place::Host => true,
            // Of `twons` each process has a namespace anyway.
            Place::Namespace => everywhere && IN_NAMESPACE.contains(&self.protocol) && self.scene != "twons",
        };
        let loaded = match self.load {
            Load::Idle => true,
            Load::Busy => everywhere && self.place == Place::Host && SHIFTING.contains(&self.scene),
        };
        // Without any symbol there is nothing that tells an initialiser from a thread that is parked.
        let visible = self.protocol != "once" || !self.build.name.ends_with("static-stripped");
        visible && placed && loaded && (self.build.whole || FEW.contains(&self.protocol))
    }
}

fn scenes(language: Language) -> Scenes {
    match language {
        Language::C => C,
        Language::Cxx => CXX,
        Language::Rust => RUST,
        Language::Python => PYTHON,
    }
}

/// All of them.
pub fn cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    for build in &BUILDS {
        for (protocol, scenes) in scenes(build.language) {
            for scene in *scenes {
                for place in [Place::Host, Place::Namespace] {
                    for load in [Load::Idle, Load::Busy] {
                        cells.push(Cell {
                            build,
                            protocol,
                            scene,
                            place,
                            load,
                        });
                    }
                }
            }
        }
    }
    cells.retain(Cell::is_worthwhile);
    cells
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn every_line_of_the_short_form_names_a_cell() {
        let names: Vec<String> = cells().iter().map(Cell::name).collect();
        for beginning in SHORT {
            assert!(
                names.iter().any(|name| name.starts_with(beginning)),
                "{beginning}"
            );
        }
        let short = cells().iter().filter(|cell| cell.is_short()).count();
        assert!((SHORT.len()..SHORT.len() + 10).contains(&short), "{short}");
    }

    /// The table of known ways to be wrong in docs/verification.md names cells and tests that exist.
    #[test]
    fn what_holds_the_right_answers_exists() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let page = fs::read_to_string(root.join("docs/verification.md")).unwrap();
        let table = page.split_once("<!-- begin: wrongs -->").unwrap().1;
        let table = table.split_once("<!-- end: wrongs -->").unwrap().0;
        let held_by = table.lines().filter_map(|line| line.rsplit(" | ").next());
        let named: Vec<&str> = held_by
            .flat_map(|cell| cell.split('`').skip(1).step_by(2))
            .collect();
        assert!(named.len() > 60, "{named:?}");
        let cells: Vec<String> = cells().iter().map(Cell::name).collect();
        let mut sources = String::new();
        read_all(&root.join("probe-user/src"), &mut sources);
        read_all(&root.join("probe-user/tests"), &mut sources);
        for name in named {
            let exists = if name.contains('/') {
                cells.iter().any(|cell| cell.starts_with(&format!("{name}/")))
            } else {
                sources.contains(&format!("fn {name}()"))
            };
            assert!(exists, "{name}");
        }
    }

    fn read_all(directory: &Path, into: &mut String) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                read_all(&path, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                into.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<String> = cells().iter().map(Cell::name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
