//! The `procprobe` binary: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    probe_user::cli::main()
}
