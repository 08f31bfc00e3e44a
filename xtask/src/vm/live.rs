//! The live tests (`probe-user/tests/live`) for the guests: the very programs that run on this host, and what they find there.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::{
    accel::Accelerator,
    plan::{Plan, Tests, WITHOUT},
};
use crate::{build, process, workspace::Workspace};

/// How much longer the tests wait where QEMU translates; nothing that they assert changes.
const SLOW: u32 = 10;

/// The programs, and what is to be done with them.
pub struct Live {
    pub programs: Programs,
    pub plan: Plan,
    pub accelerator: Accelerator,
}

impl Live {
    /// Builds the programs and decides; `None` if nothing is wanted.
    pub fn prepare(
        workspace: &Workspace,
        tests: Tests,
        only: &[String],
        accelerator: Accelerator,
    ) -> Result<Option<Self>> {
        if tests == Tests::None {
            return Ok(None);
        }
        let programs = Programs::build(workspace)?;
        let plan = Plan::make(&programs.tests()?, tests, only)?;
        Ok(Some(Self {
            programs,
            plan,
            accelerator,
        }))
    }

    /// A variable per line, for the tests.
    pub fn environment(&self) -> String {
        let slow = match self.accelerator {
            Accelerator::Tcg => format!("PROCPROBE_SLOW={SLOW}\n"),
            Accelerator::Kvm => String::new(),
        };
        format!(
            "PATH=/usr/bin:/usr/sbin:/bin:/sbin\nHOME=/\nPROCPROBE_BIN=/procprobe\nPROCPROBE_LIVE=required\n\
             PROCPROBE_MAY_SET_CLOCK=1\nPROCPROBE_WITHOUT={}\n{slow}",
            WITHOUT.join(",")
        )
    }
}

/// The test program, and the scenes it starts by the path that it was built with.
pub struct Programs {
    pub live: PathBuf,
    pub workload: PathBuf,
}

/// What cargo says of something it built.
#[derive(Deserialize)]
struct Artifact {
    target: Target,
    profile: Profile,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

#[derive(Deserialize)]
struct Profile {
    /// Whether it is a program of tests: of a binary there is one, too.
    test: bool,
}

impl Programs {
    /// As `cargo xtask test` does, so that what it built is not built again.
    fn build(workspace: &Workspace) -> Result<Self> {
        let mut cargo = workspace.cargo();
        cargo
            .args(["test", "--quiet", "--workspace", "--lib", "--bins", "--tests"])
            .args(["--no-run", "--message-format=json-render-diagnostics"])
            .env(build::OBJECT_ENV, workspace.bpf_object());
        let said = process::output(&mut cargo).context("building the live tests")?;
        let program = |name: &str, test: bool| {
            executable(&said, name, test).with_context(|| format!("cargo built no {name}"))
        };
        Ok(Self {
            live: program("live", true)?,
            workload: program("probe-workload", false)?,
        })
    }

    /// The names of all tests.
    fn tests(&self) -> Result<Vec<String>> {
        let said =
            process::output(Command::new(&self.live).arg("--list")).context("listing the live tests")?;
        let names = said.lines().filter_map(|line| line.strip_suffix(": test"));
        Ok(names.map(str::to_owned).collect())
    }
}

fn executable(messages: &str, name: &str, test: bool) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Artifact>(line).ok())
        .filter(|artifact| artifact.target.name == name && artifact.profile.test == test)
        .find_map(|artifact| artifact.executable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_among_what_cargo_built() {
        let built = |name: &str, test: bool, path: &str| {
            format!(
                "{{\"target\":{{\"name\":\"{name}\"}},\"profile\":{{\"test\":{test}}},\"executable\":{path}}}\n"
            )
        };
        let said = [
            built("live", true, "\"/x/live-1\""),
            built("scenes", true, "\"/x/scenes-1\""),
            built("scenes", false, "null"),
            built("scenes", false, "\"/x/scenes\""),
            "{\"reason\":\"build-finished\",\"success\":true}".to_owned(),
        ]
        .concat();
        assert_eq!(executable(&said, "live", true), Some(PathBuf::from("/x/live-1")));
        assert_eq!(
            executable(&said, "scenes", false),
            Some(PathBuf::from("/x/scenes"))
        );
        assert_eq!(executable(&said, "live", false), None);
    }
}
