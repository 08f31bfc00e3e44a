//! ELF files that no linker wrote: whatever is in them, the agent gets an answer or a loss within a second,
//! and the next question is answered as ever. `PROCPROBE_FULL=1` tries 5,000 of them.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use probe_user::namer::client::lost_here;

use super::random::Random;
use super::{answers_as_ever, ask_timed, dynamic_functions, libc_path, namer, note};

/// The longest that an answer may take, with the start of another namer where one has died: a second, unless
/// the machine is busy with other things.
fn longest() -> Duration {
    Duration::from_secs(if is_full() { 1 } else { 3 })
}

fn is_full() -> bool {
    std::env::var_os("PROCPROBE_FULL").is_some_and(|value| value != "0")
}

fn count() -> u64 {
    if is_full() { 5_000 } else { 300 }
}

/// What the mutants are made of.
struct Original {
    bytes: Vec<u8>,
    addresses: Vec<u64>,
    /// Where its section headers begin, and how many there are.
    sections: (usize, usize),
}

impl Original {
    fn read(path: &Path) -> Self {
        let bytes = fs::read(path).expect("reading it");
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let half = |at: usize| usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
        let sections = (usize::try_from(word(0x28)).expect("an offset"), half(0x3c));
        Self {
            addresses: dynamic_functions(path),
            bytes,
            sections,
        }
    }

    /// Content of a random section, or of one of some type.
    fn section(&self, random: &mut Random, kinds: &[u32]) -> std::ops::Range<usize> {
        for _ in 0..200 {
            let header = self.header(random);
            let word = |at: usize| {
                let at = header + at;
                u64::from_le_bytes(self.bytes[at..at + 8].try_into().expect("eight bytes"))
            };
            let kind = word(0) >> 32;
            let range = word(0x18)..word(0x18).saturating_add(word(0x20));
            if kinds.iter().any(|wanted| u64::from(*wanted) == kind) && range.end <= self.bytes.len() as u64 {
                return range.start as usize..range.end as usize;
            }
        }
        0..64
    }

    fn header(&self, random: &mut Random) -> usize {
        self.sections.0 + 64 * random.below(self.sections.1 as u64) as usize
    }
}

/// Numbers that break sums.
fn number(random: &mut Random, length: usize) -> u64 {
    const ODD: [u64; 12] = [
        0,
        1,
        7,
        0xffff,
        0x7fff_ffff,
        0xffff_ffff,
        1 << 32,
        1 << 40,
        1 << 62,
        i64::MAX as u64,
        u64::MAX - 7,
        u64::MAX,
    ];
    match random.below(4) {
        0 => random.below(length as u64 * 2),
        1 => random.next(),
        _ => ODD[random.below(ODD.len() as u64) as usize],
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    let end = bytes.len().min(at + value.len());
    if at < end {
        bytes[at..end].copy_from_slice(&value[..end - at]);
    }
}

fn scatter(random: &mut Random, bytes: &mut [u8], range: std::ops::Range<usize>) {
    let most = (range.len() as u64 / 8).clamp(1, 400);
    for _ in 0..=random.below(most) {
        let at = range.start + random.below(range.len().max(1) as u64) as usize;
        let value = number(random, bytes.len()).to_le_bytes();
        let size = 1 + random.below(8) as usize;
        put(bytes, at, &value[..size]);
    }
}

/// One mutant; the length it is given at the end, which may be longer than what it has.
fn mutant(original: &Original, random: &mut Random) -> (Vec<u8>, u64) {
    const PROGBITS: u32 = 1;
    const SYMBOLS: [u32; 2] = [2, 11];
    const STRINGS: u32 = 3;
    let mut bytes = original.bytes.clone();
    for _ in 0..=random.below(3) {
        match random.below(8) {
            0 => scatter(random, &mut bytes, 0..64),
            1 => scatter(random, &mut bytes, 64..64 + 56 * 12),
            2 | 3 => {
                // The offset, size, link, information, entry size or type of a section.
                let header = original.header(random);
                let field = [0x4, 0x18, 0x20, 0x28, 0x2c, 0x38][random.below(6) as usize];
                let value = number(random, bytes.len()).to_le_bytes();
                put(&mut bytes, header + field, &value);
            }
            4 => {
                let range = original.section(random, &SYMBOLS);
                scatter(random, &mut bytes, range);
            }
            5 => {
                let range = original.section(random, &[STRINGS]);
                if random.below(2) == 0 {
                    let end = range.end.min(bytes.len());
                    bytes[range.start.min(end)..end].fill(b'_');
                } else {
                    scatter(random, &mut bytes, range);
                }
            }
            6 => {
                // .eh_frame, .eh_frame_hdr, .got and code.
                let range = original.section(random, &[PROGBITS]);
                scatter(random, &mut bytes, range);
            }
            _ => bytes.truncate(random.below(original.bytes.len() as u64) as usize),
        }
    }
    let length = match random.below(12) {
        0 => 1 << 40,
        1 => bytes.len() as u64 + random.below(1 << 32),
        _ => bytes.len() as u64,
    };
    (bytes, length)
}

fn write(path: &Path, (bytes, length): &(Vec<u8>, u64)) {
    fs::write(path, bytes).expect("writing a mutant");
    let file = OpenOptions::new().write(true).open(path).expect("opening it");
    // Where a file system has no room for such lengths, it stays as long as it is.
    let _ = file.set_len(*length);
}

/// Asks all questions and says how long the slowest took.
fn timed(namer: &mut probe_user::namer::client::Namer, path: &Path, addresses: &[u64]) -> Duration {
    ask_timed(namer, path, addresses).1
}

fn originals() -> Vec<Original> {
    let library = libc_path();
    let beside = |name: &str| library.with_file_name(name);
    let paths: [PathBuf; 3] = [
        beside("ld-linux-x86-64.so.2"),
        beside("libm.so.6"),
        library.clone(),
    ];
    let there = paths.iter().filter(|path| path.exists());
    there.map(|path| Original::read(path)).collect()
}

#[test]
fn no_file_takes_the_agent_along() {
    let directory = tempfile::tempdir().expect("a directory");
    let originals = originals();
    let mut random = Random::new();
    let mut namer = namer();
    let (mut slowest, lost) = (Duration::ZERO, lost_here());
    for round in 0..count() {
        let original = &originals[random.below(originals.len() as u64) as usize];
        let mutant = mutant(original, &mut random);
        let path = directory.path().join(format!("mutant-{round}"));
        write(&path, &mutant);
        let from = random.below(original.addresses.len() as u64 / 2) as usize;
        let took = timed(
            &mut namer,
            &path,
            &original.addresses[from..][..64.min(original.addresses.len() - from)],
        );
        if took > slowest {
            slowest = took;
        }
        fs::remove_file(&path).expect("removing it");
        if round % 100 == 0 {
            answers_as_ever(&mut namer);
        }
    }
    answers_as_ever(&mut namer);
    let lost = lost_here() - lost;
    note(&format!(
        "{} mutants: {lost} questions without an answer; the slowest took {slowest:?}",
        count()
    ));
    assert!(slowest < longest(), "{slowest:?}");
}

/// A library's section of so many bytes of nothing.
fn inflated(directory: &Path, original: &Original, kind: u32, size: u64) -> PathBuf {
    let mut bytes = original.bytes.clone();
    let offset = (bytes.len() as u64 + 0xffff) & !0xffff;
    for number in 0..original.sections.1 {
        let header = original.sections.0 + 64 * number;
        let found = u32::from_le_bytes(bytes[header + 4..header + 8].try_into().expect("four bytes"));
        if found == kind {
            put(&mut bytes, header + 0x18, &offset.to_le_bytes());
            put(&mut bytes, header + 0x20, &size.to_le_bytes());
        }
    }
    let path = directory.join(format!("inflated-{kind}-{size}"));
    write(&path, &(bytes, offset + size));
    path
}

#[test]
fn tables_of_a_terabyte_are_refused_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut namer = namer();
    let original = &originals()[0];
    answers_as_ever(&mut namer);
    let (pid, lost) = (namer.pid(), lost_here());
    for kind in [2, 11, 3, 1] {
        for size in [2 << 20, 2_400 << 20, 1 << 40] {
            let path = inflated(directory.path(), original, kind, size);
            let took = timed(&mut namer, &path, &original.addresses);
            assert!(took < longest(), "{kind} {size}: {took:?}");
        }
    }
    answers_as_ever(&mut namer);
    assert_eq!((namer.pid(), lost_here()), (pid, lost), "it did not die of them");
}

#[test]
fn a_file_that_shrinks_while_it_is_read_is_no_signal() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("shrinks");
    let original = Original::read(&libc_path());
    fs::write(&path, &original.bytes).expect("writing it");
    let stop = Arc::new(AtomicBool::new(false));
    let shrinker = std::thread::spawn({
        let (stop, path, bytes) = (Arc::clone(&stop), path.clone(), original.bytes.clone());
        move || {
            let file = OpenOptions::new().write(true).open(path).expect("opening it");
            while !stop.load(Ordering::Relaxed) {
                file.set_len(4096).expect("cutting it");
                file.write_all_at(&bytes, 0).expect("writing it");
            }
        }
    });
    let mut namer = namer();
    answers_as_ever(&mut namer);
    let pid = namer.pid();
    for _ in 0..if is_full() { 500 } else { 50 } {
        let took = timed(&mut namer, &path, &original.addresses);
        assert!(took < longest(), "{took:?}");
    }
    stop.store(true, Ordering::Relaxed);
    shrinker.join().expect("it ends");
    answers_as_ever(&mut namer);
    assert_eq!(namer.pid(), pid, "it did not die of it");
}
