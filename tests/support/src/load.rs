//! Writers that keep a mounted file system changing, in all the ways that programs write.

use crate::command::{output, run, said};
use crate::devices::text;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two rounds of chores, so that two processors are left something for what is tested.
const PAUSE: Duration = Duration::from_millis(150);
/// Bytes of documents that a round copies.
const COPIED_BYTES_MAX: u64 = 4 << 20;
/// fio: libaio with O_DIRECT, a mapped file, and buffered writes with fsync; each at a modest rate, in small files.
const FIO_JOBS: &str = "
[global]
directory=DIRECTORY
rw=randwrite
size=16m
time_based=1
runtime=1h
rate=RATE
group_reporting=1
[direct]
ioengine=libaio
direct=1
iodepth=8
bsrange=SECTOR-64k
bs_unaligned=0
blockalign=SECTOR
[mapped]
ioengine=mmap
bs=4k
fsync=64
[buffered]
ioengine=psync
bsrange=1k-128k
fsync=32
";

/// How much is written.
#[derive(Debug, Clone, Copy)]
pub struct Intensity {
    /// The rate of each of fio's three writers, in its words, such as `4m`.
    pub fio_rate: &'static str,
    /// The smallest direct write in bytes: the device's logical sector.
    pub sector: u32,
}

impl Default for Intensity {
    fn default() -> Self {
        Self { fio_rate: "3m", sector: 512 }
    }
}

/// fio and a thread of chores (file copies, fallocate in all its modes, O_DIRECT by dd, removal, fstrim, sync), all in
/// one mounted file system. Stopped on drop.
#[derive(Debug)]
pub struct Load {
    fio: Child,
    stop: Option<Sender<()>>,
    chores: Option<JoinHandle<()>>,
    rounds: Arc<(Mutex<u64>, Condvar)>,
}

impl Load {
    /// Starts writing in the file system mounted at `root`.
    pub fn start(root: &Path, intensity: Intensity) -> Self {
        let fio_dir = root.join("fio");
        fs::create_dir_all(&fio_dir).unwrap_or_else(|e| panic!("{}: {e}", fio_dir.display()));
        let job = tempfile::NamedTempFile::new().expect("a job file for fio").into_temp_path();
        let jobs = FIO_JOBS.replace("DIRECTORY", text(&fio_dir)).replace("RATE", intensity.fio_rate);
        fs::write(&job, jobs.replace("SECTOR", &intensity.sector.to_string())).expect("a job file for fio");
        let mut fio = Command::new("fio");
        fio.arg("--output-format=terse").arg(&job).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let fio = fio.spawn().unwrap_or_else(|e| panic!("fio can't be run ({e}): apt-get install fio"));
        let (stop, stopped) = mpsc::channel();
        let rounds = Arc::new((Mutex::new(0), Condvar::new()));
        let (counter, root, sources) = (Arc::clone(&rounds), root.to_owned(), documents());
        let chores = std::thread::spawn(move || {
            let _job = job; // fio reads it at its start; it goes at the end.
            let mut round = 0;
            loop {
                chore(&root, round, &sources);
                round += 1;
                *counter.0.lock().unwrap_or_else(PoisonError::into_inner) = round;
                counter.1.notify_all();
                if !matches!(stopped.recv_timeout(PAUSE), Err(RecvTimeoutError::Timeout)) {
                    return;
                }
            }
        });
        Self { fio, stop: Some(stop), chores: Some(chores), rounds }
    }

    /// How many rounds of chores are done.
    pub fn rounds(&self) -> u64 {
        *self.rounds.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for `more` further rounds of chores.
    pub fn wait_rounds(&self, more: u64) {
        let end = Instant::now() + Duration::from_secs(120);
        let mut rounds = self.rounds.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = *rounds + more;
        while *rounds < wanted {
            let left = end.saturating_duration_since(Instant::now());
            let ended = self.chores.as_ref().is_none_or(JoinHandle::is_finished);
            assert!(!left.is_zero() && !ended, "the writers stand still after {} rounds", *rounds);
            let slice = left.min(Duration::from_millis(500));
            rounds = self.rounds.1.wait_timeout(rounds, slice).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Stops all writers and waits for them. Panics if one of them failed, or ended before it was told to: a test under
    /// load must have had that load.
    pub fn stop(mut self) -> u64 {
        let early = self.fio.try_wait().expect("fio can be asked for");
        self.halt();
        let mut errors = String::new();
        if let Some(mut stderr) = self.fio.stderr.take() {
            let _ = std::io::Read::read_to_string(&mut stderr, &mut errors);
        }
        assert!(early.is_none(), "fio ended by itself ({early:?}): {errors}");
        let chores = self.chores.take().expect("chores are stopped once");
        if let Err(panic) = chores.join() {
            std::panic::resume_unwind(panic);
        }
        self.rounds()
    }

    fn halt(&mut self) {
        drop(self.stop.take());
        // SIGINT: fio ends its jobs and waits for what is in flight.
        output("kill", &["-INT", &self.fio.id().to_string()]);
        let _ = self.fio.wait();
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if self.stop.is_some() {
            self.halt();
            if let Some(chores) = self.chores.take() {
                let _ = chores.join();
            }
        }
    }
}

/// One round. Each of its files is replaced or removed in a later one, so that space is freed and used again.
fn chore(root: &Path, round: u64, sources: &[PathBuf]) {
    let copies = root.join(format!("copies-{}", round % 3));
    let _ = fs::remove_dir_all(&copies);
    fs::create_dir_all(&copies).unwrap_or_else(|e| panic!("{}: {e}", copies.display()));
    for (i, source) in sources.iter().enumerate() {
        fs::copy(source, copies.join(i.to_string())).unwrap_or_else(|e| panic!("copying {}: {e}", source.display()));
    }
    let file = root.join(format!("allocated-{}", round % 2));
    let path = text(&file);
    run("dd", &["if=/dev/urandom", &format!("of={path}"), "bs=64k", "count=64", "oflag=direct", "status=none"]);
    let fallocate = |arguments: &[&str]| {
        let output = output("fallocate", &[arguments, &[path]].concat());
        assert!(output.status.success(), "fallocate {arguments:?} in {path}: {}", said(&output));
    };
    fallocate(&["--offset", "4MiB", "--length", "2MiB"]);
    fallocate(&["--punch-hole", "--offset", &(round % 8 * 65_536 + 512).to_string(), "--length", "200000"]);
    fallocate(&["--zero-range", "--offset", "2MiB", "--length", "1MiB"]);
    match round % 3 {
        0 => drop(run("fstrim", &[text(root)])),
        1 => drop(run("sync", &["-f", text(root)])),
        _ => {}
    }
}

/// Some of the system's documents, as a tree of small files that compress.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut room = COPIED_BYTES_MAX;
    let mut folders = vec![PathBuf::from("/usr/share/doc"), PathBuf::from("/usr/share/common-licenses")];
    while let Some(folder) = folders.pop() {
        let mut entries: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().collect();
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let Ok(kind) = entry.file_type() else { continue };
            let length = entry.metadata().map_or(0, |m| m.len());
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && length <= room && found.len() < 150 {
                room -= length;
                found.push(entry.path());
            }
        }
    }
    assert!(!found.is_empty(), "nothing to copy in /usr/share/doc");
    found
}
