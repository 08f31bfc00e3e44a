//! The user's environment, freed from what `cargo run` added for xtask itself.
//!
//! xtask starts cargo again, partly another toolchain's. What the outer cargo and rustup's proxy set would choose the
//! wrong compiler, load the wrong libraries, or rebuild what a plain cargo had built.

use std::{
    env,
    ffi::{OsStr, OsString},
    path::Path,
    process::Command,
};

/// The environment names that cargo and rustup's proxies set for their children and that would steer another
/// toolchain's cargo (`RUSTUP_TOOLCHAIN`, `RUSTFLAGS`), or that merely are not the user's (`CARGO_MANIFEST_DIR`).
fn set_by_cargo(name: &str) -> bool {
    const THEIRS: [&str; 5] = [
        "CARGO",
        "CARGO_CRATE_NAME",
        "CARGO_PRIMARY_PACKAGE",
        "OUT_DIR",
        "RUST_RECURSION_COUNT",
    ];
    THEIRS.contains(&name)
        || ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

/// The names that choose or steer a compiler.
fn steers_compiler(name: &str) -> bool {
    const STEERING: [&str; 9] = [
        "RUSTUP_TOOLCHAIN",
        "RUSTC",
        "RUSTDOC",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_BOOTSTRAP",
        "RUSTFLAGS",
        "RUSTDOCFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
    ];
    STEERING.contains(&name)
        || [
            "CARGO_BUILD_",
            "CARGO_PROFILE_",
            "CARGO_TARGET_",
            "CARGO_UNSTABLE_",
        ]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// Takes out of a command's environment what `cargo run` put there for xtask itself.
pub fn scrub(command: &mut Command) -> &mut Command {
    remove_where(command, set_by_cargo);
    match env::var_os("LD_LIBRARY_PATH") {
        Some(paths) => match without_toolchains(&paths) {
            Some(rest) => command.env("LD_LIBRARY_PATH", rest),
            None => command.env_remove("LD_LIBRARY_PATH"),
        },
        None => command,
    }
}

/// [`scrub`], and nothing left that would steer the compiler of another toolchain either.
pub fn scrub_all(command: &mut Command) -> &mut Command {
    remove_where(scrub(command), steers_compiler)
}

fn remove_where(command: &mut Command, unwanted: fn(&str) -> bool) -> &mut Command {
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(unwanted) {
            command.env_remove(name);
        }
    }
    command
}

/// `cargo run` prepends its own library directories, where another toolchain's rustc would find the wrong ones.
fn without_toolchains(paths: &OsStr) -> Option<OsString> {
    let foreign = |path: &Path| {
        path.components().any(|part| part.as_os_str() == "rustlib")
            || path.components().any(|part| part.as_os_str() == "toolchains")
            || path.ends_with("deps")
            || path.ends_with("debug")
            || path.ends_with("release")
    };
    let rest: Vec<_> = env::split_paths(paths).filter(|path| !foreign(path)).collect();
    if rest.is_empty() {
        None
    } else {
        env::join_paths(rest).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_users_library_path_is_kept() {
        let theirs = OsString::from("/r/target/debug/deps:/h/.rustup/toolchains/stable/lib");
        assert_eq!(without_toolchains(&theirs), None);
        let mixed = OsString::from("/r/target/debug:/opt/lib:/h/toolchains/x/lib/rustlib/t/lib");
        assert_eq!(without_toolchains(&mixed), Some(OsString::from("/opt/lib")));
    }

    #[test]
    fn cargo_home_and_network_settings_stay() {
        for kept in [
            "CARGO_HOME",
            "CARGO_NET_OFFLINE",
            "CARGO_HTTP_CAINFO",
            "PATH",
            "RUSTUP_HOME",
        ] {
            assert!(!set_by_cargo(kept) && !steers_compiler(kept), "{kept}");
        }
        for dropped in [
            "CARGO_MANIFEST_DIR",
            "RUSTUP_TOOLCHAIN",
            "CARGO_TARGET_DIR",
            "CARGO_ENCODED_RUSTFLAGS",
        ] {
            assert!(set_by_cargo(dropped) || steers_compiler(dropped), "{dropped}");
        }
    }
}
