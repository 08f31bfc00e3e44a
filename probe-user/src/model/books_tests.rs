//! Tests of the books: bounded, exact, and never lower than before.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::model::gone::LINGER;
use crate::model::tracker::tests::{NoUnits, account, exit, snapshot, thread};
use crate::model::waits::NoFiles;

const RUNNING: usize = State::Running as usize;

fn linger_ns() -> u64 {
    u64::try_from(LINGER.as_nanos()).unwrap()
}

/// Time on a CPU by group.
fn running(books: &Books) -> BTreeMap<String, u64> {
    let group =
        |(key, totals): (&GroupKey, &GroupTotals)| (key.comm.to_string(), totals.usage.time_ns[RUNNING]);
    books.groups().map(group).collect()
}

fn look(books: &mut Books, at_ns: u64, processes: &[(u32, &str, u64)]) {
    let threads = processes.iter().map(|&(pid, comm, ran_ns)| {
        let account = account(pid, at_ns, ran_ns, 1);
        thread(pid, pid, comm, Some(account), ran_ns)
    });
    books.snapshot(&snapshot(at_ns, threads.collect()), &mut NoUnits, &mut NoFiles);
}

#[test]
fn a_group_that_is_gone_makes_room_and_comes_back_as_it_was() {
    let mut books = Books::new(2);
    look(&mut books, 1, &[(1, "a", 100), (2, "b", 10), (3, "c", 7)]);
    assert_eq!(books.folded(), 1);
    assert_eq!(
        running(&books),
        BTreeMap::from([("a".into(), 100), ("b".into(), 10), (OTHER.into(), 7)])
    );
    let death = Event {
        comm: Comm::new("a"),
        ..exit(1, 2, account(1, 2, 150, 1), 150)
    };
    books.event(&death, &mut NoUnits);
    look(&mut books, 3, &[(2, "b", 20), (3, "c", 8)]);
    assert_eq!(running(&books)["a"], 150, "its last deeds are seen");
    look(&mut books, linger_ns(), &[(2, "b", 20), (3, "c", 8)]);
    assert_eq!(running(&books)["a"], 150, "and seen long enough");
    look(&mut books, 3 + linger_ns(), &[(2, "b", 21), (3, "c", 9)]);
    assert!(!running(&books).contains_key("a"));
    look(&mut books, 4 + linger_ns(), &[(2, "b", 22), (3, "c", 10)]);
    let now = running(&books);
    assert_eq!(
        (now["c"], now[OTHER]),
        (1, 9),
        "c has a place of its own from here on"
    );
    assert_eq!(books.folded(), 0);
    look(&mut books, 5 + 2 * linger_ns(), &[(2, "b", 23)]);
    look(&mut books, 6 + 3 * linger_ns(), &[(2, "b", 23), (5, "a", 3)]);
    assert_eq!(running(&books)["a"], 153, "a goes on where it was");
}

proptest! {
    /// Whoever lives, dies and comes back, with more names than room: sums are exact, and no counter of a group falls.
    #[test]
    fn sums_are_exact_and_no_counter_falls(
        turns in proptest::collection::vec((0..12_u32, 1..1000_u64, any::<bool>()), 1..60),
    ) {
        let mut books = Books::new(4);
        let mut alive: BTreeMap<u32, u64> = BTreeMap::new();
        let (mut ran, mut highest, mut now_ns) = (0, BTreeMap::<String, u64>::new(), 1);
        for (pid, ran_ns, dies) in turns {
            now_ns += linger_ns() / 3;
            if dies {
                alive.remove(&pid);
            } else {
                *alive.entry(pid).or_default() += ran_ns;
                ran += ran_ns;
            }
            let names: Vec<_> = alive.iter().map(|(&pid, &ran)| (pid, format!("p{pid}"), ran)).collect();
            // A pid that comes back is another process.
            let threads = names.iter().map(|(pid, comm, ran)| {
                let mut account = account(*pid, now_ns, *ran, 1);
                account.id.birth_ns = u64::from(*pid);
                thread(*pid, *pid, comm, Some(account), *ran)
            });
            books.snapshot(&snapshot(now_ns, threads.collect()), &mut NoUnits, &mut NoFiles);
            let shown = running(&books);
            prop_assert!(shown.len() <= 4 + 2);
            for (comm, value) in shown {
                let before = highest.entry(comm.clone()).or_default();
                prop_assert!(value >= *before, "{comm} falls from {before} to {value}");
                *before = value;
            }
            let total: u64 = highest.values().sum();
            prop_assert_eq!(total, ran);
        }
    }
}
