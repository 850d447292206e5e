//! Iterating a bitmap by runs, joined where they cross the edge of a shard.

use super::shard::{SHARD_LAST, Shard, ShardRuns};
use super::{shard_span, start_of};
use crate::{Extent, Sector, SectorCount};
use std::collections::{BTreeMap, btree_map};

/// The longest possible runs of a bitmap within an extent, ascending.
#[derive(Clone)]
pub struct Runs<'a> {
    within: Extent,
    shards: btree_map::Range<'a, u32, Shard>,
    /// The shard that is being read: its first sector and what is left of its runs.
    current: Option<(u64, ShardRuns<'a>)>,
    /// A run that may go on.
    open: Option<Extent>,
}

impl<'a> Runs<'a> {
    pub(super) fn new(shards: &'a BTreeMap<u32, Shard>, within: Extent) -> Self {
        let shards = match shard_span(within) {
            Some((first, last)) => shards.range(first..=last),
            None => shards.range(0..0),
        };
        Self { within, shards, current: None, open: None }
    }

    /// The next run of a shard, not yet joined with what follows.
    fn next_piece(&mut self) -> Option<Extent> {
        loop {
            if let Some((start, runs)) = &mut self.current {
                if let Some(range) = runs.next() {
                    let len = u64::from(range.end() - range.start()) + 1;
                    return Extent::new(*start + u64::from(*range.start()), len).intersect(self.within);
                }
                self.current = None;
            }
            let (key, shard) = self.shards.next()?;
            let start = start_of(*key);
            let from = self.within.start.0.saturating_sub(start).min(u64::from(SHARD_LAST));
            self.current = Some((start, shard.runs_from(from as u32)));
        }
    }
}

impl Iterator for Runs<'_> {
    type Item = Extent;

    fn next(&mut self) -> Option<Extent> {
        loop {
            let piece = self.next_piece();
            match (self.open.take(), piece) {
                (Some(open), Some(piece)) if open.end() == piece.start => {
                    let len = SectorCount(open.len.0 + piece.len.0);
                    self.open = Some(Extent { start: Sector(open.start.0), len });
                }
                (Some(open), piece) => {
                    self.open = piece;
                    return Some(open);
                }
                (None, Some(piece)) => self.open = Some(piece),
                (None, None) => return None,
            }
        }
    }
}
