//! pid 1 of the guests that `cargo xtask vm test` boots: mounts, runs the checks, says how they went, powers off.
//!
//! Static, so that the checks need nothing but the kernel and the agent. It speaks to the host in lines on the console:
//! `plan: NAME …`, one `check: NAME ok` or `check: NAME FAILED reason` each, how the live tests went if they are in the
//! initramfs (`live.rs`), and `verdict: success` or `verdict: failure` at the end. What the checks watch is this binary
//! too, started again as an actor.

mod actors;
mod agent;
mod checks;
mod guest;
mod hold;
mod life;
mod live;
mod look;
mod refused;
mod suspend;
mod window;

use std::env;
use std::os::fd::OwnedFd;
use std::process::{self, ExitCode};

use anyhow::Result;

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    match arguments.next() {
        Some(actor) if process::id() != 1 => actors::run(&actor, arguments.next().as_deref()),
        _ if process::id() != 1 => {
            eprintln!("guest-init is pid 1 of a guest of `cargo xtask vm test`, and nothing elsewhere");
            ExitCode::FAILURE
        }
        _ => boot(),
    }
}

fn boot() -> ExitCode {
    // Before anything else: the host boots again if the kernel did not get here.
    println!("init: started");
    let passed = match prepare() {
        Ok(held) => {
            let passed = run(&guest::command_line());
            drop(held);
            passed
        }
        Err(error) => {
            println!("init: {error:#}");
            false
        }
    };
    println!("verdict: {}", if passed { "success" } else { "failure" });
    guest::power_off()
}

/// The guest as the checks want it; the host boots it with one CPU. What is returned is to be kept until the end.
fn prepare() -> Result<Vec<OwnedFd>> {
    guest::prepare()?;
    let held = hold::all()?;
    guest::all_cpus()?;
    Ok(held)
}

/// The checks, and then the tests, whatever became of the checks.
fn run(command_line: &str) -> bool {
    let checked = checks::run_all(command_line);
    let tested = checks::only(command_line) || live::run_all();
    checked && tested
}
