//! Puts the eBPF object where `include_bytes_aligned!` finds it.
//!
//! `cargo xtask build` compiles the object first and names it in `PROCPROBE_BPF_OBJECT`. Without that variable the
//! binary is built around an empty object, so that `cargo check`, `clippy` and `test` of the host crates need no
//! eBPF toolchain; such a binary says at start that it has no programs, and offers `--source proc`.

use std::path::PathBuf;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-env-changed=PROCPROBE_BPF_OBJECT");
    println!("cargo::rerun-if-changed=build.rs");
    let out_dir =
        env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("cargo sets OUT_DIR for build scripts"))?;
    let target = PathBuf::from(out_dir).join("probe.o");
    match env::var_os("PROCPROBE_BPF_OBJECT").map(PathBuf::from) {
        Some(object) => {
            println!("cargo::rerun-if-changed={}", object.display());
            fs::copy(&object, &target).map_err(|e| {
                io::Error::other(format!("copying the eBPF object {}: {e}", object.display()))
            })?;
        }
        None => fs::write(&target, [])?,
    }
    Ok(())
}
