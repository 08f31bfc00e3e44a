//! Who waits on whom, for a terminal: the answer first, then the evidence.

use probe_ebpf::state::State;

use super::histogram;
use super::number::{UNKNOWN, count, duration, plural};
use super::states::lost;
use super::table::{Align, Table, cut};
use crate::model::blocked::syscall_name;
use crate::model::locks::deadlock::{Deadlock, Shape};
use crate::model::locks::memory::MemoryGap;
use crate::model::locks::report::{Code, Doing, Edge, Holder, Lock, Parallelism, Pattern, Report, WaitsFor};
use crate::model::locks::site::Runtime;
use crate::model::locks::stall::{Reason, Stall, Stalled};
use crate::model::locks::{Kind, LockId, Party};
use crate::model::snapshot::Losses;
use crate::model::thread::{Comm, Condition};

/// What to show.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Rows at most; `None` for all.
    pub limit: Option<usize>,
    /// Columns of the terminal; `None` if the output is no terminal.
    pub width: Option<usize>,
}

/// Terminals narrower than this have what holders do below the table.
const WIDE: usize = 110;
/// Edges of a lock that are listed.
const EDGES: usize = 5;
/// Threads of a deadlock or stall that are listed.
const MEMBERS: usize = 20;

/// The lines of a finished window.
pub fn lines(report: &Report, losses: &Losses, look: Look) -> Vec<String> {
    let mut lines = Vec::new();
    for deadlock in &report.deadlocks {
        lines.extend(deadlock_lines(deadlock, report, look.width));
        lines.push(String::new());
    }
    for stall in &report.stalls {
        lines.extend(stall_lines(stall, report, look.width));
        lines.push(String::new());
    }
    lines.push(headline(report, losses));
    if !report.locks.is_empty() {
        lines.push(String::new());
        lines.extend(table(report, look));
        lines.push(String::new());
        lines.extend(
            report
                .locks
                .first()
                .map(|worst| detail(worst, report, look.width))
                .unwrap_or_default(),
        );
    }
    if !report.processes.is_empty() {
        lines.push(String::new());
        lines.extend(report.processes.iter().take(EDGES).map(parallelism));
    }
    lines.push(String::new());
    lines.push(idle(report));
    lines.extend(memory_gaps(report));
    lines.extend(runtimes(report));
    lines.into_iter().map(|line| cut(&line, look.width)).collect()
}

fn deadlock_lines(deadlock: &Deadlock, report: &Report, width: Option<usize>) -> Vec<String> {
    let process = deadlock
        .members
        .first()
        .map(|member| process_name(report, member.party))
        .unwrap_or_default();
    let age = duration(Some(deadlock.age_ns));
    let threads = plural(deadlock.members.len() as u64, "thread");
    let what = match deadlock.shape {
        Shape::Cycle if deadlock.until_timeout => {
            format!("{threads}, each waits for the next, one of them until a timeout")
        }
        Shape::Cycle => format!("{threads}, each waits for the next"),
        Shape::Itself if deadlock.until_timeout => "a thread waits for itself, until a timeout".to_owned(),
        Shape::Itself => "a thread waits for itself".to_owned(),
        Shape::DeadOwner => format!("{threads} {}", absent_owner(deadlock)),
    };
    let mut lines = vec![format!("DEADLOCK in {process} for {age}: {what}")];
    let members = deadlock.members.len();
    for (position, member) in deadlock.members.iter().enumerate().take(MEMBERS) {
        let next = deadlock.members[(position + 1) % members].party;
        let held = match deadlock.shape {
            Shape::DeadOwner if deadlock.forked_from.is_some() => {
                "a thread that does not exist here".to_owned()
            }
            Shape::DeadOwner => "a thread that has ended".to_owned(),
            Shape::Cycle | Shape::Itself => party(next),
        };
        let waits = party(member.party);
        lines.push(if member.joins {
            format!("  {waits}  waits for the end of  {held}")
        } else {
            let lock = lock_phrase(report, member.waits_for, member.address);
            format!("  {waits}  waits for  {lock}  held by  {held}")
        });
        lines.extend(code_of(report, member.party, width));
    }
    if members > MEMBERS {
        lines.push(format!("  … and {} more", members - MEMBERS));
    }
    lines
}

/// For whose lock the threads of a deadlock wait whose owner is not there.
fn absent_owner(deadlock: &Deadlock) -> String {
    if let Some(holder) = deadlock.forked_from {
        let (holder, pid) = (party(holder), holder.pid);
        return format!("for a lock that {holder} of the parent {pid} held when it forked");
    }
    match deadlock.dead_owner {
        Some(owner) => format!("for a lock whose holder, thread {owner}, has ended"),
        None => "for a lock whose holder has ended".to_owned(),
    }
}

fn stall_lines(stall: &Stall, report: &Report, width: Option<usize>) -> Vec<String> {
    let why = match stall.reason {
        Reason::Refused => "refused a lock by the kernel, it sleeps for ever in the C library",
        Reason::NobodyCanWake => "every thread that could wake them waits itself",
        Reason::TookEachOthers => "each at a lock that another of them took last",
    };
    let mut lines = vec![format!(
        "STALL in {} {} for {}: {}, {why}",
        stall.comm,
        stall.pid,
        duration(Some(stall.age_ns)),
        plural(stall.waits.len() as u64, "thread")
    )];
    for wait in stall.waits.iter().take(MEMBERS) {
        lines.push(format!(
            "  {}  has waited {} for  {}",
            party(wait.party),
            duration(Some(wait.age_ns)),
            stalled_at(report, wait)
        ));
        lines.extend(code_of(report, wait.party, width));
    }
    lines
}

/// What a thread of a stall waits for.
fn stalled_at(report: &Report, wait: &Stalled) -> String {
    if report.locks.iter().any(|lock| lock.id == wait.lock) {
        return lock_phrase(report, wait.lock, wait.address);
    }
    let kind = match wait.kind {
        Kind::Unknown => "futex",
        kind => kind.name(),
    };
    format!("{kind} {:#x}", wait.address)
}

/// The process's name, from its leader or, failing that, the thread's.
fn process_name(report: &Report, member: Party) -> String {
    let known = report.locks.iter().find(|lock| lock.pid == member.pid);
    let comm = known.map_or(member.comm, |lock| lock.comm);
    format!("{comm} {}", member.pid)
}

fn party(party: Party) -> String {
    if party.comm.bytes().is_empty() {
        format!("thread {}", party.tid)
    } else {
        format!("{} {}", party.comm, party.tid)
    }
}

/// `mutex accounts_mu` or `mutex 0x5654ae586088`.
fn lock_phrase(report: &Report, id: LockId, address: u64) -> String {
    let lock = report.locks.iter().find(|lock| lock.id == id);
    let kind = lock.map_or(Kind::Mutex, |lock| lock.kind).name();
    match lock.and_then(|lock| lock.symbol.as_ref()) {
        Some(symbol) => format!("{kind} {symbol} {address:#x}"),
        None => format!("{kind} {address:#x}"),
    }
}

fn headline(report: &Report, losses: &Losses) -> String {
    let total: u64 = report.locks.iter().map(|lock| lock.wait_ns).sum();
    let window = duration(Some(report.window_ns));
    if report.locks.is_empty() {
        return format!("no lock contended in {window} · {}", lost(losses));
    }
    let mut threads: Vec<u32> = report.edges.iter().map(|edge| edge.waiter.tid).collect();
    threads.extend(
        report
            .locks
            .iter()
            .flat_map(|lock| lock.waiters.iter().map(|(waiter, _)| waiter.tid)),
    );
    threads.sort_unstable();
    threads.dedup();
    format!(
        "{} contended · {} waited {} in {window} · {}",
        plural(report.locks.len() as u64, "lock"),
        plural(threads.len() as u64, "thread"),
        duration(Some(total)),
        lost(losses)
    )
}

fn table(report: &Report, look: Look) -> Vec<String> {
    let wide = look.width.is_none_or(|width| width >= WIDE);
    let mut table = Table::new(&[
        ("LOCK", Align::Left),
        ("KIND", Align::Left),
        ("WAITING", Align::Right),
        ("WAITS", Align::Right),
        ("TOTAL", Align::Right),
        ("MAX", Align::Right),
        if wide {
            ("HELD BY (evidence), WHAT IT DOES", Align::Left)
        } else {
            ("HELD BY", Align::Left)
        },
    ]);
    let shown = look.limit.unwrap_or(usize::MAX).min(report.locks.len());
    for lock in &report.locks[..shown] {
        table.row(vec![
            format!("{} {}", cut(&lock.comm.to_string(), Some(11)), short(lock)),
            lock.kind.name().to_owned(),
            count(lock.waiters.len() as u64),
            count(lock.waits),
            duration(Some(lock.wait_ns)),
            duration(Some(lock.max_ns)),
            match &lock.holder {
                None => UNKNOWN.to_owned(),
                Some(held) if wide => holder(held),
                Some(held) => party(held.party),
            },
        ]);
    }
    let mut lines = table.lines(look.width);
    lines.extend(super::states::rest(report.locks.len() - shown));
    if !wide {
        lines.extend(holders(&report.locks[..shown]));
    }
    lines
}

/// What the holders do, where the table has no room for it.
fn holders(locks: &[Lock]) -> Vec<String> {
    let held = locks.iter().filter_map(|lock| {
        let held = lock.holder.as_ref().filter(|held| held.doing.is_some())?;
        Some(format!("{} is held by {}", short(lock), holder(held)))
    });
    let mut lines: Vec<String> = held.collect();
    if !lines.is_empty() {
        lines.insert(0, String::new());
    }
    lines
}

/// A lock's name, or the end of its address: within a process that tells it from others.
fn short(lock: &Lock) -> String {
    match &lock.symbol {
        Some(symbol) => cut(symbol, Some(20)),
        None => format!("…{:04x}", lock.address & 0xffff),
    }
}

/// "worker-3 4127 (owner), asleep in fdatasync for 380 ms".
pub fn holder(holder: &Holder) -> String {
    let who = format!("{} ({})", party(holder.party), holder.grade.name());
    match &holder.doing {
        Some(doing) => format!("{who}, {}", self::doing(doing)),
        None => who,
    }
}

/// What a thread is doing, as a participle.
fn doing(doing: &Doing) -> String {
    let time = duration(doing.ns);
    let inside = doing
        .blocked_on
        .as_ref()
        .and_then(syscall_name)
        .map_or_else(String::new, |name| format!(" in {name}"));
    match doing.condition {
        Condition::Alive(State::Running) => format!("running for {time}"),
        Condition::Alive(State::Runnable) => format!("runnable, without a CPU for {time}"),
        Condition::Alive(State::Sleeping) => match &doing.waits_for {
            Some(waits_for) => format!("waiting itself {} for {time}", at_what(waits_for)),
            None => format!("asleep{inside} for {time}"),
        },
        Condition::Alive(State::Uninterruptible) => format!("in uninterruptible sleep{inside} for {time}"),
        Condition::Alive(State::Stopped) if doing.frozen => format!("frozen for {time}"),
        Condition::Alive(State::Stopped) => format!("stopped for {time}"),
        Condition::Alive(State::Traced) => format!("stopped by its tracer for {time}"),
        Condition::Alive(State::Idle | State::Parked) => format!("idle for {time}"),
        Condition::Zombie | Condition::Dead => "has ended".to_owned(),
    }
}

/// What a holder waits at itself. A lock is told from others by the end of its address; for what else
/// threads wait, the kind says more.
fn at_what(waits_for: &WaitsFor) -> String {
    match (waits_for.kind, waits_for.lock) {
        (Kind::Join, _) => waits_for.joined.map_or_else(
            || "for the end of a thread".to_owned(),
            |tid| format!("for the end of {tid}"),
        ),
        (Kind::Condvar, _) => "for a condition".to_owned(),
        (Kind::Semaphore, _) => "for a semaphore".to_owned(),
        (Kind::Barrier, _) => "at a barrier".to_owned(),
        (_, LockId::Private(_, address)) => format!("for …{:04x}", address & 0xffff),
        (_, LockId::Shared { .. }) => "for a shared lock".to_owned(),
    }
}

/// More on the worst lock.
fn detail(lock: &Lock, report: &Report, width: Option<usize>) -> Vec<String> {
    let name = match &lock.symbol {
        Some(symbol) => format!("{symbol} {:#x}", lock.address),
        None => format!("{:#x}", lock.address),
    };
    let mut lines = vec![format!(
        "{} {} {} {name}: {}, {}",
        lock.comm,
        lock.pid,
        lock.kind.name(),
        plural(lock.waits, "wait"),
        duration(Some(lock.wait_ns))
    )];
    lines.extend(lock.pattern.map(|pattern| match pattern {
        Pattern::Convoy => "  a convoy: two or more wait all the time".to_owned(),
        Pattern::HandOver => "  two threads hand it to and fro".to_owned(),
    }));
    lines.extend(histogram::lines(&lock.histogram));
    let edges: Vec<&Edge> = report.edges.iter().filter(|edge| edge.lock == lock.id).collect();
    for edge in edges.iter().take(EDGES) {
        lines.push(format!(
            "  {} waited {} for {}, {} ({})",
            party(edge.waiter),
            duration(Some(edge.wait_ns)),
            party(edge.holder),
            plural(edge.waits, "time"),
            edge.grade.name()
        ));
    }
    if edges.len() > EDGES {
        lines.push(format!("  … and {} more pairs", edges.len() - EDGES));
    }
    lines.extend(lock.code.as_ref().map(|found| code("  waits in ", found, width)));
    lines
}

/// Where a thread of a deadlock or stall waits, if that is known.
fn code_of(report: &Report, party: Party, width: Option<usize>) -> Option<String> {
    let found = report.codes.get(&party.tid)?;
    Some(code("      in ", found, width))
}

/// As many functions as fit into the line, but at least the two innermost.
fn code(start: &str, code: &Code, width: Option<usize>) -> String {
    let mut line = format!("{start}{}", code.frames.first().map_or("", String::as_str));
    for (at, frame) in code.frames.iter().enumerate().skip(1) {
        let more = format!(" ← {frame}");
        let long = line.chars().count() + more.chars().count() + " ← …".chars().count();
        if at > 1 && width.is_some_and(|width| long > width) {
            return line + " ← …";
        }
        line += &more;
    }
    if code.cut {
        line += " ← … (stack cut here)";
    }
    line
}

fn parallelism(process: &Parallelism) -> String {
    format!(
        "{} {}: {}; average {:.2} running, {:.2} runnable, {:.2} in locks",
        process.comm,
        process.pid,
        plural(process.threads, "thread"),
        process.running,
        process.runnable,
        process.lock_blocked
    )
}

/// What waits without being contention, in one line.
fn idle(report: &Report) -> String {
    let sum = |kind: Kind| -> u64 {
        let of_kind = report.idle.iter().filter(|lock| lock.kind == kind);
        of_kind.map(|lock| lock.waiters.len() as u64).sum()
    };
    let phrases = [
        (Kind::Condvar, "idle on condition variables"),
        (Kind::Parker, "parked"),
        (Kind::Join, "joining others"),
        (Kind::Semaphore, "at semaphores"),
        (Kind::Barrier, "at barriers"),
        (Kind::Unknown, "at futexes of unknown kind"),
    ];
    let parts: Vec<String> = phrases
        .iter()
        .map(|&(kind, phrase)| (sum(kind), phrase))
        .filter(|(threads, _)| *threads > 0)
        .map(|(threads, phrase)| format!("{} {phrase}", count(threads)))
        .collect();
    if parts.is_empty() {
        return "not contention: nothing".to_owned();
    }
    format!("not contention, threads: {}", parts.join(", "))
}

/// Processes whose memory was left out, which is why the holders of their locks are not known.
fn memory_gaps(report: &Report) -> Vec<String> {
    let line = |(&pid, (gap, comm)): (&u32, &(MemoryGap, Comm))| {
        format!("memory of {comm} {pid} was not read: {}", gap.text())
    };
    report.memory_gaps.iter().take(EDGES).map(line).collect()
}

/// Processes whose run-time system schedules threads at locks of its own, which no futex shows.
fn runtimes(report: &Report) -> Vec<String> {
    let line = |(&pid, (runtime, comm)): (&u32, &(Runtime, Comm))| {
        let (name, command) = (runtime.name(), runtime.command(pid));
        format!("{comm} {pid} keeps its locks to itself ({name}); what its threads wait for: {command}")
    };
    report.runtimes.iter().take(EDGES).map(line).collect()
}
