//! Which checks there are, and running them in turn.

use anyhow::{Error, Result};

use crate::{agent, life, look, refused, suspend, window};

/// A name for the table, and what it stands for.
type Check = (&'static str, fn() -> Result<()>);

/// On a kernel that procprobe supports.
const SUPPORTED: [Check; 10] = [
    ("doctor", look::doctor),
    ("tree", look::tree),
    ("every pid", look::every_pid),
    ("zombies", look::zombies),
    ("switches", window::switches),
    ("sums", window::sums),
    ("events", life::events),
    ("metrics", life::metrics),
    ("suspend", suspend::the_machine_sleeps),
    ("unloaded", life::unloaded),
];
/// On one that it does not.
const REFUSED: [Check; 2] = [("refusal", refused::tree), ("proc source", refused::proc_source)];
/// Beside the others, when the host asked for lockdown: that there is any.
const LOCKDOWN: Check = ("lockdown", look::locked_down);

/// The longest reason that is printed.
const LONGEST: usize = 1000;

/// The command line's words for a guest that only shows that it boots, and one whose kernel is too old.
const TRIAL: &str = "procprobe.trial";
const TOO_OLD: &str = "procprobe.refused";

fn asked(command_line: &str, word: &str) -> bool {
    command_line.split_whitespace().any(|part| part == word)
}

/// Whether there is nothing to test beside the checks.
pub fn only(command_line: &str) -> bool {
    asked(command_line, TRIAL) || asked(command_line, TOO_OLD)
}

/// Runs what the kernel's command line asks for; true if all passed.
pub fn run_all(command_line: &str) -> bool {
    let mut checks = if asked(command_line, TRIAL) {
        Vec::new()
    } else if asked(command_line, TOO_OLD) {
        REFUSED.to_vec()
    } else {
        SUPPORTED.to_vec()
    };
    if asked(command_line, "lockdown=confidentiality") {
        checks.push(LOCKDOWN);
    }
    let names: Vec<&str> = checks.iter().map(|(name, _)| *name).collect();
    println!("plan: {}", names.join(","));
    let mut passed = true;
    for (name, check) in checks {
        match check() {
            Ok(()) => println!("check: {name}: ok"),
            Err(error) => {
                println!("check: {name}: FAILED {}", one_line(&error));
                passed = false;
                explain(name);
            }
        }
    }
    passed
}

fn one_line(error: &Error) -> String {
    let mut line = format!("{error:#}").replace(['\n', '\r'], "; ");
    if let Some((end, _)) = line.char_indices().nth(LONGEST) {
        line.truncate(end);
    }
    line
}

/// What the programs' refusal was about: the whole of the verifier's log goes to the transcript, once.
fn explain(name: &str) {
    if name != "doctor" {
        return;
    }
    if let Ok(finished) = agent::run(&["-v", "doctor"]) {
        println!("{}{}", finished.stderr, finished.stdout);
    }
}
