//! What these tests share: the program, images, and what it prints.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// A run that has ended.
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// The one object that `--json` printed.
    pub fn json(&self) -> serde_json::Value {
        let lines: Vec<&str> = self.stdout.lines().collect();
        let [line] = lines[..] else { panic!("one line expected:\n{}\n{}", self.stdout, self.stderr) };
        serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))
    }

    /// Panics unless it ended with `code`, and said each of `words`.
    pub fn must(&self, code: i32, words: &[&str]) -> &Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}stderr:\n{}", self.stdout, self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        for word in words {
            assert!(
                self.stdout.contains(word) || self.stderr.contains(word),
                "{word:?}:\n{}{}",
                self.stdout,
                self.stderr
            );
        }
        self
    }
}

/// Starts `sluice` with its output piped.
pub fn start<A: AsRef<OsStr>>(arguments: &[A]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env_remove("SLUICE_LOG").spawn().expect("sluice starts")
}

/// Waits for its end.
pub fn end(child: Child) -> Ended {
    let output = child.wait_with_output().expect("sluice ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ended { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

/// Runs it to its end.
pub fn sluice<A: AsRef<OsStr>>(arguments: &[A]) -> Ended {
    end(start(arguments))
}

/// A folder of the test's own.
pub fn folder() -> TempDir {
    tempfile::Builder::new().prefix("sluice-test-").tempdir().expect("a temporary folder")
}

/// A folder with an image of `bytes`, the last quarter of it zeros.
pub struct Scene {
    pub folder: TempDir,
    pub source: PathBuf,
}

impl Scene {
    pub fn new(bytes: u64) -> Self {
        let folder = folder();
        let source = folder.path().join("source.img");
        let file = File::create_new(&source).expect("a source");
        file.set_len(bytes).expect("its size");
        file.write_all_at(&noise(bytes / 4 * 3, 1), 0).expect("its bytes");
        Self { folder, source }
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes some bytes to the source.
    pub fn scribble(&self, at: u64, len: u64) {
        let file = File::options().write(true).open(&self.source).expect("the source");
        file.write_all_at(&noise(len, at + 3), at).expect("written");
    }

    /// `sluice replicate` of the source to `target`, with further arguments.
    pub fn replicate(&self, target: &Path, more: &[&str]) -> Ended {
        sluice(&self.arguments(target, more))
    }

    pub fn arguments(&self, target: &Path, more: &[&str]) -> Vec<String> {
        let fixed = ["replicate", text(&self.source), text(target), "--tracker", "scan"];
        fixed.iter().chain(more).map(|word| (*word).to_owned()).collect()
    }
}

/// Bytes that do not compress.
pub fn noise(len: u64, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state ^ (state >> 29)).to_le_bytes()
    };
    (0..len.div_ceil(8)).flat_map(|_| next()).take(len as usize).collect()
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}
