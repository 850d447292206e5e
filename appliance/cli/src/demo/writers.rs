//! What keeps the disk changing: files are made, overwritten, appended to, cut short, renamed and removed.

use super::stage::Playground;
use crate::outcome::Refusal;
use crate::progress::say;
use crate::units;
use sluice_platform::durable::rename_file;
use sluice_platform::system::OsEntropy;
use sluice_proto::env::Entropy;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// The pause between two changes: the machine is left something for what is shown.
const PAUSE: Duration = Duration::from_millis(40);
/// Files that are there at once.
const FILES: u64 = 64;
/// The largest piece that is written at once, in bytes.
const PIECE_BYTES: usize = 1 << 20;
/// Changes after which all of them are brought to the disk.
const SYNC_EVERY: u64 = 16;
/// The part of the disk that is filled before the show.
const FILLED: u64 = 5;

/// What was changed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Written {
    /// How many changes.
    pub changes: u64,
    /// How many bytes were written.
    pub bytes: u64,
}

/// A thread that writes until it is told to end.
pub struct Writers {
    /// Dropped to end it.
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<io::Result<Written>>>,
}

impl Writers {
    /// Fills a part of the disk, and then begins.
    pub fn begin(playground: Playground, size: u64) -> Result<Self, Refusal> {
        let mut hand = Hand::new(playground, size);
        let filled = hand.fill(size / FILLED).map_err(|e| Refusal::at("filling the disk", e))?;
        say(format!("{} of files were written to it, some of them random", units::bytes(filled)));
        let (end, told) = channel::<()>();
        let thread = std::thread::spawn(move || {
            while let Err(RecvTimeoutError::Timeout) = told.recv_timeout(PAUSE) {
                hand.change()?;
            }
            Ok(hand.written)
        });
        Ok(Self { end: Some(end), thread: Some(thread) })
    }

    /// Ends it, and tells what was done.
    pub fn end(mut self) -> Result<Written, Refusal> {
        drop(self.end.take());
        let done = self.thread.take().map(JoinHandle::join);
        match done {
            Some(Ok(Ok(written))) => Ok(written),
            Some(Ok(Err(error))) => Err(Refusal::at("writing to the disk", error)),
            _ => Err(Refusal::new("the thread that writes to the disk broke off")),
        }
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Makes one change after the other.
struct Hand {
    playground: Playground,
    size: u64,
    entropy: OsEntropy,
    written: Written,
}

impl Hand {
    fn new(playground: Playground, size: u64) -> Self {
        Self { playground, size, entropy: OsEntropy::new(), written: Written::default() }
    }

    fn number(&self, below: u64) -> u64 {
        let mut bytes = [0; 8];
        self.entropy.fill(&mut bytes);
        u64::from_le_bytes(bytes) % below.max(1)
    }

    /// A piece: random, or text that compresses.
    fn piece(&self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        match self.number(2) {
            0 => self.entropy.fill(&mut bytes),
            _ => {
                let line = format!("{:016x} the quick brown fox jumps over the lazy dog\n", self.number(u64::MAX));
                bytes.iter_mut().zip(line.bytes().cycle()).for_each(|(byte, letter)| *byte = letter);
            }
        }
        bytes
    }

    fn fill(&mut self, bytes: u64) -> io::Result<u64> {
        match self.playground.clone() {
            Playground::Folder(folder) => {
                for number in 0..bytes / (4 * PIECE_BYTES as u64) {
                    let mut file = File::create(folder.join(format!("filled-{number:04}")))?;
                    (0..4).try_for_each(|_| file.write_all(&self.piece(PIECE_BYTES)))?;
                }
                self.flush()?;
            }
            Playground::Image(image) => {
                let file = File::options().write(true).open(image)?;
                let step = self.size / (bytes / PIECE_BYTES as u64).max(1);
                for number in 0..bytes / PIECE_BYTES as u64 {
                    file.write_all_at(&self.piece(PIECE_BYTES), number * step)?;
                }
                file.sync_all()?;
            }
        }
        Ok(bytes)
    }

    fn change(&mut self) -> io::Result<()> {
        let len = 512 + self.number(PIECE_BYTES as u64 / 2) as usize;
        let piece = self.piece(len);
        match self.playground.clone() {
            Playground::Folder(folder) => self.change_file(&folder, &piece)?,
            Playground::Image(image) => {
                let at = self.number(self.size - len as u64);
                File::options().write(true).open(image)?.write_all_at(&piece, at)?;
            }
        }
        self.written.changes += 1;
        if self.written.changes.is_multiple_of(SYNC_EVERY) {
            self.flush()?;
        }
        self.written.bytes += len as u64;
        Ok(())
    }

    /// Without it the page cache would keep most of it for half a minute.
    fn flush(&self) -> io::Result<()> {
        let (Playground::Folder(path) | Playground::Image(path)) = &self.playground;
        Ok(nix::unistd::syncfs(File::open(path)?)?)
    }

    fn change_file(&self, folder: &Path, piece: &[u8]) -> io::Result<()> {
        let path = |number: u64| -> PathBuf { folder.join(format!("changing-{number:02}")) };
        let chosen = path(self.number(FILES));
        let open = || File::options().write(true).create(true).truncate(false).open(&chosen);
        match self.number(8) {
            0 => fs::write(&chosen, piece),
            1 => File::options().append(true).create(true).open(&chosen)?.write_all(piece),
            2 => open()?.set_len(self.number(piece.len() as u64)),
            3 => gone(fs::remove_file(&chosen)),
            4 => {
                // A rename makes both folder entries and, over a file that is there, frees its blocks.
                let (from, to) = (chosen, path(self.number(FILES)));
                fs::write(&from, piece)?;
                if from == to { Ok(()) } else { rename_file(&from, &to).map_err(io::Error::other) }
            }
            5 => {
                let file = open()?;
                file.write_all_at(piece, self.number(4 << 20))?;
                file.sync_all()
            }
            6 => {
                fs::create_dir_all(folder.join("deep/er/still"))?;
                fs::write(folder.join("deep/er/still").join(format!("{}", self.number(FILES))), piece)
            }
            _ => open()?.write_all_at(piece, self.number(1 << 20)),
        }
    }
}

/// What is not there need not be removed.
fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
