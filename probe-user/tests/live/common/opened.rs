//! Which files a process opened, as strace saw it, held against what SECURITY.md says of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use regex::Regex;

const SECURITY: &str = include_str!("../../../../SECURITY.md");

/// `strace`, following the program that comes behind it and all it starts, into a file.
pub fn traced(strace: &Path, into: &Path) -> Command {
    let mut command = Command::new(strace);
    // With the filter only these calls stop; -y tells what a descriptor is.
    command
        .args(["-f", "-qq", "-y", "--seccomp-bpf", "-e", "signal=none"])
        .args(["-e", "trace=execve,open,openat,openat2,creat"])
        .arg("-o")
        .arg(into);
    command
}

/// The paths of SECURITY.md's list: `N` stands for a number, `*` for a name, `**` for names.
///
/// # Panics
/// If there is no list.
pub fn listed() -> Vec<Regex> {
    let list = SECURITY
        .split("```files\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    let lines = list.expect("SECURITY.md lists the files that are opened").lines();
    let patterns = lines.filter_map(|line| line.split_whitespace().next());
    patterns.map(pattern).collect()
}

fn pattern(path: &str) -> Regex {
    let parts = path.split('/').map(|part| match part {
        "N" => "[0-9]+".to_owned(),
        "**" => ".*".to_owned(),
        part => regex::escape(part).replace(r"\*", "[^/]*"),
    });
    let parts: Vec<String> = parts.collect();
    Regex::new(&format!("^{}$", parts.join("/"))).expect("a pattern")
}

/// One file that was opened.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Opened {
    /// As it was asked for.
    pub asked: String,
    /// What the descriptor was, as the kernel calls it.
    pub got: String,
    /// Whether it could be read or written: `O_PATH` only finds it.
    pub usable: bool,
    /// Whether it was looked up below a process's root.
    pub in_root: bool,
}

/// What was opened, and how often.
///
/// # Panics
/// If there is no such log.
pub fn opened(log: &Path) -> BTreeMap<Opened, u64> {
    let text = String::from_utf8_lossy(&std::fs::read(log).expect("what strace saw")).into_owned();
    let line = Regex::new(
        r#"open(?:at2?)?\((?:AT_FDCWD<[^>]*>, |[0-9]+<[^>]*>, |)"((?:[^"\\]|\\.)*)", (.*)\) += [0-9]+<(.*)>$"#,
    );
    let line = line.expect("a pattern");
    let mut found = BTreeMap::new();
    // What runs before it becomes the agent is no part of it.
    let begins = Regex::new(r#"execve\("[^"]*/procprobe", "#).expect("a pattern");
    let of_agent = |text: &&str| begins.is_match(text);
    let lines = text.lines().skip_while(|text| !of_agent(text));
    for found_line in lines.filter_map(|text| line.captures(text)) {
        let opened = Opened {
            asked: found_line[1].to_owned(),
            got: found_line[3].to_owned(),
            usable: !found_line[2].contains("O_PATH"),
            in_root: found_line[2].contains("RESOLVE_IN_ROOT"),
        };
        *found.entry(opened).or_default() += 1;
    }
    found
}
