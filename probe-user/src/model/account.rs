//! How long a thread was in each state, and how often.
//!
//! An account has the closed intervals that the kernel side booked and, in [`Account::time_ns`], the open one as well:
//! a thread that has been stuck for an hour shows an hour. The histograms count closed intervals only.

use probe_ebpf::histogram::{BUCKETS, bucket_of};
use probe_ebpf::ledger::COMMON_STATES;
use probe_ebpf::state::{STATES, State};
use probe_ebpf::waiting::CLASSES;

/// Durations of one state by log2 bucket (see [`probe_ebpf::histogram`]).
pub type Histogram = [u64; BUCKETS];

/// Identity of an account: when it began and which tid it began with. An exec by a thread other than the leader
/// changes the tid; a tid may be reused; the account's identity stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId {
    /// CLOCK_MONOTONIC when it began.
    pub birth_ns: u64,
    /// The tid then.
    pub birth_tid: u32,
}

/// One thread's account at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Identity.
    pub id: AccountId,
    /// CLOCK_MONOTONIC when it was read: the times below add up to the time since [`AccountId::birth_ns`].
    pub read_ns: u64,
    /// Nanoseconds per state, the open interval included, by [`State::index`].
    pub time_ns: [u64; STATES],
    /// Nanoseconds per state in closed intervals only: what the histograms add up to.
    pub closed_ns: [u64; STATES],
    /// Nanoseconds sleeping and uninterruptible by what was waited in, the open interval included, by [`probe_ebpf::waiting::Class`].
    pub blocked_ns: [u64; CLASSES],
    /// Durations of closed intervals; `None` if they were not read.
    pub histograms: Option<Histograms>,
}

/// Durations of closed intervals: the cells that are not zero, since most threads have few.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histograms {
    /// Sorted by slot.
    cells: Vec<Cell>,
}

/// One bucket of one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    /// [`State::index`] times [`BUCKETS`] plus the bucket.
    slot: u16,
    /// As wide as the kernel side counts; may wrap.
    count: u32,
}

impl Histograms {
    /// From the kernel side's cells: running, runnable, sleeping, uninterruptible, idle; and the rare states if any.
    pub fn from_kernel(
        common: &[[u32; BUCKETS]; COMMON_STATES],
        rare: Option<&[[u32; BUCKETS]; STATES - COMMON_STATES]>,
    ) -> Self {
        let rare = rare.map(|rare| rare.as_flattened()).unwrap_or_default();
        let slots = common.as_flattened().iter().chain(rare).zip(0_u16..);
        Self {
            cells: slots
                .filter(|(count, _)| **count != 0)
                .map(|(&count, slot)| Cell { slot, count })
                .collect(),
        }
    }

    /// How many stays in a state were counted.
    pub fn total(&self, state: State) -> u64 {
        let cells = self
            .cells
            .iter()
            .filter(|cell| usize::from(cell.slot) / BUCKETS == state.index());
        cells.map(|cell| u64::from(cell.count)).sum()
    }

    /// Counts one stay.
    pub fn count(&mut self, state: State, duration_ns: u64) {
        let Ok(slot) = u16::try_from(state.index() * BUCKETS + bucket_of(duration_ns)) else {
            return;
        };
        match self.cells.binary_search_by_key(&slot, |cell| cell.slot) {
            Ok(at) => self.cells[at].count = self.cells[at].count.wrapping_add(1),
            Err(at) => self.cells.insert(at, Cell { slot, count: 1 }),
        }
    }

    /// What every cell gained since `earlier`: slot and count.
    fn growth_since<'a>(&'a self, earlier: Option<&'a Self>) -> impl Iterator<Item = Cell> + 'a {
        let mut before = earlier
            .map(|earlier| earlier.cells.as_slice())
            .unwrap_or_default()
            .iter()
            .peekable();
        self.cells.iter().map(move |cell| {
            while before.next_if(|before| before.slot < cell.slot).is_some() {}
            let before = before
                .next_if(|before| before.slot == cell.slot)
                .map_or(0, |before| before.count);
            Cell {
                slot: cell.slot,
                count: growth(cell.count, before),
            }
        })
    }

    /// Raises every cell to that of a later reading.
    fn raise(&mut self, later: &Self) {
        let grown: Vec<Cell> = later
            .growth_since(Some(self))
            .filter(|cell| cell.count > 0)
            .collect();
        for cell in grown {
            match self.cells.binary_search_by_key(&cell.slot, |cell| cell.slot) {
                Ok(at) => self.cells[at].count = self.cells[at].count.wrapping_add(cell.count),
                Err(at) => self.cells.insert(at, cell),
            }
        }
    }
}

/// Time, counts and durations per state: what one or many threads did over some time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Nanoseconds per state, by [`State::index`].
    pub time_ns: [u64; STATES],
    /// Nanoseconds per state of the intervals that ended.
    pub closed_ns: [u64; STATES],
    /// Nanoseconds sleeping and uninterruptible by what was waited in, by [`probe_ebpf::waiting::Class`].
    pub blocked_ns: [u64; CLASSES],
    /// Durations of the intervals that ended. Most threads end none between two looks, and have none.
    histograms: Option<Box<[Histogram; STATES]>>,
}

static NO_HISTOGRAM: Histogram = [0; BUCKETS];

impl Usage {
    /// Adds what an account gained since `earlier` (all of it if there is no earlier one).
    ///
    /// Never subtracts: an open interval may have been booked to sleeping a moment before its wake-up became visible,
    /// and turn out shorter. Use [`HighWater`] where the same account is added again and again.
    pub fn add_growth(&mut self, account: &Account, earlier: Option<&Account>) {
        for index in 0..STATES {
            let before = earlier.map_or(0, |earlier| earlier.time_ns[index]);
            self.time_ns[index] += account.time_ns[index].saturating_sub(before);
            let before = earlier.map_or(0, |earlier| earlier.closed_ns[index]);
            self.closed_ns[index] += account.closed_ns[index].saturating_sub(before);
        }
        for index in 0..CLASSES {
            let before = earlier.map_or(0, |earlier| earlier.blocked_ns[index]);
            self.blocked_ns[index] += account.blocked_ns[index].saturating_sub(before);
        }
        let Some(now) = &account.histograms else { return };
        let before = earlier.and_then(|earlier| earlier.histograms.as_ref());
        for cell in now.growth_since(before).filter(|cell| cell.count > 0) {
            let (state, bucket) = (usize::from(cell.slot) / BUCKETS, usize::from(cell.slot) % BUCKETS);
            self.histograms.get_or_insert_default()[state][bucket] += u64::from(cell.count);
        }
    }

    /// Adds another usage.
    pub fn add(&mut self, other: &Self) {
        self.add_times(other);
        if let Some(others) = &other.histograms {
            let ours = self.histograms.get_or_insert_default();
            let cells = ours.as_flattened_mut().iter_mut().zip(others.as_flattened());
            cells.for_each(|(sum, count)| *sum += count);
        }
    }

    /// The same without the durations, which somebody else counts.
    pub fn add_times(&mut self, other: &Self) {
        for index in 0..STATES {
            self.time_ns[index] += other.time_ns[index];
            self.closed_ns[index] += other.closed_ns[index];
        }
        for index in 0..CLASSES {
            self.blocked_ns[index] += other.blocked_ns[index];
        }
    }

    /// Durations of the intervals of a state that ended.
    pub fn histogram(&self, state: State) -> &Histogram {
        let all = self.histograms.as_ref();
        all.map_or(&NO_HISTOGRAM, |all| &all[state.index()])
    }

    /// The same, to be made up.
    #[cfg(test)]
    pub fn histogram_mut(&mut self, state: State) -> &mut Histogram {
        &mut self.histograms.get_or_insert_default()[state.index()]
    }

    /// How many intervals of a state ended.
    pub fn count(&self, state: State) -> u64 {
        self.histogram(state).iter().sum()
    }
}

/// What a cell gained. The kernel side counts in 32 bits and may wrap; a cell that seems to have fallen did not: a stay was
/// counted early, from a turn under way, and came to lie in the next bucket when the turn was booked.
fn growth(now: u32, before: u32) -> u32 {
    let growth = now.wrapping_sub(before);
    if growth.cast_signed() < 0 { 0 } else { growth }
}

/// The last account that was added to a counter, raised so that the next difference is never negative.
#[derive(Clone, Debug)]
pub struct HighWater(Account);

impl HighWater {
    /// Nothing added yet.
    pub fn new(id: AccountId) -> Self {
        Self(Account {
            id,
            read_ns: 0,
            time_ns: [0; STATES],
            closed_ns: [0; STATES],
            blocked_ns: [0; CLASSES],
            histograms: None,
        })
    }

    /// What was added so far, and what was there before.
    pub fn time_ns(&self) -> &[u64; STATES] {
        &self.0.time_ns
    }

    /// Adds the growth since last time to `usage` and remembers `account`.
    ///
    /// A time that fell is remembered at its height, so its next growth is counted once.
    pub fn advance(&mut self, account: &Account, usage: &mut Usage) {
        usage.add_growth(account, Some(&self.0));
        for index in 0..STATES {
            self.0.time_ns[index] = self.0.time_ns[index].max(account.time_ns[index]);
        }
        self.0.read_ns = account.read_ns;
        for index in 0..STATES {
            self.0.closed_ns[index] = self.0.closed_ns[index].max(account.closed_ns[index]);
        }
        for index in 0..CLASSES {
            self.0.blocked_ns[index] = self.0.blocked_ns[index].max(account.blocked_ns[index]);
        }
        match (&mut self.0.histograms, &account.histograms) {
            (Some(mark), Some(now)) => mark.raise(now),
            (mark @ None, Some(now)) => *mark = Some(now.clone()),
            (_, None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn account(time_ns: [u64; STATES]) -> Account {
        Account {
            id: AccountId {
                birth_ns: 1,
                birth_tid: 2,
            },
            read_ns: 0,
            time_ns,
            closed_ns: [0; STATES],
            blocked_ns: [0; CLASSES],
            histograms: None,
        }
    }

    #[test]
    fn histogram_cells_may_wrap() {
        let cells = |value| {
            let mut common = [[0; BUCKETS]; COMMON_STATES];
            common[0][3] = value;
            Some(Histograms::from_kernel(&common, None))
        };
        let before = Account {
            histograms: cells(u32::MAX),
            ..account([0; STATES])
        };
        let after = Account {
            histograms: cells(2),
            ..account([0; STATES])
        };
        let mut usage = Usage::default();
        usage.add_growth(&after, Some(&before));
        assert_eq!(usage.count(State::Running), 3);
    }

    proptest! {
        /// However the readings jitter, a counter never falls and ends at the highest reading.
        #[test]
        fn counters_never_fall(readings in proptest::collection::vec(any::<[u32; STATES]>(), 1..20)) {
            let mut mark = HighWater::new(AccountId { birth_ns: 1, birth_tid: 2 });
            let mut usage = Usage::default();
            let mut last = [0; STATES];
            for reading in &readings {
                mark.advance(&account(reading.map(u64::from)), &mut usage);
                prop_assert!(usage.time_ns.iter().zip(&last).all(|(now, last)| now >= last));
                last = usage.time_ns;
            }
            for index in 0..STATES {
                prop_assert_eq!(usage.time_ns[index], readings.iter().map(|r| u64::from(r[index])).max().unwrap());
            }
        }
    }
}
