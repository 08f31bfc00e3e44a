//! What the binary is made of, for programs that look for known holes: a bill of materials in `CycloneDX`'s
//! form.
//!
//! `cargo cyclonedx` describes the crates, those of the eBPF object included; those that only took part in the build
//! (macros, build scripts) have the scope `excluded`. What no crate stands for is added here: Rust's own
//! libraries, twice, and the C library, which a static binary carries along.

use std::{
    collections::HashSet,
    ffi::CStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    VERSION,
    crates::{Crates, FEATURES},
    epoch,
};
use crate::{
    build::STATIC_TRIPLE,
    paths::Paths,
    process,
    toolchain::{Toolchain, host_rustc},
    workspace::Workspace,
};

/// What the file is called, wherever it lies.
pub const NAME: &str = "procprobe.cdx.json";
/// The newest that the plugin writes.
const SPECIFICATION: &str = "1.5";

/// Writes the bill for a binary.
pub fn write(
    workspace: &Workspace,
    toolchain: &Toolchain,
    crates: &Crates,
    binary: &Path,
    to: &Path,
) -> Result<()> {
    let text = Paths::of(workspace, toolchain).renamed(&of_crates(workspace)?);
    let mut bill: Value = serde_json::from_str(&text).context("reading what `cargo cyclonedx` wrote")?;
    describe(&mut bill["metadata"]["component"], binary)?;
    let root = product_ref(&bill)?;
    let own = libraries(workspace, toolchain)?;
    let refs: Vec<Value> = own.iter().map(|library| library["bom-ref"].clone()).collect();
    let components = list(&mut bill, "components")?;
    keep(components, crates);
    components.extend(own);
    let mut known: HashSet<String> = components.iter().filter_map(reference).collect();
    known.extend(root.as_str().map(str::to_owned));
    let dependencies = list(&mut bill, "dependencies")?;
    dependencies.retain(|one| one["ref"].as_str().is_some_and(|it| known.contains(it)));
    for one in dependencies {
        let is_root = one["ref"] == root;
        if let Some(on) = one.get_mut("dependsOn").and_then(Value::as_array_mut) {
            on.retain(|it| it.as_str().is_some_and(|it| known.contains(it)));
            if is_root {
                on.extend(refs.iter().cloned());
            }
        }
    }
    let text = serde_json::to_string_pretty(&bill).context("writing JSON")?;
    fs::write(to, text + "\n").with_context(|| format!("writing {}", to.display()))
}

/// The product is the binary; to the plugin it is a crate with several targets.
fn describe(product: &mut Value, binary: &Path) -> Result<()> {
    ensure!(
        product["name"] == "probe-user",
        "`cargo cyclonedx` describes {}",
        product["name"]
    );
    product["name"] = json!("procprobe");
    product["purl"] = json!(format!("pkg:generic/procprobe@{VERSION}"));
    product["hashes"] = json!([{"alg": "SHA-256", "content": digest(binary)?}]);
    if let Some(product) = product.as_object_mut() {
        product.remove("components");
    }
    Ok(())
}

fn list<'a>(bill: &'a mut Value, name: &str) -> Result<&'a mut Vec<Value>> {
    bill[name]
        .as_array_mut()
        .with_context(|| format!("a bill without {name}"))
}

fn reference(component: &Value) -> Option<String> {
    component["bom-ref"].as_str().map(str::to_owned)
}

/// The plugin counts in what tests switch on, and takes macros for something that is linked.
fn keep(components: &mut Vec<Value>, crates: &Crates) {
    let name = |one: &Value| {
        let text = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
        (text("name"), text("version"))
    };
    components.retain(|one| crates.taking_part.contains(&name(one)));
    for one in components {
        let is_linked = crates.linked.contains(&name(one));
        one["scope"] = json!(if is_linked { "required" } else { "excluded" });
    }
}

fn product_ref(bill: &Value) -> Result<Value> {
    let found = &bill["metadata"]["component"]["bom-ref"];
    ensure!(found.is_string(), "a bill of something without a reference");
    Ok(found.clone())
}

/// The plugin's own bill. It leaves one beside each manifest of the workspace, which are not to stay.
fn of_crates(workspace: &Workspace) -> Result<String> {
    let stem = NAME.strip_suffix(".json").unwrap_or(NAME);
    let mut cargo = workspace.cargo();
    cargo
        .args([
            "cyclonedx",
            "--quiet",
            "--format",
            "json",
            "--target",
            STATIC_TRIPLE,
        ])
        .args(["--spec-version", SPECIFICATION, "--features", FEATURES])
        .args(["--override-filename", stem])
        .env("SOURCE_DATE_EPOCH", epoch(workspace)?);
    process::run_on_stderr(&mut cargo).context("listing what the binary is made of")?;
    let left = |member: &str| workspace.root.join(member).join(NAME);
    let read = left("probe-user");
    let text = fs::read_to_string(&read).with_context(|| format!("reading {}", read.display()));
    for member in ["probe-user", "probe-ebpf", "xtask"] {
        let file: PathBuf = left(member);
        fs::remove_file(&file).with_context(|| format!("removing {}", file.display()))?;
    }
    text
}

/// What is linked and is no crate.
fn libraries(workspace: &Workspace, toolchain: &Toolchain) -> Result<Vec<Value>> {
    let std = host_rustc(workspace, "release")?;
    let glibc = glibc();
    let rust = |name: &str, version: &str, what: &str| {
        json!({
            "type": "library", "bom-ref": format!("rust:{name}@{version}"), "name": name, "version": version,
            "description": what, "purl": format!("pkg:generic/{name}@{version}"),
            "licenses": [{"expression": "MIT OR Apache-2.0"}],
        })
    };
    Ok(vec![
        rust("rust-std", &std, "Rust's standard library"),
        rust(
            "rust-core",
            &toolchain.compiler.release,
            "Rust's core library, in the eBPF object",
        ),
        json!({
            "type": "library", "bom-ref": format!("glibc@{glibc}"), "name": "glibc", "version": glibc,
            "description": "The GNU C library, linked statically", "cpe": format!("cpe:2.3:a:gnu:glibc:{glibc}:*:*:*:*:*:*:*"),
            "purl": format!("pkg:generic/glibc@{glibc}"),
            "licenses": [{"expression": "LGPL-2.1-or-later"}],
        }),
    ])
}

/// The C library that static programs are linked with here is the one that this runs with.
fn glibc() -> String {
    // SAFETY: takes nothing, and returns a string that is never freed.
    let version = unsafe { CStr::from_ptr(libc::gnu_get_libc_version()) };
    version.to_string_lossy().into_owned()
}

/// The SHA-256 of a file.
fn digest(file: &Path) -> Result<String> {
    let said = process::output(Command::new("sha256sum").arg("--binary").arg(file))?;
    let digest = said.split_whitespace().next().context("sha256sum says nothing")?;
    Ok(digest.trim_start_matches('\\').to_owned())
}
