//! `cargo xtask accuracy corpus`: `procprobe locks` against generated programs of which it is known what they
//! wait at, who may hold it, and whether they ever get on.
//!
//! The binary is a black box: what it says of the whole host in JSON is judged for every program that runs at
//! that moment. Programs that sleep play at the same time; one that takes the CPU plays alone.

mod answer;
mod judge;
mod matrix;
mod programs;
mod stage;
mod tally;
mod truth;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::AtomicBool,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::Value;

use crate::{
    agent::Examined,
    bench::{check, on_interrupt},
    environment,
    process::{self, say},
    record,
    workspace::Workspace,
};
use answer::Said;
use matrix::{Cell, Load, cells};
use programs::Programs;
use stage::{Beginning, Hogs, Scene};
use tally::Tally;

/// Where what was said of failing cells is left, in the directory of the programs.
const SAID: &str = "said.json";
/// How many sleeping programs play at the same time.
const TOGETHER: usize = 16;
/// From when the last one stands to the first look.
const SETTLE: Duration = Duration::from_millis(1500);
/// The same for what is alone and never stands still.
const SETTLE_HOT: Duration = Duration::from_millis(100);

#[derive(Args)]
pub struct Options {
    /// Looks at each cell
    #[arg(long, default_value_t = 10, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=40))]
    looks: u32,
    /// Only cells with that in their name, such as `musl/mutex` or `namespace`
    #[arg(long, value_name = "SUBSTRING")]
    only: Option<String>,
    /// The cells that `cargo xtask test` looks at
    #[arg(long)]
    short: bool,
    /// Name the cells, and do nothing
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    examined: Examined,
    /// Write the table into docs/verification.md
    #[arg(long)]
    record: bool,
}

impl Options {
    /// How to do the same again.
    fn command(&self) -> String {
        let only = self.only.as_ref().map(|only| format!(" --only {only}"));
        let short = if self.short { " --short" } else { "" };
        let only = only.unwrap_or_default();
        format!("cargo xtask accuracy corpus --looks {}{short}{only}", self.looks)
    }
}

/// The verb.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let mut cells = cells();
    cells.retain(|cell| !options.short || cell.is_short());
    if let Some(only) = &options.only {
        cells.retain(|cell| cell.name().contains(only));
    }
    if options.list {
        for cell in &cells {
            println!("{}", cell.name());
        }
        return Ok(());
    }
    ensure!(
        !cells.is_empty(),
        "no cell has that in its name: --list names them"
    );
    ensure!(
        process::is_root(),
        "the corpus loads eBPF programs: run it as root"
    );
    let binary = options.examined.binary(workspace)?;
    let interrupted = on_interrupt()?;
    let tally = play(workspace, &binary, &cells, options.looks, &interrupted)?;
    print!("{}", tally.text());
    if options.record {
        let (command, text) = (options.command(), tally.markdown());
        record::put(workspace, record::VERIFICATION, "corpus", &command, &text)?;
    }
    ensure!(
        tally.is_good(),
        "not everything that was said is right: see the table"
    );
    Ok(())
}

/// Some of the cells, one look each, for the test verb.
pub fn short(workspace: &Workspace) -> Result<()> {
    let mut cells = cells();
    cells.retain(Cell::is_short);
    // Whoever interrupts the tests ends all of them; the scenes end by themselves.
    let tally = play(
        workspace,
        &workspace.procprobe(),
        &cells,
        1,
        &AtomicBool::new(false),
    )?;
    eprint!("{}", tally.text());
    ensure!(
        tally.is_good(),
        "`procprobe locks` says something wrong of a program whose truth is known: see the table"
    );
    Ok(())
}

/// Plays all cells, and looks at them.
fn play(
    workspace: &Workspace,
    binary: &Path,
    cells: &[Cell],
    looks: u32,
    interrupted: &AtomicBool,
) -> Result<Tally> {
    let programs = Programs::new(workspace)?;
    let mut theatre = Theatre {
        binary: binary.to_owned(),
        programs,
        looks,
        tally: Tally::default(),
        said: BTreeMap::new(),
        interrupted,
    };
    for cell in cells {
        theatre.programs.make(cell.build)?;
    }
    say(&format!("{} cells, {looks} looks at each", cells.len()));
    for load in [Load::Idle, Load::Busy] {
        let of_load = cells.iter().filter(|cell| cell.load == load).copied();
        let (hot, quiet): (Vec<Cell>, Vec<Cell>) = of_load.partition(Cell::is_hot);
        for cells in quiet.chunks(TOGETHER) {
            theatre.act(cells, load, SETTLE)?;
        }
        for cell in hot {
            theatre.act(&[cell], load, SETTLE_HOT)?;
        }
    }
    theatre.leave()
}

/// Where cells are played, and what came of it.
struct Theatre<'a> {
    binary: PathBuf,
    programs: Programs,
    looks: u32,
    tally: Tally,
    /// By cell, what was said in the first look that was not right.
    said: BTreeMap<String, Value>,
    interrupted: &'a AtomicBool,
}

impl Theatre<'_> {
    /// Plays cells at the same time, and looks.
    fn act(&mut self, cells: &[Cell], load: Load, settle: Duration) -> Result<()> {
        check(self.interrupted)?;
        // Each time anew: they end by themselves.
        let _hogs = (load == Load::Busy)
            .then(|| Hogs::start(&self.programs))
            .transpose()?;
        let begun = cells.iter().map(|cell| Beginning::new(&self.programs, *cell));
        let begun: Vec<Beginning> = begun.collect::<Result<_>>()?;
        let stand = begun.into_iter().filter_map(|scene| scene.stand().transpose());
        let scenes: Vec<Scene> = stand.collect::<Result<_>>()?;
        if scenes.is_empty() {
            return Ok(());
        }
        thread::sleep(settle);
        for _ in 0..self.looks {
            check(self.interrupted)?;
            let said = self.look()?;
            for scene in &scenes {
                self.judge(scene, &said);
            }
        }
        Ok(())
    }

    fn look(&self) -> Result<Said> {
        let mut command = Command::new(&self.binary);
        environment::scrub(&mut command);
        command.args(["locks", "--for", "400ms", "-o", "json"]);
        Said::read(&process::output(&mut command)?)
    }

    fn judge(&mut self, scene: &Scene, said: &Said) {
        let name = scene.cell.name();
        if let Err(error) = scene.check() {
            self.tally.fault(&name, format!("{error:#}"));
            return;
        }
        let pids = scene.pids();
        let judgement = judge::judge(&scene.truth, &said.answer, &pids);
        if !judgement.is_right() && !self.said.contains_key(&name) {
            self.said.insert(name.clone(), said.about(&pids));
        }
        self.tally.add(&name, &judgement);
    }

    /// Leaves what was said of failing cells where it can be read.
    fn leave(self) -> Result<Tally> {
        let path = self.programs.file(SAID);
        let text = serde_json::to_string_pretty(&self.said).context("composing what was said")?;
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        if !self.said.is_empty() {
            let count = self.said.len();
            say(&format!("what was said of {count} cells: {}", path.display()));
        }
        Ok(self.tally)
    }
}
