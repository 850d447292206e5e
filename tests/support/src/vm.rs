//! A guest in QEMU, worked by its serial port. The image is the one that `cargo xtask vm-image` builds, or a copy of
//! it in whatever format: it boots by itself and has a root shell on the first serial port.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Under emulation on a quiet machine a boot takes 20 s; here others may be at work too.
const BOOT_TIMEOUT: Duration = Duration::from_secs(300);
/// A command typed into a terminal is one line of at most this many bytes.
const LINE_BYTES_MAX: usize = 4_000;

/// What becomes of the guest's writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// The image stays as it is; what the guest writes goes when it ends.
    Discarded,
    /// The guest writes to the image.
    Kept,
}

/// A running guest. It is killed, like at a power cut, when it is dropped.
#[derive(Debug)]
pub struct Vm {
    qemu: Child,
    keyboard: ChildStdin,
    serial: Arc<Serial>,
    /// Bytes of the serial port's output that were looked at.
    seen: usize,
    commands: u32,
}

/// The guest's image that `$SLUICE_VM_IMAGE` names.
pub fn named_image() -> Option<PathBuf> {
    std::env::var_os("SLUICE_VM_IMAGE").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// Where `cargo xtask vm-image` puts the guest's image, which need not be there.
pub fn built_image() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/vm-images/debian.raw")
}

/// The guest's image: the one that is named, else the one that was built. Panics without one.
pub fn image() -> PathBuf {
    let image = named_image().unwrap_or_else(built_image);
    assert!(image.exists(), "{} is missing: `cargo xtask vm-image` builds it", image.display());
    image
}

impl Vm {
    /// Boots a disk and waits for the root shell. `format` is QEMU's name for it: raw, vpc (VHD), vhdx. `more` goes to
    /// QEMU as it is: further drives, a network.
    pub fn boot(image: &Path, format: &str, writes: Writes, more: &[&str]) -> Self {
        let snapshot = if writes == Writes::Discarded { "on" } else { "off" };
        // A comma in a name is doubled, or QEMU would take it for the end.
        let file = image.display().to_string().replace(',', ",,");
        let drive = format!("file={file},format={format},if=none,id=boot,snapshot={snapshot}");
        let mut qemu = Command::new("qemu-system-x86_64");
        // Emulated always, so that a test does the same on every machine; and KVM may be there without working.
        qemu.args(["-accel", "tcg", "-m", "512", "-nodefaults", "-display", "none", "-no-reboot"]);
        // The first of the disks, and the one that it boots from, whatever disks are in `more`.
        qemu.args(["-serial", "stdio", "-drive", &drive, "-device", "virtio-blk-pci,drive=boot,bootindex=0"])
            .args(more);
        let spawned = qemu.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut qemu = spawned.unwrap_or_else(|e| {
            panic!("a guest needs qemu-system-x86_64, which can't be run (`cargo xtask tools` installs it): {e}")
        });
        let keyboard = qemu.stdin.take().expect("QEMU's input is a pipe");
        let output = qemu.stdout.take().expect("QEMU's output is a pipe");
        let serial = Arc::new(Serial::default());
        let reader = Arc::clone(&serial);
        thread::spawn(move || reader.read_all(output));
        let mut vm = Self { qemu, keyboard, serial, seen: 0, commands: 0 };
        vm.wait_for("login:", BOOT_TIMEOUT);
        vm.wait_for("# ", BOOT_TIMEOUT);
        // What was typed ahead is echoed, so the marker must not stand in it as it will be printed.
        vm.type_line("stty -echo; PS1=; PS2=; dmesg -n 1; echo shell-$((40 + 2))");
        vm.wait_for("shell-42", BOOT_TIMEOUT);
        vm
    }

    /// Runs a command (of one line) in the root shell; returns its exit code and what it printed, errors included.
    pub fn run(&mut self, command: &str, timeout: Duration) -> (i32, String) {
        assert!(!command.contains('\n') && command.len() < LINE_BYTES_MAX, "not one line of a terminal: {command}");
        self.commands += 1;
        let marker = format!("end-{}-", self.commands);
        // The marker is put together by the guest: nothing else prints it.
        self.type_line(&format!("{{ {command}; }} 2>&1; printf '\\nend-%d-%d.\\n' {} $?", self.commands));
        let output = self.wait_for(&marker, timeout);
        let code = self.wait_for(".", timeout);
        let code = code.parse().unwrap_or_else(|e| panic!("`{code}` is not an exit code: {e}"));
        (code, output.replace('\r', "").trim().to_owned())
    }

    /// Like `run`, and panics unless the command succeeds.
    pub fn must(&mut self, command: &str, timeout: Duration) -> String {
        let (code, output) = self.run(command, timeout);
        assert_eq!(code, 0, "in the guest `{command}` failed: {output}");
        output
    }

    /// Shuts the guest down in good order and waits until it is off.
    pub fn power_off(self, timeout: Duration) {
        self.end_by("systemctl poweroff", timeout);
    }

    /// Waits until the guest is off after a command that ends it. It does not come up again by itself after a reboot.
    pub fn end_by(mut self, command: &str, timeout: Duration) {
        self.type_line(command);
        let off = self.serial.wait(timeout, |serial| serial.closed);
        assert!(off, "the guest is not off after {} s; its last words:\n{}", timeout.as_secs(), self.serial.tail());
    }

    fn type_line(&mut self, line: &str) {
        let typed = self.keyboard.write_all(format!("{line}\n").as_bytes()).and_then(|()| self.keyboard.flush());
        typed.unwrap_or_else(|e| panic!("QEMU ended ({e}); the guest's last words:\n{}", self.serial.tail()));
    }

    /// Waits until the guest prints `words`, and returns what came before them.
    fn wait_for(&mut self, words: &str, timeout: Duration) -> String {
        let seen = self.seen;
        let at = |serial: &Output| find(serial.bytes.get(seen..).unwrap_or_default(), words.as_bytes());
        self.serial.wait(timeout, |serial| serial.closed || at(serial).is_some());
        let serial = self.serial.lock();
        let Some(length) = at(&serial) else {
            drop(serial);
            panic!(
                "the guest did not say `{words}` in {} s; its last words:\n{}",
                timeout.as_secs(),
                self.serial.tail()
            )
        };
        self.seen = seen + length + words.len();
        String::from_utf8_lossy(&serial.bytes[seen..seen + length]).into_owned()
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// What the guest has printed so far, filled by a thread of its own.
#[derive(Debug, Default)]
struct Serial {
    output: Mutex<Output>,
    grown: Condvar,
}

#[derive(Debug, Default)]
struct Output {
    bytes: Vec<u8>,
    closed: bool,
}

impl Serial {
    fn read_all(&self, mut from: ChildStdout) {
        let mut buffer = [0; 4096];
        loop {
            let length = from.read(&mut buffer).unwrap_or(0);
            let mut output = self.lock();
            output.bytes.extend_from_slice(&buffer[..length]);
            output.closed = length == 0;
            self.grown.notify_all();
            if length == 0 {
                return;
            }
        }
    }

    /// Waits until `done` holds; `false` if it does not in time.
    fn wait(&self, timeout: Duration, done: impl Fn(&Output) -> bool) -> bool {
        let end = Instant::now() + timeout;
        let mut output = self.lock();
        while !done(&output) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            output = self.grown.wait_timeout(output, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, Output> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last of it, for a failure's message.
    fn tail(&self) -> String {
        let output = self.lock();
        let start = output.bytes.len().saturating_sub(2_000);
        String::from_utf8_lossy(&output.bytes[start..]).into_owned()
    }
}

fn find(text: &[u8], words: &[u8]) -> Option<usize> {
    text.windows(words.len()).position(|window| window == words)
}
