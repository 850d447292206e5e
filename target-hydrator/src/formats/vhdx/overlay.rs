//! A file as it reads once its log has been applied, without writing to it.

use super::super::ReadAt;
use super::LOG_SECTOR;
use std::io;

/// One change that the log holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// Where in the file, in bytes; a multiple of 4096.
    pub(super) offset: u64,
    pub(super) kind: ChangeKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ChangeKind {
    /// The sector's new bytes.
    Data(Box<[u8; LOG_SECTOR as usize]>),
    /// So many bytes become zero.
    Zero(u64),
}

impl Change {
    /// Bytes of the file that it changes.
    pub(super) fn len(&self) -> u64 {
        match self.kind {
            ChangeKind::Data(_) => LOG_SECTOR,
            ChangeKind::Zero(bytes) => bytes,
        }
    }
}

/// The file with the changes in it, in their order.
pub(super) struct Overlaid<'a> {
    pub(super) reader: &'a dyn ReadAt,
    /// The file's length.
    pub(super) file_size: u64,
    /// Its length after the changes, at least as large; what is new reads as zeros.
    pub(super) new_size: u64,
    pub(super) changes: &'a [Change],
}

impl ReadAt for Overlaid<'_> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buf.len() as u64).filter(|end| *end <= self.new_size);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        let in_file = self.file_size.clamp(offset, end) - offset;
        let (old, new) = buf.split_at_mut(in_file as usize);
        if !old.is_empty() {
            self.reader.read_at(offset, old)?;
        }
        new.fill(0);
        for change in self.changes {
            let from = change.offset.max(offset);
            let to = change.offset.saturating_add(change.len()).min(end);
            if from >= to {
                continue;
            }
            let part = &mut buf[(from - offset) as usize..(to - offset) as usize];
            match &change.kind {
                ChangeKind::Zero(_) => part.fill(0),
                ChangeKind::Data(bytes) => {
                    part.copy_from_slice(&bytes[(from - change.offset) as usize..(to - change.offset) as usize]);
                }
            }
        }
        Ok(())
    }
}
