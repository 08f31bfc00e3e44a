//! Writes the man pages and the shells' completions into a directory: `cargo run --example manual -- DIRECTORY`.
//!
//! From the same definition that the binary parses its arguments with. An example, so that the binary does not carry what
//! only packaging needs.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use probe_user::cli::args::Cli;

fn main() -> io::Result<()> {
    let directory = std::env::args_os()
        .nth(1)
        .map(PathBuf::from)
        .ok_or_else(|| io::Error::other("usage: manual DIRECTORY"))?;
    let (man, completions) = (directory.join("man"), directory.join("completions"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    let mut command = Cli::command();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, "procprobe", &completions)?;
    }
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    page(&command, &man)?;
    for verb in command.get_subcommands() {
        page(verb, &man)?;
    }
    Ok(())
}

/// One page. What `--help` ends with becomes sections of its own: filled as prose, examples would not be theirs any more.
fn page(command: &Command, directory: &Path) -> io::Result<()> {
    let name = command
        .get_display_name()
        .unwrap_or(command.get_name())
        .to_owned();
    let mut out = fs::File::create(directory.join(format!("{name}.1")))?;
    let man = Man::new(command.clone()).source(format!("procprobe {}", env!("CARGO_PKG_VERSION")));
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    man.render_options_section(&mut out)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut out)?;
    }
    let more = command
        .get_after_help()
        .map(ToString::to_string)
        .unwrap_or_default();
    let mut heading = ".SH NOTES";
    for block in more.split("\n\n").filter(|block| !block.trim().is_empty()) {
        if let Some(examples) = block.strip_prefix("Examples:\n") {
            writeln!(out, ".SH EXAMPLES\n.nf\n{}\n.fi", escaped(examples))?;
        } else {
            writeln!(out, "{heading}\n{}", escaped(block))?;
            heading = ".PP";
        }
    }
    if name != "procprobe" {
        writeln!(out, ".SH SEE ALSO\n.BR procprobe (1)")?;
    }
    Ok(())
}

/// Text that roff takes for text.
fn escaped(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let line = line.trim_start().replace('\\', "\\e").replace('-', "\\-");
        // A dot or quote at the beginning would be a request.
        if line.starts_with(['.', '\'']) {
            format!("\\&{line}")
        } else {
            line
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}
