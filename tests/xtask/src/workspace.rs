//! What cargo and git know about the tree: root folder, members, tracked files.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The folder of the workspace's `Cargo.toml`, two above this package.
pub fn root() -> Result<PathBuf> {
    // What cargo says now comes before what it said at the build: two clones may share a target folder.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&package)
        .ancestors()
        .nth(2)
        .map(Path::to_path_buf)
        .context("xtask does not lie two folders below the root")
}

/// Where cargo puts what it builds; image and tool caches lie there too.
pub fn target_dir() -> Result<PathBuf> {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => Ok(root()?.join(dir)),
        None => Ok(root()?.join("target")),
    }
}

/// The platform whose dependencies are judged: the one we build for, so that nothing else need be downloaded.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// `cargo metadata` of the members alone, or with everything they stand on.
pub fn metadata(with_dependencies: bool) -> Result<Value> {
    let mut command = cargo();
    command.args(["metadata", "--format-version", "1", "--locked"]);
    match with_dependencies {
        true => command.args(["--filter-platform", PLATFORM]),
        false => command.arg("--no-deps"),
    };
    Ok(serde_json::from_slice(&output(&mut command)?)?)
}

/// A cargo that doesn't see what `cargo run` told us of ourselves: build scripts that look at those variables would run
/// again, and all that stands on them be rebuilt, each time that xtask and cargo take turns.
pub fn cargo() -> Command {
    let mut command = Command::new("cargo");
    for (name, _) in std::env::vars_os() {
        let about_us = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];
        if about_us.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command
}

/// One member of the workspace.
pub struct Member {
    /// The package's name.
    pub name: String,
    /// Its folder, relative to the root.
    pub dir: String,
    /// Crate roots of libraries, programs and build scripts, relative to the workspace's root.
    pub crate_roots: Vec<String>,
    /// Names of dependencies from a registry whose version is `*`.
    pub wildcards: Vec<String>,
}

/// The members, in cargo's order.
pub fn members() -> Result<Vec<Member>> {
    let root = root()?;
    let relative = |path: &str| -> String {
        Path::new(path).strip_prefix(&root).unwrap_or(Path::new(path)).to_string_lossy().into_owned()
    };
    let metadata = metadata(false)?;
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    let member = |package: &Value| -> Option<Member> {
        let manifest = relative(package["manifest_path"].as_str()?);
        let is_root = |target: &&Value| -> bool {
            let kinds = target["kind"].as_array();
            kinds.is_some_and(|kinds| {
                kinds.iter().any(|kind| matches!(kind.as_str(), Some("lib" | "bin" | "proc-macro" | "custom-build")))
            })
        };
        let targets = package["targets"].as_array()?;
        let dependencies = package["dependencies"].as_array()?;
        Some(Member {
            name: package["name"].as_str()?.to_owned(),
            dir: manifest.strip_suffix("/Cargo.toml")?.to_owned(),
            crate_roots: targets.iter().filter(is_root).filter_map(|t| t["src_path"].as_str().map(relative)).collect(),
            wildcards: dependencies
                .iter()
                .filter(|d| d["source"].is_string() && d["req"].as_str() == Some("*"))
                .filter_map(|d| d["name"].as_str().map(str::to_owned))
                .collect(),
        })
    };
    Ok(packages.iter().filter_map(member).collect())
}

/// Files that git tracks or would track, so that a new file is judged before its first commit; sorted.
pub fn files() -> Result<Vec<String>> {
    let mut command = Command::new("git");
    command.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(root()?);
    let listing = String::from_utf8(output(&mut command)?).context("a file's name is not UTF-8")?;
    let root = root()?;
    let mut files: Vec<String> = listing
        .split_terminator('\0')
        .filter(|file| root.join(file).symlink_metadata().is_ok())
        .map(str::to_owned)
        .collect();
    files.sort();
    files.dedup();
    Ok(files)
}

/// Runs a command to its end and returns what it printed; its errors go to our stderr.
pub fn output(command: &mut Command) -> Result<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stderr(std::process::Stdio::inherit())
        .output()
        .with_context(|| format!("`{name}` could not be started"))?;
    if !output.status.success() {
        bail!("`{name}` failed: {}", output.status);
    }
    Ok(output.stdout)
}
