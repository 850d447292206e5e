//! The `sluice` program as a process.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// The longest that anything these tests wait for may take. On the slowest machine that we know a wait takes seconds.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Lines of output that a failure's message shows.
const TAIL_LINES: usize = 40;

/// Where `sluice` lies: `$SLUICE_PROGRAM`, else it is built, by the cargo and in the profile that this test was.
pub fn sluice() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| match std::env::var_os("SLUICE_PROGRAM").filter(|path| !path.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => build(),
    })
}

fn build() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows where it lies");
    let folder = test.parent().expect("a program lies in a folder");
    let profile = match folder.ends_with("deps") {
        true => folder.parent().expect("a test lies in target/PROFILE/deps"),
        // A program that tests, not a test of cargo's.
        false => folder,
    };
    let mut cargo = cargo();
    cargo.args(["build", "--locked", "--quiet", "--package", "sluice", "--bin", "sluice"]);
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let status = cargo.status();
    let status = status.unwrap_or_else(|e| panic!("cargo can't be run ({e})"));
    assert!(status.success(), "sluice can't be built: {status}");
    profile.join("sluice")
}

/// The cargo that built this, in the tree that this is of.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Without what cargo told us of ourselves: build scripts that look at it would run again, and all be rebuilt.
    let about_us = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];
    for (name, _) in std::env::vars_os() {
        if about_us.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            cargo.env_remove(name);
        }
    }
    cargo.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."));
    cargo
}

/// A running `sluice`. Killed on drop.
#[derive(Debug)]
pub struct Sluice {
    child: Child,
    stdout: Arc<Lines>,
    stderr: Arc<Lines>,
    what: String,
}

/// How it ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// All that it printed for programs.
    pub stdout: String,
    /// All that it printed for people.
    pub stderr: String,
}

impl Ended {
    /// Its exit code; `None` if a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }
}

impl Sluice {
    /// Starts `sluice` with these arguments, and environment variables besides the test's own.
    pub fn start(arguments: &[&str], environment: &[(&str, String)]) -> Self {
        let mut command = Command::new(sluice());
        command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value)));
        let what = format!("sluice {}", arguments.join(" "));
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.unwrap_or_else(|e| panic!("{what}: {e}"));
        let stdout = Lines::of(child.stdout.take().expect("its output is a pipe"));
        let stderr = Lines::of(child.stderr.take().expect("its output is a pipe"));
        Self { child, stdout, stderr, what }
    }

    /// Runs `sluice` to its end.
    pub fn run(arguments: &[&str]) -> Ended {
        Self::start(arguments, &[]).end()
    }

    /// Runs it to its end, which must be a good one.
    pub fn must(arguments: &[&str]) -> Ended {
        let ended = Self::run(arguments);
        assert!(
            ended.status.success(),
            "sluice {}: {}\n{}{}",
            arguments.join(" "),
            ended.status,
            ended.stdout,
            ended.stderr
        );
        ended
    }

    /// The process's id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name, such as `STOP`, `CONT` or `TERM`.
    pub fn signal(&self, name: &str) {
        crate::command::run("kill", &[&format!("-{name}"), &self.id().to_string()]);
    }

    /// Kills it as a power cut would, and waits until it is gone.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// True while it runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("a child can be asked for").is_none()
    }

    /// Lets it run for `time`; `false` if it ends before.
    pub fn runs_for(&mut self, time: Duration) -> bool {
        self.stderr.wait_for(time, |output| output.closed.then_some(())).is_none() && self.runs()
    }

    /// Asks it to end, and waits for that.
    pub fn terminate(self) -> Ended {
        self.signal("TERM");
        self.end()
    }

    /// Waits for its end.
    pub fn end(mut self) -> Ended {
        let closed = |output: &Output| output.closed.then_some(());
        self.stdout.wait(closed).unwrap_or_else(|| panic!("{} does not end:\n{}", self.what, self.tail()));
        self.stderr.wait(closed).unwrap_or_else(|| panic!("{} does not end:\n{}", self.what, self.tail()));
        let status = self.child.wait().expect("a child can be waited for");
        Ended { status, stdout: self.stdout.all(), stderr: self.stderr.all() }
    }

    /// Waits for a line on stdout from which `take` makes something, `from` the given line on; returns that and the
    /// number of the line after it.
    pub fn wait_stdout<T>(&self, from: usize, take: impl Fn(&str) -> Option<T>) -> (T, usize) {
        self.wait_for(&self.stdout, from, take)
    }

    /// The same on stderr.
    pub fn wait_stderr<T>(&self, from: usize, take: impl Fn(&str) -> Option<T>) -> (T, usize) {
        self.wait_for(&self.stderr, from, take)
    }

    fn wait_for<T>(&self, lines: &Lines, from: usize, take: impl Fn(&str) -> Option<T>) -> (T, usize) {
        let found = lines.wait(|output| {
            let mut fresh = output.lines.iter().enumerate().skip(from);
            let hit = fresh.find_map(|(i, line)| Some((take(line)?, i + 1)));
            match hit {
                Some(hit) => Some(Some(hit)),
                None => output.closed.then_some(None),
            }
        });
        found.flatten().unwrap_or_else(|| panic!("{} did not say what was waited for:\n{}", self.what, self.tail()))
    }

    /// The lines that it has printed for people so far.
    pub fn stderr_lines(&self) -> Vec<String> {
        self.stderr.lock().lines.clone()
    }

    /// The last of what it printed, for a failure's message.
    pub fn tail(&self) -> String {
        let mut text = String::new();
        for (name, lines) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            let output = lines.lock();
            let start = output.lines.len().saturating_sub(TAIL_LINES);
            text.extend([format!("--- {name} of {}\n", self.what)]);
            text.extend(output.lines[start..].iter().map(|line| format!("{line}\n")));
        }
        text
    }
}

impl Drop for Sluice {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("{}", self.tail());
        }
    }
}

/// What a process has printed, filled by a thread of its own.
#[derive(Debug, Default)]
struct Lines {
    output: Mutex<Output>,
    grown: Condvar,
}

#[derive(Debug, Default)]
struct Output {
    lines: Vec<String>,
    closed: bool,
}

impl Lines {
    fn of(from: impl Read + Send + 'static) -> Arc<Self> {
        let lines = Arc::new(Self::default());
        let filler = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
                filler.lock().lines.push(String::from_utf8_lossy(&line).into_owned());
                filler.grown.notify_all();
            }
            filler.lock().closed = true;
            filler.grown.notify_all();
        });
        lines
    }

    fn lock(&self) -> MutexGuard<'_, Output> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `take` makes something of the output; `None` if that takes longer than [`PATIENCE`].
    fn wait<T>(&self, take: impl Fn(&Output) -> Option<T>) -> Option<T> {
        self.wait_for(PATIENCE, take)
    }

    /// The same with a limit of its own.
    fn wait_for<T>(&self, time: Duration, take: impl Fn(&Output) -> Option<T>) -> Option<T> {
        let end = Instant::now() + time;
        let mut output = self.lock();
        loop {
            if let Some(taken) = take(&output) {
                return Some(taken);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            output = self.grown.wait_timeout(output, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn all(&self) -> String {
        self.lock().lines.iter().map(|line| format!("{line}\n")).collect()
    }
}
