//! A file in memory, sparse, that can crash: what was written since the last sync is kept, lost or torn.

use super::super::{ReadAt, WriteAt};
use super::TestIds;
use std::collections::BTreeMap;
use std::io;

const SECTOR: u64 = 512;

/// What has reached the disk for good.
#[derive(Clone, Debug, Default)]
struct Bytes {
    len: u64,
    sectors: BTreeMap<u64, [u8; SECTOR as usize]>,
}

#[derive(Clone, Debug)]
enum Pending {
    SetLen(u64),
    Sector(u64, Box<[u8; SECTOR as usize]>),
}

/// The file. Reads see everything written; a crash takes away what wasn't synced, or parts of it.
#[derive(Clone, Debug, Default)]
pub(super) struct MemDisk {
    seen: Bytes,
    durable: Bytes,
    pending: Vec<Pending>,
}

impl Bytes {
    fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.sectors.retain(|sector, _| sector * SECTOR < len);
            if let Some(last) = self.sectors.get_mut(&(len / SECTOR)) {
                last[(len % SECTOR) as usize..].fill(0);
            }
        }
        self.len = len;
    }
    fn apply(&mut self, change: &Pending) {
        match change {
            Pending::SetLen(len) => self.set_len(*len),
            Pending::Sector(sector, bytes) => {
                self.sectors.insert(*sector, **bytes);
                self.len = self.len.max((sector + 1) * SECTOR);
            }
        }
    }
}

impl MemDisk {
    pub(super) fn len(&self) -> u64 {
        self.seen.len
    }

    /// The disk after a power cut now that loses all that wasn't synced.
    pub(super) fn cut(&self) -> Self {
        Self { seen: self.durable.clone(), durable: self.durable.clone(), pending: Vec::new() }
    }

    /// The disk after a power cut now: each sector written since the last sync is there or not, as `ids` decides.
    pub(super) fn crashed(&self, ids: &TestIds) -> Self {
        let mut durable = self.durable.clone();
        // Mostly all or nothing, sometimes half: the orders that break things are at both ends.
        let odds = [0, 1, 2, 3, 4][ids.below(5) as usize];
        for change in &self.pending {
            if ids.below(4) < odds {
                durable.apply(change);
            }
        }
        Self { seen: durable.clone(), durable, pending: Vec::new() }
    }
}

impl ReadAt for MemDisk {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > self.seen.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let within = (at % SECTOR) as usize;
            let n = (SECTOR as usize - within).min(buf.len() - done);
            match self.seen.sectors.get(&(at / SECTOR)) {
                Some(sector) => buf[done..done + n].copy_from_slice(&sector[within..within + n]),
                None => buf[done..done + n].fill(0),
            }
            done += n;
        }
        Ok(())
    }
}

impl WriteAt for MemDisk {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        assert!(offset.is_multiple_of(SECTOR) && bytes.len().is_multiple_of(SECTOR as usize), "whole sectors only");
        for (i, chunk) in bytes.chunks_exact(SECTOR as usize).enumerate() {
            let mut sector = Box::new([0; SECTOR as usize]);
            sector.copy_from_slice(chunk);
            let change = Pending::Sector(offset / SECTOR + i as u64, sector);
            self.seen.apply(&change);
            self.pending.push(change);
        }
        Ok(())
    }
    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.seen.set_len(len);
        self.pending.push(Pending::SetLen(len));
        Ok(())
    }
    fn sync(&mut self) -> io::Result<()> {
        for change in self.pending.drain(..) {
            self.durable.apply(&change);
        }
        Ok(())
    }
}
