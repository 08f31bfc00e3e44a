//! Checks for kernels that lack what the programs need: it is said in one line, and /proc is still there.

use anyhow::{Result, ensure};

use crate::{agent, look};

/// What every refusal offers.
const OFFER: &str = "--source proc works without";

/// One line that names what is missing, exit code 1.
pub fn tree() -> Result<()> {
    let finished = agent::run(&["tree"])?;
    println!("{}", finished.stderr.trim());
    let said = &finished.stderr;
    let code = finished.status.code();
    ensure!(code == Some(1), "{}: {said}", finished.status);
    ensure!(finished.stdout.is_empty(), "printed: {}", finished.stdout);
    ensure!(said.trim().lines().count() == 1, "not one line: {said}");
    ensure!(said.contains("cannot use this kernel: this kernel"), "{said}");
    ensure!(said.contains(OFFER), "offers no way out: {said}");
    Ok(())
}

/// The tree from /proc.
pub fn proc_source() -> Result<()> {
    let answer = agent::json(&["tree", "--source", "proc"])?;
    let init = look::process(&answer, 1)?;
    ensure!(init["comm"] == "init", "pid 1 is {init}");
    Ok(())
}
