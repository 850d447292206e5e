//! A medium that forgets a bit.

use super::Fault;
use crate::scene::Scene;
use sluice_test_support::cluster::Part;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long an object may be waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// A bit flips in an object of the cache's folder. The hydrator is stopped until there is one: else it might be read and
/// gone before.
pub struct Corrupt {
    pub which: u64,
    pub bit: u64,
}

impl Fault for Corrupt {
    fn begin(&mut self, scene: &mut Scene) -> bool {
        let Some(folder) = scene.cache.as_ref().map(|small| small.path().to_owned()) else { return false };
        scene.signal(Part::Hydrator, "STOP");
        let end = Instant::now() + PATIENCE;
        let mut flipped = false;
        while !flipped && Instant::now() < end {
            let objects = objects(&folder);
            if !objects.is_empty() {
                let object = &objects[(self.which % objects.len() as u64) as usize];
                // It may be gone by now.
                flipped = flip(object, self.bit).unwrap_or(false);
                if flipped {
                    scene.flipped.push(key(&folder, object));
                }
            }
            std::thread::yield_now();
        }
        scene.signal(Part::Hydrator, "CONT");
        scene.counts.add("objects corrupted", u64::from(flipped));
        flipped
    }

    fn end(&mut self, _: &mut Scene) {}
}

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a bit flips in the cache")
    }
}

/// All objects of cycles, in folders below `root`, in order of their names. In the root itself lies what a process that
/// starts checks the store with: where that is damaged, it rightly ends.
fn objects(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                folders.push(entry.path());
            } else if entry.path().parent() != Some(root) {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

/// The object's key. While it is being put it lies in a file that is called `KEY#1`.
fn key(root: &Path, object: &Path) -> String {
    let key = object.strip_prefix(root).expect("it was found there").to_string_lossy();
    key.split('#').next().unwrap_or_default().to_owned()
}

fn flip(object: &Path, bit: u64) -> io::Result<bool> {
    let file = OpenOptions::new().read(true).write(true).open(object)?;
    let bits = file.metadata()?.len() * 8;
    if bits == 0 {
        return Ok(false);
    }
    let (at, mask) = (bit % bits / 8, 1 << (bit % 8));
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    file.write_all_at(&[byte[0] ^ mask], at)?;
    Ok(true)
}
