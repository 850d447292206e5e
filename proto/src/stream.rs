//! A cycle's stream and its digest.
//!
//! The stream is the plaintext of every planned sector in ascending order. Its digest is plain BLAKE3, what `b3sum`
//! prints for the same bytes, yet it is computed block by block, in any order, on several cores, and over several runs
//! of the agent: a block of 1 MiB is a whole subtree of BLAKE3's tree (BLAKE3 specification, section 2.1), so its
//! chaining value is all that the rest of the tree needs of it. A digest kept as one running hash would be lost with
//! the process, and a resumed cycle would have to read again what may have changed since.

use crate::bitmap::SectorBitmap;
use crate::units::{BLOCK_SECTORS, BlockNo, Extent, SECTOR_BYTES, SectorCount};
use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A BLAKE3 digest of 32 bytes, written in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        blake3::Hash::from_hex(text.as_bytes())
            .map(|h| Self(*h.as_bytes()))
            .map_err(|_| serde::de::Error::custom("a digest is 64 hexadecimal digits"))
    }
}

/// The chaining value of one block; where the whole stream fits one block, the stream's digest itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockCv(pub [u8; 32]);

/// The chaining value of a whole subtree of 2^`level` blocks, of which the first has a multiple of that as its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subtree {
    cv: [u8; 32],
    level: u32,
}

/// Merges the chaining values of the blocks from `first` on into those of as few subtrees as BLAKE3's tree is sure to
/// have, whatever the stream's length: all that are whole, but never one that begins with the first block and may turn out
/// to be the root. At most two for each bit of the number of blocks.
pub fn subtrees(first: BlockNo, mut cvs: &[BlockCv]) -> Vec<Subtree> {
    let mut found = Vec::new();
    let mut at = first.0;
    while let Some(most) = cvs.len().checked_ilog2() {
        let level = if at == 0 { most.saturating_sub(1) } else { most.min(at.trailing_zeros()) };
        let (whole, rest) = cvs.split_at(1 << level);
        found.push(Subtree { cv: merged(whole), level });
        at += 1 << level;
        cvs = rest;
    }
    found
}

/// The chaining value above a power of two of others.
fn merged(cvs: &[BlockCv]) -> [u8; 32] {
    match cvs {
        [only] => only.0,
        _ => {
            let (left, right) = cvs.split_at(cvs.len() / 2);
            merge_subtrees_non_root(&merged(left), &merged(right), Mode::Hash)
        }
    }
}

/// How many blocks a stream of that many sectors has.
pub fn block_count(stream: SectorCount) -> u64 {
    stream.0.div_ceil(BLOCK_SECTORS)
}

/// Hashes one block of a stream.
pub struct BlockHasher {
    inner: blake3::Hasher,
    alone: bool,
}

impl BlockHasher {
    /// A hasher for `block` of a stream of `stream` sectors in all.
    pub fn new(block: BlockNo, stream: SectorCount) -> Self {
        let mut inner = blake3::Hasher::new();
        inner.set_input_offset(block.0 * BLOCK_SECTORS * SECTOR_BYTES);
        Self { inner, alone: stream.0 <= BLOCK_SECTORS }
    }

    /// Adds the block's next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.inner.update(bytes);
    }

    /// Adds `len` bytes of zeros.
    pub fn update_zeros(&mut self, mut len: u64) {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        while len > 0 {
            let step = len.min(ZEROS.len() as u64);
            self.inner.update(&ZEROS[..step as usize]);
            len -= step;
        }
    }

    /// The block's chaining value. At least one byte must have been added.
    pub fn finish(self) -> BlockCv {
        match self.alone {
            true => BlockCv(*self.inner.finalize().as_bytes()),
            false => BlockCv(self.inner.finalize_non_root()),
        }
    }
}

/// Merges the chaining values of a stream's blocks, given in order, into the stream's digest.
#[derive(Clone, Default)]
pub struct StreamDigest {
    stack: Vec<[u8; 32]>,
    blocks: u64,
}

impl StreamDigest {
    /// Adds the next block's chaining value.
    pub fn push(&mut self, cv: BlockCv) {
        self.push_subtree(Subtree { cv: cv.0, level: 0 });
    }

    /// Adds that of the next blocks.
    pub fn push_subtree(&mut self, next: Subtree) {
        // Merging waits until it is known that more follows: the last merge is the root's and differs.
        while self.stack.len() > self.blocks.count_ones() as usize {
            self.merge();
        }
        self.stack.push(next.cv);
        self.blocks += 1 << next.level;
    }

    fn merge(&mut self) {
        if let (Some(right), Some(left)) = (self.stack.pop(), self.stack.pop()) {
            self.stack.push(merge_subtrees_non_root(&left, &right, Mode::Hash));
        }
    }

    /// How many blocks have been pushed.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// The digest of the whole stream; that of no bytes where no block was pushed.
    pub fn finish(mut self) -> Digest {
        while self.stack.len() > 2 {
            self.merge();
        }
        match self.stack[..] {
            [] => Digest::of(&[]),
            [only] => Digest(only),
            [left, right, ..] => Digest(*merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()),
        }
    }
}

/// Walks a plan's blocks in order: each with the extents that make it up, ascending.
pub struct Blocks<'a> {
    runs: Box<dyn Iterator<Item = Extent> + Send + 'a>,
    rest: Option<Extent>,
    next: BlockNo,
}

impl<'a> Blocks<'a> {
    /// The blocks of the cycle that ships `plan`.
    pub fn of(plan: &'a SectorBitmap) -> Self {
        Self::from_runs(plan.runs())
    }

    /// The blocks of a stream made of these runs, which ascend and do not touch.
    pub fn from_runs(runs: impl Iterator<Item = Extent> + Send + 'a) -> Self {
        Self { runs: Box::new(runs), rest: None, next: BlockNo(0) }
    }
}

impl Iterator for Blocks<'_> {
    type Item = (BlockNo, Vec<Extent>);

    fn next(&mut self) -> Option<Self::Item> {
        let mut room = BLOCK_SECTORS;
        let mut extents = Vec::new();
        while room > 0 {
            let Some(run) = self.rest.take().or_else(|| self.runs.next()) else { break };
            let taken = run.len.0.min(room);
            extents.push(Extent::new(run.start.0, taken));
            if taken < run.len.0 {
                self.rest = Some(Extent::new(run.start.0 + taken, run.len.0 - taken));
            }
            room -= taken;
        }
        let block = self.next;
        self.next = block.next();
        (!extents.is_empty()).then_some((block, extents))
    }
}

#[cfg(test)]
mod tests;
