//! A machine that does everything on one disk, which is recorded, and what is left of it when its power is cut.
//!
//! The disk has two partitions: the source, and a file system on which agent state, appliance database, cache store,
//! hydrator ledger and target lie. Sluice runs in a guest whose disk QEMU records; what a cut leaves is looked at here.

use crate::{Guest, Log};
use sluice_crash::Noise;
use sluice_e2e::{Cycle, Format, Pins};
use sluice_test_support::SmallFs;
use sluice_test_support::command::{output, run, said};
use sluice_test_support::devices::{Loop, text};
use sluice_test_support::images::qemu_finds_equal;
use sluice_test_support::program::Sluice;
use std::fs::{self, File};
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// Where the source lies on the recorded disk.
pub const SOURCE: Range<usize> = 1 << 20..33 << 20;
/// Where the file system, an ext4, lies.
pub const STATE: Range<usize> = 33 << 20..129 << 20;
const SECTOR: usize = 512;
/// Writes of half a sector to 32 KiB anywhere on the source, some ten a second.
const WRITER: &str = "while :; do dd if=/dev/urandom of=$SOURCE bs=512 count=$((RANDOM % 64 + 1)) \
    seek=$((RANDOM * 2 % 65000)) oflag=direct conv=notrunc,nocreat status=none; sleep 0.1; done";

/// Paths that are the same in the guest and here, so that Sluice finds its source and its files where it left them.
#[derive(Debug)]
pub struct Place {
    /// The source's device node: a copy of the real one's, on a file system that has devices.
    source: PathBuf,
    /// Where the file system is mounted.
    root: PathBuf,
    /// What the target is.
    format: Format,
}

impl Place {
    /// One whose target is of this format.
    pub fn new(format: Format) -> Self {
        let name = format!("sluice-power-{}", std::process::id());
        Self { source: Path::new("/dev").join(&name), root: Path::new("/run").join(&name), format }
    }

    fn target(&self) -> PathBuf {
        self.root.join(self.format.file_name())
    }

    /// What `sluice` is told, in the guest and here.
    fn replicate(&self) -> Vec<String> {
        let cache = format!("file://{}", text(&self.root.join("cache")));
        let target = self.target();
        let words = ["replicate", text(&self.source), text(&target), "--format", self.format.word(), "--cache", &cache];
        [&words[..], &["--tracker", "ebpf", "--json"]].concat().into_iter().map(str::to_owned).collect()
    }

    /// Says what differs between the target and `source`, which others than Sluice find.
    fn compare(&self, source: &[u8]) -> Result<(), String> {
        let target = self.target();
        if matches!(self.format, Format::Raw | Format::Vhd) {
            let copy = fs::read(&target).map_err(|e| e.to_string())?;
            return match copy.get(..source.len()) == Some(source) {
                true => Ok(()),
                false => Err("its bytes are others".to_owned()),
            };
        }
        qemu_finds_equal(&self.source, &target, self.format.driver())
    }
}

/// A disk as it was, and all that was written to it.
#[derive(Debug)]
pub struct Recording {
    /// What was on the disk before.
    pub base: Vec<u8>,
    /// What was written.
    pub log: Log,
    /// How many cycles were verified meanwhile.
    pub cycles: usize,
}

impl Recording {
    /// Runs Sluice in a guest, from its very first start until so many cycles are verified, while the source is written
    /// to. Then power is cut.
    pub fn make(place: &Place, cycles: usize, noise: &mut Noise) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let (disk, log) = (folder.path().join("disk"), folder.path().join("log"));
        make_disk(&disk, noise);
        let base = fs::read(&disk).expect("the disk can be read");
        fs::write(&log, []).expect("a log");
        let carried = folder.path().join("carried");
        fs::create_dir(&carried).expect("a folder");
        let luggage = Guest::luggage(&carried);

        let nodes = [("disk", &disk), ("log", &log)].map(|(name, path)| {
            // The host's power is not cut.
            format!("driver=file,filename={},node-name={name},cache.no-flush=on", text(path))
        });
        let recorder = "driver=blklogwrites,node-name=recorded,file=disk,log=log";
        let blocks = ["-blockdev", &nodes[0], "-blockdev", &nodes[1], "-blockdev", recorder];
        let disks = [&blocks[..], &["-device", "virtio-blk-pci,drive=recorded"]].concat();
        let mut guest = Guest::boot(None, &luggage, &disks);
        let (source, root) = (text(&place.source), text(&place.root));
        guest.must(&format!("mkdir {root} && mount /dev/vdc2 {root} && cp -a /dev/vdc1 {source}"));
        guest.must(&format!("SOURCE={source}; ( {WRITER} ) > /run/writer 2>&1 & true"));
        let replicate = place.replicate().join(" ");
        let often = "--follow --min-interval 1s --max-interval 1s";
        guest.must(&format!("/mnt/sluice {replicate} {often} > /run/cycles 2> /run/words & true"));
        let enough = format!("[ $(grep -c '\"verified\":true' /run/cycles) -ge {cycles} ]");
        let said = guest.must(&format!(
            "for i in $(seq 280); do {enough} && break; sleep 1; done; cat /run/writer /run/words >&2; cat /run/cycles"
        ));
        drop(guest);
        let made: Vec<Cycle> = said.lines().filter(|line| line.starts_with('{')).filter_map(Cycle::read).collect();
        assert!(made.len() >= cycles, "in the guest too little happened:\n{said}");
        made.iter().for_each(Cycle::assert_verified);
        Self { base, log: Log::read(&log), cycles: made.len() }
    }
}

/// A disk of two partitions; on the first three quarters of bytes that don't compress, on the second a file system.
fn make_disk(path: &Path, noise: &mut Noise) {
    let disk = File::create_new(path).expect("a disk");
    disk.set_len(STATE.end as u64).expect("a disk's size");
    disk.write_all_at(&noise.bytes(SOURCE.len() / 4 * 3), SOURCE.start as u64).expect("the source");
    let line = |part: Range<usize>| format!("start={}, size={}\n", part.start / SECTOR, part.len() / SECTOR);
    let table = format!("label: dos\n{}{}", line(SOURCE), line(STATE));
    let mut sfdisk = Command::new("/sbin/sfdisk");
    let mut sfdisk = sfdisk.args(["--quiet", text(path)]).stdin(Stdio::piped()).spawn().expect("sfdisk can be run");
    sfdisk.stdin.take().expect("a pipe").write_all(table.as_bytes()).expect("sfdisk takes a table");
    assert!(sfdisk.wait().expect("sfdisk ends").success(), "sfdisk makes the table");
    let extended = format!("offset={},lazy_itable_init=0,lazy_journal_init=0", STATE.start);
    let kib = format!("{}k", STATE.len() / 1024);
    run("mke2fs", &["-q", "-F", "-t", "ext4", "-E", &extended, text(path), &kib]);
}

/// What Sluice made of a disk after a power cut.
#[derive(Debug)]
pub struct Survivor {
    /// The cycles of the first run; the last of them began in it.
    pub cycles: Vec<Cycle>,
}

/// The machine after power cuts. In memory, as it is thrown away each time.
#[derive(Debug)]
pub struct Recovery<'a> {
    place: &'a Place,
    memory: SmallFs,
}

impl<'a> Recovery<'a> {
    /// Of the machine that was recorded at `place`.
    pub fn new(place: &'a Place) -> Self {
        Self { place, memory: SmallFs::mount(256 << 20).expect("the caller is root") }
    }

    /// Mounts what is left of the disk, starts Sluice again over it, and compares source and target when that is done.
    /// Says what went wrong where it does not recover.
    pub fn after(&self, disk: &[u8]) -> Result<Survivor, String> {
        let source = Attached::new(&self.memory.path().join("source"), &disk[SOURCE]);
        let state = Attached::new(&self.memory.path().join("state"), &disk[STATE]);
        let _machine = Machine::up(self.place, source.device.path(), state.device.path())?;
        let arguments = self.place.replicate();
        let ended = Sluice::run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let words = format!("{}\n{}{}", ended.status, ended.stdout, ended.stderr);
        if !ended.status.success() {
            return Err(format!("it does not get to a verified cycle: {words}"));
        }
        let cycles: Vec<Cycle> = ended.stdout.lines().filter_map(Cycle::read).collect();
        match cycles.last() {
            Some(cycle) if cycle.verified => {}
            _ => return Err(format!("no cycle was verified: {words}")),
        }
        output("blockdev", &["--flushbufs", text(source.device.path())]);
        let verify = Sluice::run(&["verify", text(&self.place.source), text(&self.place.target())]);
        if !verify.status.success() {
            return Err(format!("source and target differ: {}{}\n{words}", verify.stdout, verify.stderr));
        }
        let compared = self.place.compare(&disk[SOURCE]);
        compared.map_err(|why| format!("`sluice verify` finds no difference where there is one: {why}\n{words}"))?;
        Ok(Survivor { cycles })
    }
}

/// Bytes as a loop device.
struct Attached {
    device: Loop,
}

impl Attached {
    fn new(path: &Path, bytes: &[u8]) -> Self {
        let file = File::create(path).and_then(|file| file.set_len(bytes.len() as u64).map(|()| file));
        let file = file.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        for (i, chunk) in bytes.chunks(64 << 10).enumerate().filter(|(_, chunk)| chunk.iter().any(|byte| *byte != 0)) {
            file.write_all_at(chunk, (i as u64) << 16).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        }
        Self { device: Loop::over(path, SECTOR as u32) }
    }
}

/// Everything where Sluice expects it; taken down on drop.
struct Machine<'a> {
    place: &'a Place,
    pins: Option<Pins>,
}

impl<'a> Machine<'a> {
    fn up(place: &'a Place, source: &Path, state: &Path) -> Result<Self, String> {
        run("cp", &["-a", text(source), text(&place.source)]);
        fs::create_dir_all(&place.root).unwrap_or_else(|e| panic!("{}: {e}", place.root.display()));
        let machine = Self { place, pins: Some(Pins::of(&place.root)) };
        let mounted = output("mount", &["-t", "ext4", text(state), text(&place.root)]);
        match mounted.status.success() {
            true => Ok(machine),
            false => Err(format!("the file system can't be mounted: {}", said(&mounted))),
        }
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        // What is pinned is told by the files that are about to go.
        self.pins = None;
        output("umount", &[text(&self.place.root)]);
        drop(fs::remove_dir(&self.place.root));
        drop(fs::remove_file(&self.place.source));
    }
}
