//! What the threads of a group waited in: blocked time by cause, and waits at locks by kind.

use std::collections::BTreeMap;

use probe_ebpf::waiting::{CLASSES, Class};

use super::account::Histogram;
use super::locks::Kind;
use super::locks::aggregator::KindDelta;

/// What a file descriptor stands for, which the name of the system call does not say.
pub trait Files {
    /// "pipe", "socket", "terminal" or "file"; `None` if it is something else or cannot be told.
    fn kind(&mut self, pid: u32, descriptor: u64) -> Option<&'static str>;
}

/// For whoever does not ask.
pub struct NoFiles;

impl Files for NoFiles {
    fn kind(&mut self, _pid: u32, _descriptor: u64) -> Option<&'static str> {
        None
    }
}

/// The name of a class in JSON, in labels and in text.
pub const fn class_name(class: Class) -> &'static str {
    match class {
        Class::Other => "other",
        Class::Poll => "poll",
        Class::Read => "read",
        Class::Write => "write",
        Class::File => "file",
        Class::Sync => "sync",
        Class::Sleep => "sleep",
        Class::Wait => "wait",
        Class::Socket => "socket",
        Class::Futex => "futex",
        Class::PageFault => "page_fault",
        Class::Kernel => "kernel",
    }
}

/// The label of time at futexes of a kind.
pub const fn futex_label(kind: Kind) -> &'static str {
    match kind {
        Kind::Mutex => "futex_mutex",
        Kind::PiMutex => "futex_pi_mutex",
        Kind::Rwlock => "futex_rwlock",
        Kind::Condvar => "futex_condvar",
        Kind::Semaphore => "futex_semaphore",
        Kind::Barrier => "futex_barrier",
        Kind::Join => "futex_join",
        Kind::Parker => "futex_parker",
        Kind::Unknown => "futex_unknown",
    }
}

/// All labels of blocked time.
pub fn labels() -> impl Iterator<Item = &'static str> {
    let classes = Class::ALL.into_iter().filter(|class| *class != Class::Futex);
    let of_descriptors = ["pipe", "socket", "terminal", "file"];
    let mut all: Vec<&str> = classes.map(class_name).collect();
    all.extend(of_descriptors);
    all.sort_unstable();
    all.dedup();
    all.into_iter().chain(Kind::ALL.into_iter().map(futex_label))
}

/// Waits at locks of one kind.
#[derive(Clone, Debug, Default)]
pub struct AtKind {
    /// Waits that ended.
    pub histogram: Histogram,
    /// Nanoseconds of them.
    pub wait_ns: u64,
    /// Threads that wait now.
    pub waiters: u64,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Waits {
    on: BTreeMap<&'static str, u64>,
    /// Nanoseconds at futexes whose kind is not yet told.
    untold_ns: u64,
    /// Waits at locks.
    pub kinds: BTreeMap<Kind, AtKind>,
}

impl Waits {
    /// Adds blocked time. `descriptor` is what reads and writes waited for, if that is known.
    pub fn add(&mut self, blocked_ns: &[u64; CLASSES], descriptor: Option<&'static str>) {
        for (class, &ns) in Class::ALL.into_iter().zip(blocked_ns) {
            match class {
                _ if ns == 0 => {}
                Class::Futex => self.untold_ns += ns,
                Class::Read | Class::Write => {
                    *self
                        .on
                        .entry(descriptor.unwrap_or(class_name(class)))
                        .or_default() += ns;
                }
                _ => *self.on.entry(class_name(class)).or_default() += ns,
            }
        }
    }

    /// Forgets who waits now; what was waited stays.
    pub fn begin_look(&mut self) {
        for at in self.kinds.values_mut() {
            at.waiters = 0;
        }
    }

    /// Adds waits at locks of a kind.
    pub fn add_kind(&mut self, kind: Kind, waited: &KindDelta) {
        let at = self.kinds.entry(kind).or_default();
        for (sum, count) in at.histogram.iter_mut().zip(waited.histogram) {
            *sum += count;
        }
        at.wait_ns += waited.ended_ns;
        at.waiters += waited.waiters;
    }

    /// Divides the time at futexes since the last look by kind: as the locks' own sums say, so far as there is time; the
    /// rest is of unknown kind. So all of them add up to what the threads' accounts say, and none ever falls.
    pub fn divide(&mut self, lately: &BTreeMap<Kind, u64>) {
        let told: u64 = lately.values().sum();
        let untold = std::mem::take(&mut self.untold_ns);
        let mut rest = untold;
        for (&kind, &ns) in lately {
            let share = if told <= untold {
                ns
            } else {
                u64::try_from(u128::from(ns) * u128::from(untold) / u128::from(told)).unwrap_or(0)
            };
            rest -= share;
            *self.on.entry(futex_label(kind)).or_default() += share;
        }
        // What rounding left is of the kind that has most; what nobody told of is of none.
        let most = lately.iter().max_by_key(|(_, ns)| **ns);
        let kind = most
            .filter(|_| told > untold)
            .map_or(Kind::Unknown, |(kind, _)| *kind);
        if rest > 0 {
            *self.on.entry(futex_label(kind)).or_default() += rest;
        }
    }

    /// Blocked time by cause, nanoseconds.
    pub fn on(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.on.iter().map(|(&on, &ns)| (on, ns))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However the locks' sums compare with the threads', what is told adds up to the threads' and never falls.
        #[test]
        fn time_at_futexes_adds_up(steps in proptest::collection::vec((any::<u32>(), any::<u32>(), any::<u32>()), 1..20)) {
            let mut waits = Waits::default();
            let (mut total, mut last) = (0, BTreeMap::new());
            for (threads, mutex, condvar) in steps {
                let mut blocked = [0; CLASSES];
                blocked[Class::Futex as usize] = u64::from(threads);
                waits.add(&blocked, None);
                total += u64::from(threads);
                let lately = BTreeMap::from([(Kind::Mutex, u64::from(mutex)), (Kind::Condvar, u64::from(condvar))]);
                waits.divide(&lately);
                let now: BTreeMap<_, _> = waits.on().collect();
                prop_assert_eq!(now.values().sum::<u64>(), total);
                prop_assert!(last.iter().all(|(on, ns)| now[on] >= *ns));
                last = now;
            }
        }
    }

    #[test]
    fn reads_are_told_by_their_descriptor() {
        let mut waits = Waits::default();
        let mut blocked = [0; CLASSES];
        blocked[Class::Read as usize] = 5;
        blocked[Class::Sync as usize] = 7;
        waits.add(&blocked, Some("pipe"));
        waits.add(&blocked, None);
        let on: Vec<_> = waits.on().collect();
        assert_eq!(on, [("pipe", 5), ("read", 5), ("sync", 14)]);
    }
}
