//! Whose turn it is: of all users whose processes are asked about, that of the one who has cost least time
//! lately. What one user's processes cost is waited for by that user's other processes, not by everybody's.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::Subject;

/// Less than this is no reason to come later.
const GRAIN: Duration = Duration::from_millis(50);
/// After this time half of what somebody cost is forgotten.
const HALF_LIFE: Duration = Duration::from_secs(60);
/// Users that are remembered.
const REMEMBERED: usize = 1_024;

/// The user a question is about; root where that is not known.
pub fn user_of(subject: &Subject) -> u32 {
    subject.uid.unwrap_or(0)
}

/// Open questions.
pub struct Queue<Q> {
    users: Vec<User<Q>>,
}

struct User<Q> {
    id: u32,
    /// So far, remembered and in this queue.
    cost: Duration,
    /// Of that, in this queue.
    spent: Duration,
    questions: VecDeque<(Subject, Q)>,
}

impl<Q> Queue<Q> {
    /// Questions in their order, which holds among those about the same user's processes.
    pub fn new(questions: impl IntoIterator<Item = (Subject, Q)>, accounts: &Accounts, now: Instant) -> Self {
        let mut by_user: HashMap<u32, VecDeque<(Subject, Q)>> = HashMap::new();
        for question in questions {
            by_user
                .entry(user_of(&question.0))
                .or_default()
                .push_back(question);
        }
        let user = |(id, questions)| User {
            id,
            cost: accounts.cost(id, now),
            spent: Duration::ZERO,
            questions,
        };
        let mut users: Vec<_> = by_user.into_iter().map(user).collect();
        // Of those who cost the same, root comes first, then the system's users: nobody gets before them by
        // having many ids.
        users.sort_by_key(|user| user.id);
        Self { users }
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        self.users.iter().map(|user| user.questions.len()).sum()
    }

    /// The next.
    pub fn take(&mut self) -> Option<(Subject, Q)> {
        let open = self.users.iter_mut().filter(|user| !user.questions.is_empty());
        let next = open.min_by_key(|user| user.cost.as_nanos() / GRAIN.as_nanos())?;
        next.questions.pop_front()
    }

    /// What a question cost.
    pub fn charge(&mut self, user: u32, time: Duration) {
        if let Some(user) = self.users.iter_mut().find(|known| known.id == user) {
            user.cost += time;
            user.spent += time;
        }
    }

    /// Forgets what is open; what each user cost.
    pub fn end(&mut self) -> impl Iterator<Item = (u32, Duration)> {
        let users = std::mem::take(&mut self.users).into_iter();
        users.map(|user| (user.id, user.spent))
    }
}

/// What users cost lately.
#[derive(Default)]
pub struct Accounts(HashMap<u32, (Duration, Instant)>);

impl Accounts {
    fn cost(&self, user: u32, now: Instant) -> Duration {
        let known = self.0.get(&user);
        known.map_or(Duration::ZERO, |&(cost, since)| {
            let age = now.saturating_duration_since(since).as_secs_f64();
            cost.mul_f64((-age / HALF_LIFE.as_secs_f64()).exp2())
        })
    }

    /// Adds to it.
    pub fn charge(&mut self, user: u32, time: Duration, now: Instant) {
        if time.is_zero() {
            return;
        }
        if self.0.len() >= REMEMBERED {
            let costs: Vec<_> = self.0.keys().map(|&user| (user, self.cost(user, now))).collect();
            for (user, _) in costs.into_iter().filter(|(_, cost)| *cost < GRAIN) {
                self.0.remove(&user);
            }
        }
        if self.0.len() < REMEMBERED || self.0.contains_key(&user) {
            self.0.insert(user, (self.cost(user, now) + time, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(users: &[u32], accounts: &Accounts) -> Queue<u32> {
        let questions = users.iter().zip(0..).map(|(&uid, number)| {
            let subject = Subject {
                uid: Some(uid),
                ..Subject::of(number, 1)
            };
            (subject, number)
        });
        Queue::new(questions, accounts, Instant::now())
    }

    /// Whose turn it is, until nothing is open, if questions about a user cost so much.
    fn turns(mut queue: Queue<u32>, cost: impl Fn(u32) -> u64) -> Vec<u32> {
        std::iter::from_fn(|| {
            let user = user_of(&queue.take()?.0);
            queue.charge(user, Duration::from_millis(cost(user)));
            Some(user)
        })
        .collect()
    }

    #[test]
    fn who_costs_much_waits_for_itself() {
        let accounts = Accounts::default();
        let dear = |user| if user == 1000 { 600 } else { 1 };
        let asked = queue(&[1000, 1000, 1000, 1001, 1001, 0], &accounts);
        assert_eq!(turns(asked, dear), [0, 1000, 1001, 1001, 1000, 1000]);
    }

    #[test]
    fn it_is_remembered_for_a_while() {
        let mut accounts = Accounts::default();
        let now = Instant::now();
        accounts.charge(1000, Duration::from_secs(1), now);
        assert_eq!(turns(queue(&[1000, 1001], &accounts), |_| 1), [1001, 1000]);
        assert_eq!(accounts.cost(1000, now + HALF_LIFE), Duration::from_millis(500));
        assert!(accounts.cost(1000, now + HALF_LIFE * 10) < GRAIN);
    }

    #[test]
    fn users_that_are_remembered_are_bounded() {
        let mut accounts = Accounts::default();
        let now = Instant::now();
        accounts.charge(1000, Duration::from_secs(10), now);
        for user in 0..5_000 {
            accounts.charge(100_000 + user, Duration::from_millis(1), now);
        }
        assert!(accounts.0.len() <= REMEMBERED);
        assert_eq!(
            accounts.cost(1000, now),
            Duration::from_secs(10),
            "nobody is forgotten for many others"
        );
    }

    #[test]
    fn their_order_is_kept_for_each_user() {
        let mut asked = queue(&[5, 5, 5], &Accounts::default());
        assert_eq!(asked.len(), 3);
        let numbers: Vec<u32> = std::iter::from_fn(|| Some(asked.take()?.1)).collect();
        assert_eq!(numbers, [0, 1, 2]);
    }
}
