//! A block table in memory: four bytes a block, and pages without an allocated block take nothing.

use std::collections::BTreeMap;

const PAGE: u64 = 1024;

/// Maps block numbers to a word, the format's own; most often `free`.
#[derive(Clone, Debug)]
pub(super) struct BlockTable {
    free: u32,
    blocks: u64,
    pages: BTreeMap<u64, Box<[u32]>>,
}

impl BlockTable {
    /// `blocks` blocks, all of them `free`.
    pub(super) fn new(blocks: u64, free: u32) -> Self {
        Self { free, blocks, pages: BTreeMap::new() }
    }

    pub(super) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// The word of a block; `free` for one that doesn't exist.
    pub(super) fn get(&self, block: u64) -> u32 {
        self.pages.get(&(block / PAGE)).map_or(self.free, |page| page[(block % PAGE) as usize])
    }

    /// Sets the word of a block; nothing for one that doesn't exist.
    pub(super) fn set(&mut self, block: u64, word: u32) {
        if block >= self.blocks || (word == self.free && !self.pages.contains_key(&(block / PAGE))) {
            return;
        }
        let free = self.free;
        let page = self.pages.entry(block / PAGE).or_insert_with(|| vec![free; PAGE as usize].into());
        page[(block % PAGE) as usize] = word;
    }

    /// The blocks whose word is not `free`, in order.
    pub(super) fn used(&self) -> impl Iterator<Item = (u64, u32)> + '_ {
        self.pages.iter().flat_map(move |(page, words)| {
            words
                .iter()
                .enumerate()
                .filter(|(_, word)| **word != self.free)
                .map(move |(i, w)| (page * PAGE + i as u64, *w))
        })
    }
}
