//! Exporters to compare: how each is found, started and scraped, and what it takes.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    environment,
    packages::{Apt, find_program},
    process::Background,
    workspace::Workspace,
};

const START_LIMIT: Duration = Duration::from_secs(30);
/// Ticks of the times in /proc/PID/stat, on every Linux there is.
const TICKS: f64 = 100.0;

/// An exporter that counts threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Procprobe,
    ProcessExporter,
    NodeExporter,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Procprobe, Self::ProcessExporter, Self::NodeExporter];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Procprobe => "procprobe",
            Self::ProcessExporter => "process-exporter, threads",
            Self::NodeExporter => "node_exporter, processes",
        }
    }

    /// Debian's package, and the program in it.
    const fn package(self) -> Option<&'static str> {
        match self {
            Self::Procprobe => None,
            Self::ProcessExporter => Some("prometheus-process-exporter"),
            Self::NodeExporter => Some("prometheus-node-exporter"),
        }
    }

    /// One group for each process name, with its threads: what procprobe exports too.
    fn arguments(self, tools: &Path, address: &str) -> Result<Vec<String>> {
        let arguments = match self {
            Self::Procprobe => vec!["agent".to_owned(), "--listen".to_owned(), address.to_owned()],
            Self::ProcessExporter => {
                let config = tools.join("process-exporter.yml");
                fs::write(
                    &config,
                    "process_names: [{name: \"{{.Comm}}\", cmdline: [\".*\"]}]\n",
                )
                .with_context(|| format!("writing {}", config.display()))?;
                vec![
                    format!("-config.path={}", config.display()),
                    "-threads=true".to_owned(),
                    format!("-web.listen-address={address}"),
                ]
            }
            Self::NodeExporter => vec![
                "--collector.disable-defaults".to_owned(),
                "--collector.processes".to_owned(),
                format!("--web.listen-address={address}"),
            ],
        };
        Ok(arguments)
    }
}

/// The programs.
pub struct Exporters {
    programs: Vec<(Kind, PathBuf)>,
    tools: PathBuf,
}

impl Exporters {
    /// Ours, and those of the others that are here or can be unpacked. Not installed: their packages would start services.
    pub fn find(workspace: &Workspace, agent: PathBuf) -> Result<Self> {
        let mut programs = vec![(Kind::Procprobe, agent)];
        for kind in Kind::ALL {
            let Some(package) = kind.package() else { continue };
            let directory = workspace.tools().join(package);
            let unpacked = directory.join("usr/bin").join(package);
            if find_program(package).is_none()
                && !unpacked.exists()
                && let Some(apt) = Apt::find()
            {
                apt.unpack(package, &directory)?;
            }
            let program = find_program(package).or_else(|| unpacked.exists().then_some(unpacked));
            programs.extend(program.map(|program| (kind, program)));
        }
        Ok(Self {
            programs,
            tools: workspace.tools(),
        })
    }

    pub fn kinds(&self) -> impl Iterator<Item = Kind> {
        self.programs.iter().map(|(kind, _)| *kind)
    }

    /// Starts one and waits until it answers.
    pub fn start(&self, kind: Kind) -> Result<Exporter> {
        let program = self.programs.iter().find(|(of, _)| *of == kind);
        let (_, program) = program.with_context(|| format!("no {}", kind.name()))?;
        let address = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .context("looking for a free port")?
            .to_string();
        let mut command = Command::new(program);
        environment::scrub(&mut command).args(kind.arguments(&self.tools, &address)?);
        let mut exporter = Exporter {
            process: Background::start(kind.name(), &mut command)?,
            address,
        };
        let deadline = Instant::now() + START_LIMIT;
        while let Err(error) = exporter.scrape() {
            exporter.process.expect_running()?;
            if Instant::now() >= deadline {
                bail!("{} does not answer: {error:#}", kind.name());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(exporter)
    }
}

/// A running one.
pub struct Exporter {
    process: Background,
    address: String,
}

impl Exporter {
    /// Scrapes it; returns the size of the answer.
    pub fn scrape(&self) -> Result<usize> {
        let mut stream =
            TcpStream::connect(&self.address).with_context(|| format!("connecting to {}", self.address))?;
        // HTTP/1.0: the answer ends with the connection, and nothing is compressed.
        write!(stream, "GET /metrics HTTP/1.0\r\nHost: {}\r\n\r\n", self.address)
            .context("sending the request")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).context("reading the answer")?;
        let status = answer.lines().next().unwrap_or_default();
        ensure!(status.contains(" 200 "), "the answer is {status:?}");
        Ok(answer.len())
    }

    /// CPU time it has taken.
    pub fn cpu(&self) -> Result<Duration> {
        let stat = self.read("stat")?;
        // The name may hold anything; what follows its parenthesis is numbers.
        let (_, fields) = stat.rsplit_once(") ").context("reading its stat")?;
        let ticks = fields
            .split(' ')
            .skip(11)
            .take(2)
            .map(|field| field.parse::<f64>().unwrap_or_default());
        Ok(Duration::from_secs_f64(ticks.sum::<f64>() / TICKS))
    }

    /// Its resident memory, KiB.
    pub fn resident_kib(&self) -> Result<u64> {
        let status = self.read("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        kib.context("no VmRSS in its status")
    }

    fn read(&self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.process.child.id());
        fs::read_to_string(&path).with_context(|| format!("reading {path}"))
    }
}
