//! The process that reads symbols, as the agent uses it: what it may, what it does with files that no linker
//! wrote, what becomes of the agent when it dies or hangs, and which files are opened for it at all. Needs no
//! privilege.
#![expect(clippy::expect_used, clippy::panic, reason = "helpers of tests fail the test")]
#![expect(clippy::cast_possible_truncation, reason = "offsets in small files fit")]

mod confinement;
mod files;
mod mutants;
#[expect(dead_code, reason = "the live tests use all of it")]
#[path = "../live/common/random.rs"]
mod random;
mod sites;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use probe_user::namer::client::{Namer, Program};
use probe_user::namer::file::{Checked, FileId, Refusal, open_mapped};
use probe_user::namer::protocol::{Answer, CodeRange, Question, Walk};

/// Says something that belongs to the output of a test.
fn note(text: &str) {
    eprintln!("{text}");
}

/// A namer: of the binary under test, else of this build, which is a good deal slower.
fn namer() -> Namer {
    let given = std::env::var_os("PROCPROBE_BIN");
    let path = given.unwrap_or_else(|| env!("CARGO_BIN_EXE_procprobe").into());
    Namer::new(Program::At(PathBuf::from(path)))
}

/// As `maps` would have it.
fn id(path: &Path) -> FileId {
    let metadata = fs::metadata(path).expect("the file is there");
    let device = metadata.dev();
    let halves = (u64::from(libc::major(device)), u64::from(libc::minor(device)));
    (halves.0 << 32 | halves.1, metadata.ino())
}

/// As a file that this process has mapped.
fn open(path: &Path) -> Result<Checked, Refusal> {
    open_mapped(Path::new("/proc/self"), path, id(path))
}

/// The C library of this test.
fn libc_path() -> PathBuf {
    let maps = fs::read_to_string("/proc/self/maps").expect("our maps");
    let mut paths = maps.split_whitespace().filter(|word| word.starts_with('/'));
    let path = paths.find(|path| path.contains("/libc.so") || path.contains("/libc-"));
    PathBuf::from(path.expect("a C library"))
}

/// Where its functions are.
fn dynamic_functions(path: &Path) -> Vec<u64> {
    use object::{Object, ObjectSymbol};
    let data = fs::read(path).expect("reading it");
    let elf = object::File::parse(&*data).expect("an ELF file");
    let functions = elf.dynamic_symbols().filter(|symbol| symbol.size() > 0);
    functions.map(|symbol| symbol.address()).collect()
}

/// All three questions about one file; `None` where one got no answer.
fn ask_all(namer: &mut Namer, path: &Path, addresses: &[u64]) -> [Option<Answer>; 3] {
    ask_timed(namer, path, addresses).0
}

/// The same, and how long the slowest of them took.
fn ask_timed(namer: &mut Namer, path: &Path, addresses: &[u64]) -> ([Option<Answer>; 3], Duration) {
    const BASE: u64 = 0x7f00_0000_0000;
    let mut slowest = Duration::ZERO;
    let mut give = |question| {
        let began = Instant::now();
        let answer = namer.ask(question, &[open(path).ok()]);
        slowest = slowest.max(began.elapsed());
        answer
    };
    let stack: Vec<u8> = addresses
        .iter()
        .flat_map(|address| (BASE + address + 5).to_le_bytes())
        .collect();
    let walk = Walk {
        ip: BASE + addresses.first().copied().unwrap_or(0x1000) + 5,
        sp: 0x7fff_0000_0000,
        bp: 0x7fff_0000_0010,
        stack,
        code: vec![CodeRange {
            start: BASE,
            end: BASE + (1 << 30),
            file: Some(0),
            hidden: false,
        }],
        files: vec![(BASE, BASE + (1 << 30))],
    };
    let address = BASE + addresses.last().copied().unwrap_or(0x1000);
    let answers = [
        give(Question::Sites(addresses.iter().take(8).copied().collect())),
        give(Question::Variable { base: BASE, address }),
        give(Question::Walk(walk)),
    ];
    (answers, slowest)
}

/// An honest question: it has to be answered whatever was asked before.
fn answers_as_ever(namer: &mut Namer) {
    let path = libc_path();
    let functions = dynamic_functions(&path);
    let [sites, _, walk] = ask_all(namer, &path, &functions);
    assert!(
        matches!(&sites, Some(Answer::Sites(Some(sites))) if sites.len() == 8),
        "{sites:?}"
    );
    let Some(Answer::Walk { frames, .. }) = walk else {
        panic!("{walk:?}")
    };
    assert!(
        frames.iter().all(|(_, name)| name.is_some()) && !frames.is_empty(),
        "{frames:x?}"
    );
}
