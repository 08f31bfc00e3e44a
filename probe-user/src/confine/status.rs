//! What the kernel says of this process, in `/proc/thread-self/status`: not what we believe to have done.

use std::collections::BTreeMap;
use std::fs;

/// The fields of `status`, by name.
#[derive(Debug, Default)]
pub struct Status(BTreeMap<String, String>);

impl Status {
    /// Of the thread that asks. Empty where there is no /proc.
    pub fn read() -> Self {
        Self::parse(&fs::read_to_string("/proc/thread-self/status").unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        Self(
            fields
                .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
                .collect(),
        )
    }

    /// A field; empty if there is none.
    pub fn field(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// Whether none of its uids is root's.
    pub fn is_no_root(&self) -> bool {
        let mut uids = self.field("Uid").split_whitespace().peekable();
        uids.peek().is_some() && uids.all(|uid| uid != "0")
    }

    /// Whether a filter of system calls holds.
    pub fn is_filtered(&self) -> bool {
        self.field("Seccomp") == "2"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_kernel_says_counts() {
        let status = Status::parse("Name:\tx\nUid:\t998\t998\t998\t998\nSeccomp:\t2\n");
        assert!(status.is_no_root() && status.is_filtered());
        let status = Status::parse("Uid:\t998\t998\t0\t998\nSeccomp:\t0\n");
        assert!(!status.is_no_root() && !status.is_filtered());
        let status = Status::parse("");
        assert!(!status.is_no_root() && !status.is_filtered());
    }
}
