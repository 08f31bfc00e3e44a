//! Running totals of lock waits per group and kind, for metrics; they outlive the locks.
