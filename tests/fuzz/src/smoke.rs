//! The smoke run: corpus and findings as they are, then seeded mutations of them. Bounded by rounds, not by time, so that
//! a slow machine tests as much as a fast one, and every run is the same run.

use crate::{Target, home};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

/// What a target was given.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Files of the corpus and findings.
    pub files: usize,
    /// Mutated inputs.
    pub rounds: u32,
    /// Inputs that it did not bear.
    pub failed: usize,
}

/// The longest input that a mutation makes.
const INPUT_BYTES_MAX: usize = 16 << 10;

/// Files of a folder, by name; none where there is no folder.
///
/// # Errors
/// A file that can't be read.
pub fn files(folder: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.sort();
    let read = |path: PathBuf| {
        let bytes = fs::read(&path).with_context(|| format!("{} can't be read", path.display()))?;
        Ok((path, bytes))
    };
    paths.into_iter().map(read).collect()
}

/// Runs `target` on what is committed for it and on `target.rounds` mutations of that.
///
/// # Errors
/// No corpus, or one that can't be read.
pub fn run(target: Target) -> Result<Tally> {
    let mut corpus = files(&home().join("corpus").join(target.name))?;
    corpus.extend(files(&home().join("findings").join(target.name))?);
    ensure!(!corpus.is_empty(), "{}: has no corpus; `sluice-fuzz seeds {0}` writes one", target.name);
    let mut tally = Tally { files: corpus.len(), rounds: target.rounds, failed: 0 };
    for (path, bytes) in &corpus {
        if fails(target, bytes) {
            println!("{}: FAILED by {}", target.name, path.display());
            tally.failed += 1;
        }
    }
    let inputs: Vec<Vec<u8>> = corpus.into_iter().map(|(_, bytes)| bytes).collect();
    let seed = blake3::hash(target.name.as_bytes());
    let mut random = Random(u64::from_le_bytes(std::array::from_fn(|i| seed.as_bytes()[i])));
    for round in 0..target.rounds {
        let input = mutated(&inputs, &mut random);
        if fails(target, &input) {
            println!("{}: FAILED in round {round} by {}", target.name, keep(target, &input)?.display());
            tally.failed += 1;
            break;
        }
    }
    Ok(tally)
}

/// What the target says on its way out is on stderr by then.
fn fails(target: Target, input: &[u8]) -> bool {
    catch_unwind(|| (target.run)(input)).is_err()
}

/// Puts an input where it can be looked at and replayed with `sluice-fuzz replay`.
fn keep(target: Target, input: &[u8]) -> Result<PathBuf> {
    let name = format!("sluice-fuzz-{}-{}", target.name, &blake3::hash(input).to_hex()[..12]);
    let path = std::env::temp_dir().join(name);
    fs::write(&path, input).with_context(|| format!("{} can't be written", path.display()))?;
    Ok(path)
}

/// SplitMix64: the same numbers in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`, and 0 for 0.
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// Some input with a few changes.
fn mutated(inputs: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = inputs[random.below(inputs.len())].clone();
    for _ in 0..=random.below(4) {
        change(&mut input, inputs, random);
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

fn change(input: &mut Vec<u8>, inputs: &[Vec<u8>], random: &mut Random) {
    let at = random.below(input.len());
    match random.below(8) {
        0 => change_byte(input, at, |byte| byte ^ 1 << (random.next() % 8)),
        1 => change_byte(input, at, |_| random.next() as u8),
        2 => change_byte(input, at, |byte| byte.wrapping_add(if random.next() & 1 == 0 { 1 } else { 255 })),
        3 => input.truncate(at),
        4 => drop(input.drain(at..(at + random.below(16)).min(input.len()))),
        5 => {
            let bytes: Vec<u8> = (0..random.below(9)).map(|_| random.next() as u8).collect();
            input.splice(at..at, bytes);
        }
        6 => {
            // Numbers at which something ends.
            let numbers = [0, 1, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX >> 1, u64::MAX];
            let (number, width) = (numbers[random.below(numbers.len())], 1 << random.below(4));
            let end = (at + width).min(input.len());
            input[at..end].copy_from_slice(&number.to_le_bytes()[..end - at]);
        }
        _ => {
            let other = &inputs[random.below(inputs.len())];
            let from = random.below(other.len());
            let to = (from + random.below(64)).min(other.len());
            let end = (at + to - from).min(input.len());
            input.splice(at..end, other[from..to].iter().copied());
        }
    }
}

fn change_byte(input: &mut [u8], at: usize, change: impl FnOnce(u8) -> u8) {
    if let Some(byte) = input.get_mut(at) {
        *byte = change(*byte);
    }
}
