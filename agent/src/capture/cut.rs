//! Laying encoded blocks into segments.

use super::{Encoded, Encoders};
use sluice_proto::header::Header;
use sluice_proto::keys::DataKey;
use sluice_proto::segment::SegmentWriter;
use sluice_proto::stream::BlockCv;

/// A segment that is being filled.
pub(super) struct Open {
    pub(super) writer: SegmentWriter,
    pub(super) cvs: Vec<BlockCv>,
    pub(super) plain_bytes: u64,
    sealed_bytes: usize,
}

impl Open {
    fn is_full(&self, bytes: usize) -> bool {
        self.writer.is_full() || self.sealed_bytes >= bytes
    }
}

/// Cuts the blocks of one attempt, given in order, into segments.
pub(super) struct Cutter<'a> {
    key: &'a DataKey,
    header: &'a Header,
    encoders: &'a Encoders,
    /// What a segment holds before the next is begun.
    segment_bytes: usize,
    open: Option<Open>,
    /// A block that belongs into the next segment, as the one before is full or does not reach it.
    waiting: Option<Encoded>,
    ended: bool,
}

impl<'a> Cutter<'a> {
    pub(super) fn new(key: &'a DataKey, header: &'a Header, encoders: &'a Encoders, segment_bytes: usize) -> Self {
        Self { key, header, encoders, segment_bytes, open: None, waiting: None, ended: false }
    }

    /// True where a block can be taken.
    pub(super) fn wants_block(&self) -> bool {
        !self.ended && self.waiting.is_none()
    }

    /// Takes the next block.
    pub(super) fn push(&mut self, block: Encoded) {
        let fits = |open: &Open| {
            let next = open.writer.first().0 + open.writer.blocks();
            !open.is_full(self.segment_bytes) && next == block.block.block.0
        };
        match self.open.as_ref().is_none_or(fits) {
            true => self.lay(block),
            false => self.waiting = Some(block),
        }
    }

    /// No block follows.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    /// The segment that can get no more blocks.
    pub(super) fn next_segment(&mut self) -> Option<Open> {
        let full = self.open.as_ref().is_some_and(|open| open.is_full(self.segment_bytes));
        let whole = full || self.waiting.is_some() || self.ended;
        let segment = if whole { self.open.take() } else { None };
        if segment.is_some()
            && let Some(block) = self.waiting.take()
        {
            self.lay(block);
        }
        segment
    }

    /// True once every block was cut into a segment that was taken.
    pub(super) fn is_done(&self) -> bool {
        self.ended && self.open.is_none()
    }

    fn lay(&mut self, block: Encoded) {
        let new = || Open {
            writer: SegmentWriter::reusing(
                self.key,
                self.header,
                block.block.block,
                self.encoders.buffers().segments.take(),
            ),
            cvs: Vec::new(),
            plain_bytes: 0,
            sealed_bytes: 0,
        };
        let open = self.open.get_or_insert_with(new);
        open.sealed_bytes += block.block.bytes.len();
        open.writer.push(&block.block);
        open.cvs.push(block.block.cv);
        open.plain_bytes += block.plain_bytes;
        self.encoders.buffers().blocks.give_back(block.block.bytes);
    }
}
