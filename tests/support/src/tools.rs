//! Tools that tests install for themselves, once, outside the source tree.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

/// Where tests keep tools: `$SLUICE_TEST_TOOLS`, else `target/test-tools` of this workspace.
pub fn tools_dir() -> PathBuf {
    match std::env::var_os("SLUICE_TEST_TOOLS").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/test-tools"),
    }
}

/// The folder of an npm package of exactly this version, which is installed where it isn't yet. Several tests and
/// processes may ask at once: one installs, the others wait.
pub fn npm_package(name: &str, version: &str) -> PathBuf {
    let dir = tools_dir().join(format!("{name}-{version}"));
    let package = dir.join("node_modules").join(name);
    let done = dir.join("installed");
    fs::create_dir_all(&dir).unwrap_or_else(|e| panic!("creating {}: {e}", dir.display()));
    let lock = File::create(dir.join("lock")).unwrap_or_else(|e| panic!("creating a lock in {}: {e}", dir.display()));
    lock.lock().unwrap_or_else(|e| panic!("locking {}: {e}", dir.display()));
    if done.exists() {
        return package;
    }
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error", "--prefix"]);
    let output = npm.arg(&dir).arg(format!("{name}@{version}")).output();
    let output =
        output.unwrap_or_else(|e| panic!("{name} is installed by npm, which can't be run (apt install npm): {e}"));
    assert!(output.status.success(), "npm install {name}@{version}: {}", String::from_utf8_lossy(&output.stderr));
    File::create(done).unwrap_or_else(|e| panic!("marking {name} as installed: {e}"));
    package
}
