//! How long one look may wait for /proc, all its questions together.

use std::time::Duration;

/// What is left of it.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    left: Duration,
}

impl Budget {
    /// A new look.
    pub const fn new(time: Duration) -> Self {
        Self { left: time }
    }

    /// What is left.
    pub const fn left(&self) -> Duration {
        self.left
    }

    /// Takes off what was waited.
    pub const fn spend(&mut self, waited: Duration) {
        self.left = self.left.saturating_sub(waited);
    }
}
