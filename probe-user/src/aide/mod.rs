//! The *aide*: does the two things that the agent may not do any more once it is confined. It starts the
//! namer, and it turns on the kernel's run-time statistics, which takes `CAP_SYS_ADMIN`.
//!
//! It is this program again, started before the agent gives up its privileges, and hears from the agent
//! alone: one of two words. Whoever takes the agent over can have statistics counted and namers started, and
//! nothing executed. It keeps `CAP_SYS_ADMIN`, if it was given it, and nothing else; the namer inherits its
//! filter of system calls and its Landlock domain.

pub mod client;
pub mod server;

use serde::{Deserialize, Serialize};

/// What the agent starts itself with. No verb: nobody else does.
pub const ARGUMENT: &str = "--be-the-aide";

/// What the agent says, with a number that the answer repeats.
#[derive(Debug, Serialize, Deserialize)]
struct Asked {
    number: u32,
    wish: Wish,
}

/// What it wants.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Wish {
    /// A namer. The end of its line comes with the message.
    Namer,
    /// Statistics, for as long as the descriptor that is answered stays open.
    Statistics,
}

/// What the aide says.
#[derive(Debug, Serialize, Deserialize)]
enum Said {
    /// Confined, and waiting.
    Ready(Ready),
    /// It cannot be confined, for this reason.
    Unfit(String),
    /// Done, and a descriptor comes with the message: the namer, whose pid this is, or the statistics.
    Done { number: u32, pid: u32 },
    /// Not done, for this reason.
    Failed { number: u32, why: String },
}

/// How it is confined.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ready {
    /// The version of Landlock that holds, if there is one.
    pub landlock: Option<u8>,
    /// Whether it can turn on statistics.
    pub measures: bool,
}
