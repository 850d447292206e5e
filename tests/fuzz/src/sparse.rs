//! A file in memory that takes room only for what is not zero: an image may claim 80 TiB, and a target may ask anywhere.

use sluice_hydrator::formats::{ReadAt, WriteAt};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

const PAGE: u64 = 4096;

/// The file. A clone shares its pages until they are written to.
#[derive(Clone, Default)]
pub struct Sparse {
    pages: BTreeMap<u64, Arc<[u8; PAGE as usize]>>,
    len: u64,
}

impl Sparse {
    /// A file of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut file = Self::default();
        file.put(0, bytes);
        file.len = bytes.len() as u64;
        file
    }

    /// The file's length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True where the file holds no byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Changes the length; what is cut off is zero when the file grows again.
    pub fn resize(&mut self, len: u64) {
        if len < self.len {
            drop(self.pages.split_off(&len.div_ceil(PAGE)));
            let within = (len % PAGE) as usize;
            if let Some(page) = self.pages.get_mut(&(len / PAGE)).filter(|_| within > 0) {
                Arc::make_mut(page)[within..].fill(0);
            }
        }
        self.len = len;
    }

    /// Puts bytes at `offset` and makes the file long enough for them; nothing beyond what a file can have.
    pub fn put(&mut self, offset: u64, bytes: &[u8]) {
        let Some(end) = offset.checked_add(bytes.len() as u64).filter(|end| *end < 1 << 60) else { return };
        let mut rest = bytes;
        let mut at = offset;
        while !rest.is_empty() {
            let within = (at % PAGE) as usize;
            let (piece, tail) = rest.split_at(rest.len().min(PAGE as usize - within));
            let zero = piece.iter().all(|byte| *byte == 0);
            if !zero || self.pages.contains_key(&(at / PAGE)) {
                let page = self.pages.entry(at / PAGE).or_insert_with(|| Arc::new([0; PAGE as usize]));
                Arc::make_mut(page)[within..within + piece.len()].copy_from_slice(piece);
            }
            (rest, at) = (tail, at + piece.len() as u64);
        }
        self.len = self.len.max(end);
    }

    /// The bytes at `offset`; `None` where the file ends before.
    pub fn get(&self, offset: u64, len: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.read_at(offset, &mut bytes).ok().map(|()| bytes)
    }
}

impl ReadAt for Sparse {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buf.len() as u64).filter(|end| *end <= self.len);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.fill(0);
        for (page, bytes) in self.pages.range(offset / PAGE..end.div_ceil(PAGE)) {
            let start = (page * PAGE).max(offset);
            let stop = ((page + 1) * PAGE).min(end);
            let from = (start - page * PAGE) as usize;
            let part = &bytes[from..from + (stop - start) as usize];
            buf[(start - offset) as usize..(stop - offset) as usize].copy_from_slice(part);
        }
        Ok(())
    }
}

impl WriteAt for Sparse {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = offset.checked_add(bytes.len() as u64).filter(|end| *end < 1 << 60);
        end.ok_or(io::ErrorKind::FileTooLarge)?;
        self.put(offset, bytes);
        Ok(())
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.resize(len);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_what_a_plain_file_would() {
        let mut file = Sparse::of(&[1; 5000]);
        file.put(9000, &[2; 10]);
        file.resize(4100);
        file.resize(10_000);
        let mut plain = vec![1_u8; 4100];
        plain.resize(10_000, 0);
        assert_eq!(file.get(0, 10_000), Some(plain));
        assert_eq!(file.get(9_999, 2), None);
        file.put(1 << 50, &[3]);
        assert_eq!((file.len(), file.get((1 << 50) - 1, 2)), ((1 << 50) + 1, Some(vec![0, 3])));
    }
}
