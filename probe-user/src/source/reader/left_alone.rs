//! Who is not asked: a process that hung a thread of ours, for a minute; one whose user's processes have hung
//! several that have not come back; and whom the look itself has found to be stuck.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::pool::Hanging;
use super::subject::Subject;
use crate::model::locks::memory::MemoryGap;

/// How long a process is left alone.
const PERIOD: Duration = Duration::from_secs(60);
/// Threads that one user's processes may hold; root's may hold more.
const OF_A_USER: usize = 4;
/// Entries that are kept at most, a minute's worth of them.
const REMEMBERED: usize = 4_096;

/// See the module.
#[derive(Default)]
pub struct LeftAlone(HashMap<(u32, u64), Entry>);

struct Entry {
    until: Instant,
    uid: Option<u32>,
    thread: Hanging,
}

impl LeftAlone {
    /// Remembers that a thread hangs in a process.
    pub fn add(&mut self, subject: &Subject, thread: Hanging, now: Instant) {
        if self.0.len() >= REMEMBERED {
            self.0.retain(|_, entry| entry.thread.still());
        }
        let entry = Entry {
            until: now + PERIOD,
            uid: subject.uid,
            thread,
        };
        self.0.insert((subject.pid, subject.start_ns), entry);
    }

    /// Forgets those whose time is over. Where a thread still hangs, another would.
    pub fn sweep(&mut self, now: Instant) {
        self.0
            .retain(|_, entry| entry.until > now || entry.thread.still());
    }

    /// Why a process is not asked.
    pub fn reason(&self, subject: &Subject) -> Option<MemoryGap> {
        if self.0.contains_key(&(subject.pid, subject.start_ns)) {
            return Some(MemoryGap::Hangs);
        }
        subject.leave.or_else(|| {
            let uid = subject.uid.filter(|&uid| uid != 0 && !self.0.is_empty())?;
            let of_user = |entry: &&Entry| entry.uid == Some(uid) && entry.thread.still();
            (self.0.values().filter(of_user).count() >= OF_A_USER).then_some(MemoryGap::UserHangs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pid: u32, uid: u32) -> Subject {
        Subject {
            uid: Some(uid),
            ..Subject::of(pid, 1)
        }
    }

    #[test]
    fn a_process_is_left_alone_for_a_minute_and_for_as_long_as_it_hangs() {
        let (mut left_alone, began) = (LeftAlone::default(), Instant::now());
        left_alone.add(&of(1, 1000), Hanging::for_tests(false), began);
        left_alone.add(&of(2, 1000), Hanging::for_tests(true), began);
        assert_eq!(left_alone.reason(&of(1, 1000)), Some(MemoryGap::Hangs));
        assert_eq!(left_alone.reason(&Subject::of(1, 2)), None, "another of that pid");
        left_alone.sweep(began + PERIOD / 2);
        assert!(left_alone.reason(&of(1, 1000)).is_some());
        left_alone.sweep(began + PERIOD);
        assert_eq!(left_alone.reason(&of(1, 1000)), None);
        assert!(
            left_alone.reason(&of(2, 1000)).is_some(),
            "its thread has not come back"
        );
    }

    #[test]
    fn a_user_may_hold_a_few_threads_and_root_more() {
        let (mut left_alone, now) = (LeftAlone::default(), Instant::now());
        for pid in 1..=4 {
            assert_eq!(left_alone.reason(&of(9, 1000)), None);
            left_alone.add(&of(pid, 1000), Hanging::for_tests(true), now);
            left_alone.add(&of(pid + 10, 0), Hanging::for_tests(true), now);
        }
        assert_eq!(left_alone.reason(&of(9, 1000)), Some(MemoryGap::UserHangs));
        assert_eq!(left_alone.reason(&of(9, 1001)), None);
        assert_eq!(left_alone.reason(&of(9, 0)), None);
    }
}
