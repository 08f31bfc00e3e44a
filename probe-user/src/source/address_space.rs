//! Other processes' address spaces, as far as their futex waits ask for it: whose code waits, which file a
//! futex lies in, who else maps that file. All of it is read from /proc by a thread with a deadline, and
//! remembered.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use probe_ebpf::lock::{LockKey, TID_MASK, is_tid};
use procfs::process::{MMPermissions, MMapPath, MemoryMap};

use super::caller::callers;
use super::code::CodeCache;
use super::program::code_of;
use super::reader::files::{Directory, STATUS};
use super::reader::{self, Budget, Subject};
use crate::model::locks::LockId;
use crate::model::locks::memory::{MemoryGap, SignalHandlers};
use crate::model::locks::site::{Caller, Library, Runtime, Site};
use crate::model::thread::ThreadId;
use crate::namer::id_of as file_of;

/// How long to wait for all that is asked of a look, unless somebody waits for a single answer.
const PATIENCE: Duration = Duration::from_millis(300);
/// Entries that are remembered; beyond that all are forgotten and read again.
const REMEMBERED: usize = 65_536;
/// After this a lock's caller is looked for again: the memory may belong to another lock by now.
const CALLER_IS_OLD: Duration = Duration::from_secs(10);
/// How long nothing more is asked about code that could not be read twice …
const FIRST_REST: Duration = Duration::from_secs(1);
/// … and at most.
const LONGEST_REST: Duration = Duration::from_secs(600);
/// `PTHREAD_MUTEX_PRIO_INHERIT_NP` in the kind of a mutex of glibc.
const PI_MUTEX: u32 = 0x20;
/// Bytes of a stack that are searched for the mutex that `pthread_mutex_lock()` was called with.
const STACK: usize = 1024;

/// What is asked of one process.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Address space and instruction of waits.
    pub sites: HashSet<(u64, u64)>,
    /// Waits whose instruction alone does not tell whose they are.
    pub callers: HashMap<LockKey, Frame>,
    /// Futexes whose file is asked for.
    pub places: HashSet<LockKey>,
    /// Files (device, inode) of which it is asked whether the process maps them shared.
    pub files: HashSet<(u64, u64)>,
    /// Threads that sleep for ever in `pthread_mutex_lock()`, with their stack pointers and saved registers.
    pub endless: Vec<(ThreadId, u64, Vec<u64>)>,
    /// Whether it is asked for its signal handlers.
    pub signals: bool,
}

/// The innermost frame of a thread that waits.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// Instruction pointer.
    pub ip: u64,
    /// Stack pointer.
    pub sp: u64,
}

/// An answer about one process.
pub enum Answer {
    /// Whose code is at an instruction.
    Site((u64, u64), Arc<Site>),
    /// Whose code it is, with its caller, at a lock.
    Caller(LockKey, Arc<Site>),
    /// Where a futex lies.
    Place(LockKey, Option<LockId>),
    /// The mappings were read; these of the files asked for are mapped.
    Mapped(u32, Vec<(u64, u64)>),
    /// The mutexes, with their owners, one of which a thread waits for, for ever.
    Endless(ThreadId, Vec<(u64, u32)>),
    /// Whether it handles signals itself.
    Signals(u32, SignalHandlers),
    /// Its run-time system.
    Runtime(u64, Option<Runtime>),
    /// Where `CPython` keeps its state.
    Python(u64, Range<u64>),
    /// Which function of the program waits at its semaphores.
    Semaphores(u64, Caller),
    /// Everything that was asked about the code of this address space was told …
    Whole(u64),
    /// … or something could not be told now.
    NotNow(u64),
}

/// See the module.
pub struct AddressSpaces {
    root: PathBuf,
    code: Arc<CodeCache>,
    /// How long to wait for all that is asked of a look.
    pub patience: Duration,
    /// What is left of that.
    pub budget: Budget,
    /// Questions without an answer, since somebody took their number.
    pub lost: u64,
    /// The processes that are the reason.
    pub gaps: BTreeMap<u32, MemoryGap>,
    /// By address space and instruction.
    pub sites: HashMap<(u64, u64), Arc<Site>>,
    /// By lock, where the instruction alone does not tell; with the time of the look, for memory is used
    /// again.
    callers: HashMap<LockKey, (Instant, Arc<Site>)>,
    /// By address space: where `CPython` keeps its state.
    pythons: HashMap<u64, Range<u64>>,
    /// By address space: which function of the program waits at its semaphores.
    semaphores: HashMap<u64, Caller>,
    /// By address space.
    pub runtimes: HashMap<u64, Option<Runtime>>,
    /// Address spaces of which something could not be told when it was asked: it is asked for again.
    unfinished: HashMap<u64, Unfinished>,
}

/// Something was not told: how often in a row, and when it is asked for again.
#[derive(Clone, Copy)]
struct Unfinished {
    times: u32,
    again: Instant,
}

impl AddressSpaces {
    /// Nothing known yet; `root` is where /proc is mounted.
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            code: Arc::default(),
            patience: PATIENCE,
            budget: Budget::new(PATIENCE),
            lost: 0,
            gaps: BTreeMap::new(),
            sites: HashMap::new(),
            callers: HashMap::new(),
            pythons: HashMap::new(),
            semaphores: HashMap::new(),
            runtimes: HashMap::new(),
            unfinished: HashMap::new(),
        }
    }

    /// From here on another look asks.
    pub fn begin_look(&mut self) {
        self.budget = Budget::new(self.patience);
    }

    /// Asks processes; what does not come in time is not known, and counted.
    pub fn ask(&mut self, requests: Vec<(Subject, Request)>) -> Vec<Answer> {
        if self.sites.len() > REMEMBERED {
            self.sites.clear();
            self.runtimes.clear();
            self.pythons.clear();
            self.semaphores.clear();
            self.unfinished.clear();
        }
        if self.callers.len() > REMEMBERED {
            self.callers.clear();
        }
        if requests.is_empty() {
            return Vec::new();
        }
        let (root, code) = (self.root.clone(), Arc::clone(&self.code));
        let asked = reader::shared().ask(
            &mut self.budget,
            requests,
            move |_, (): &mut (), subject, request| answer(&root, &code, subject, &request),
        );
        self.lost += asked.lost;
        self.gaps.extend(asked.gaps);
        let answers = asked.answers;
        self.remember(&answers);
        answers
    }

    fn remember(&mut self, answers: &[Answer]) {
        for answer in answers {
            match answer {
                Answer::Site(key, site) => {
                    self.sites.insert(*key, Arc::clone(site));
                }
                Answer::Caller(key, site) => {
                    self.callers.insert(*key, (Instant::now(), Arc::clone(site)));
                }
                Answer::Python(space, range) => {
                    self.pythons.insert(*space, range.clone());
                }
                Answer::Semaphores(space, caller) => {
                    self.semaphores.insert(*space, caller.clone());
                }
                Answer::Runtime(space, runtime) => {
                    self.runtimes.insert(*space, *runtime);
                }
                Answer::Whole(space) => {
                    self.unfinished.remove(space);
                }
                Answer::NotNow(space) => {
                    self.put_off(*space);
                    self.lost += 1;
                }
                _ => {}
            }
        }
    }

    /// Whether it is to be asked for whose code is at an instruction of an address space.
    pub fn asks_for_site(&self, key: &(u64, u64)) -> bool {
        match self.unfinished.get(&key.0) {
            Some(unfinished) => unfinished.again <= Instant::now(),
            None => !self.sites.contains_key(key),
        }
    }

    /// The next look may ask again, for a host may have been busy; the ones behind it ever less often: some
    /// files can never be read, as those of a root that was left.
    fn put_off(&mut self, space: u64) {
        let now = Instant::now();
        let unfinished = self.unfinished.entry(space);
        let unfinished = unfinished.or_insert(Unfinished { times: 0, again: now });
        let rest = FIRST_REST * 2_u32.pow(unfinished.times.saturating_sub(1));
        if unfinished.times > 0 {
            unfinished.again = now + rest.min(LONGEST_REST);
        }
        unfinished.times = (unfinished.times + 1).min(16);
    }

    /// Whether it is worth asking (again) for the caller of a thread that waits at a lock.
    pub fn asks_for_caller(&self, key: &LockKey) -> bool {
        let known = self.callers.get(key);
        known.is_none_or(|(seen, _)| seen.elapsed() > CALLER_IS_OLD)
    }

    /// The code that waits at a lock: with its caller, if that was looked for.
    pub fn site_at(&self, key: &LockKey, ip: u64) -> Option<Arc<Site>> {
        let with_caller = self.callers.get(key).map(|(_, site)| site);
        let site = with_caller.or_else(|| self.sites.get(&(key.space, ip)))?;
        let python = self.pythons.get(&key.space);
        let inside = python.is_some_and(|state| state.contains(&key.address));
        if site.library != Library::Glibc {
            return Some(Arc::clone(site));
        }
        if inside {
            return Some(Arc::new(site.inside_python()));
        }
        Some(match self.semaphores.get(&key.space) {
            Some(caller) => Arc::new(Site {
                caller: Some(caller.clone()),
                ..(**site).clone()
            }),
            None => Arc::clone(site),
        })
    }

    /// Forgets the callers of all other locks.
    pub fn keep_callers(&mut self, is_kept: impl Fn(&LockKey) -> bool) {
        self.callers.retain(|key, _| is_kept(key));
    }
}

fn answer(root: &Path, code: &CodeCache, subject: &Subject, request: &Request) -> Vec<Answer> {
    let pid = subject.pid;
    let directory = Directory::of(root, subject.door);
    let mut answers = Vec::new();
    if request.signals {
        answers.extend(handles_signals(&directory).map(|handles| Answer::Signals(pid, handles)));
    }
    let Some(maps) = directory.maps() else {
        return answers;
    };
    if let Some(&(space, _)) = request.sites.iter().next() {
        answers.extend(code_of(&directory, code, &maps, space, request));
    }
    answers.extend(callers(&directory, code, &maps, &request.callers));
    let places = request.places.iter();
    answers.extend(places.map(|key| Answer::Place(*key, shared_place(&maps, key.address))));
    if !request.files.is_empty() {
        let mapped = maps
            .iter()
            .filter(|map| map.perms.contains(MMPermissions::SHARED));
        let mapped: HashSet<(u64, u64)> = mapped.map(file_of).collect();
        let files = request.files.intersection(&mapped).copied().collect();
        answers.push(Answer::Mapped(pid, files));
    }
    let endless = request.endless.iter();
    answers.extend(
        endless.filter_map(|(id, sp, saved)| {
            Some(Answer::Endless(*id, endless_mutexes(&directory, *sp, saved)?))
        }),
    );
    answers
}

/// The mapping an address is in; they are in order.
pub(super) fn mapping(maps: &[MemoryMap], address: u64) -> Option<&MemoryMap> {
    let behind = maps.partition_point(|map| map.address.1 <= address);
    maps.get(behind).filter(|map| map.address.0 <= address)
}

/// The file and byte behind an address; `None` if it is memory of the process's own.
///
/// The kernel goes by the mapping, not by the flag (`get_futex_key()` in kernel/futex/core.c): in private
/// memory a "shared" futex is known to one address space as well.
fn shared_place(maps: &[MemoryMap], address: u64) -> Option<LockId> {
    let map = mapping(maps, address)?;
    let shared = map.perms.contains(MMPermissions::SHARED);
    if !shared || map.inode == 0 || map.pathname == MMapPath::Anonymous {
        return None;
    }
    let (device, inode) = file_of(map);
    Some(LockId::Shared {
        device,
        inode,
        offset: map.offset + (address - map.address.0),
    })
}

/// Signals that glibc's threads need for themselves: 32 to 34.
const OF_GLIBC: u64 = 0b111 << 31;
/// Handlers of faults (Rust's for overflowing stacks) serve the thread that commits them: SIGILL, SIGBUS,
/// SIGFPE, SIGSEGV.
const FAULTS: u64 = 1 << 3 | 1 << 6 | 1 << 7 | 1 << 10;
/// The handler of SIGINT in Python notes the signal and returns: `KeyboardInterrupt` is raised by the main
/// thread, whatever that waits for.
const OF_PYTHON: u64 = 1 << 1;

/// Which handlers of its own a process has that may wake a thread.
fn handles_signals(directory: &Directory) -> Option<SignalHandlers> {
    let status = directory.read("status", STATUS).ok()?;
    // Its name may be no UTF-8.
    let status = String::from_utf8_lossy(&status);
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
    let caught = u64::from_str_radix(caught.trim(), 16).ok()?;
    let program = directory.link("exe").unwrap_or_default();
    let name = program.file_name().unwrap_or_default().as_encoded_bytes();
    let caught = caught & !(OF_GLIBC | FAULTS);
    let python = name.starts_with(b"python");
    Some(match caught {
        // Where SIGINT is ignored (in the background of a shell) its main thread parks all the same.
        0 | OF_PYTHON if python => SignalHandlers::MainThread,
        0 => SignalHandlers::None,
        _ => SignalHandlers::Any,
    })
}

/// Mutexes that `pthread_mutex_lock()` may have been called with, from its registers and the frames just
/// above the stack pointer: pointers there that lead to a priority-inheriting mutex of glibc with an owner.
fn endless_mutexes(directory: &Directory, sp: u64, saved: &[u64]) -> Option<Vec<(u64, u32)>> {
    let memory = directory.memory().ok()?;
    let mut stack = vec![0; STACK];
    memory.read_exact_at(&mut stack, sp).ok()?;
    let (words, _) = stack.as_chunks::<8>();
    let mut found: HashMap<u64, u32> = HashMap::new();
    let on_stack = words.iter().map(|word| u64::from_le_bytes(*word));
    // glibc 2.36 has the address of the mutex's kind (16) in a register by then, and not that of the mutex.
    let in_registers = saved
        .iter()
        .flat_map(|&register| [register, register.wrapping_sub(16)]);
    for pointer in in_registers.chain(on_stack) {
        let mut mutex = [0; 20];
        if pointer < 4096 || pointer % 4 != 0 || memory.read_exact_at(&mut mutex, pointer).is_err() {
            continue;
        }
        let (fields, _) = mutex.as_chunks::<4>();
        let word = |at: usize| fields.get(at).map_or(0, |field| u32::from_le_bytes(*field));
        let owner = word(0) & TID_MASK;
        if word(4) & PI_MUTEX != 0 && word(4) & !0x3f3 == 0 && is_tid(owner) && owner == word(2) {
            found.insert(pointer, owner);
        }
    }
    Some(found.into_iter().collect())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The file an address of this program lies in, the byte there, and its device and inode.
    pub fn mapping_of(address: u64) -> (PathBuf, u64, (u64, u64)) {
        let maps = Directory::of(Path::new("/proc"), std::process::id())
            .maps()
            .unwrap();
        let map = mapping(&maps, address).unwrap();
        let MMapPath::Path(path) = &map.pathname else {
            panic!("not of a file")
        };
        (path.clone(), address - map.address.0 + map.offset, file_of(map))
    }

    #[test]
    fn a_request_is_answered() {
        let mut spaces = AddressSpaces::new(Path::new("/proc"));
        // The namer of unit tests is asked by all of them.
        spaces.budget = Budget::new(Duration::from_secs(20));
        let ip = libc::getpid as *const () as u64 + 1;
        let key = LockKey {
            space: 7,
            address: (&raw const spaces).expose_provenance() as u64,
        };
        let request = Request {
            sites: HashSet::from([(7, ip)]),
            places: HashSet::from([key]),
            ..Request::default()
        };
        let answers = spaces.ask(vec![(Subject::of(std::process::id(), 0), request)]);
        assert!(
            answers
                .iter()
                .any(|answer| matches!(answer, Answer::Place(at, None) if *at == key))
        );
        assert_eq!(spaces.sites[&(7, ip)].library, Library::Glibc);
    }

    #[test]
    fn what_could_not_be_told_is_asked_for_again() {
        let mut spaces = AddressSpaces::new(Path::new("/proc"));
        assert!(spaces.asks_for_site(&(7, 1)));
        let site = || Answer::Site((7, 1), Arc::new(Site::UNREAD));
        spaces.remember(&[site(), Answer::NotNow(7)]);
        assert!(spaces.asks_for_site(&(7, 1)) && !spaces.sites.is_empty());
        assert_eq!(spaces.lost, 1);
        for _ in 0..40 {
            spaces.remember(&[Answer::NotNow(7)]);
        }
        assert!(!spaces.asks_for_site(&(7, 2)), "not at every look");
        let again = spaces.unfinished[&7].again;
        assert!(again <= Instant::now() + LONGEST_REST);
        spaces.remember(&[site(), Answer::Whole(7)]);
        assert!(!spaces.asks_for_site(&(7, 1)) && spaces.asks_for_site(&(7, 2)));
    }
}
