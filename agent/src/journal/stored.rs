//! The segments of the running cycle that the appliance has. A large disk's first copy has hundreds of thousands of them for
//! each TiB, so they are kept in 56 bytes each; their blocks' chaining values stay in the log.

use super::{JournalError, Noted};
use sluice_proto::Digest;

/// A segment that the appliance has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its first block.
    pub first: u64,
    /// How many blocks it holds.
    pub blocks: u64,
    /// Its length in bytes.
    pub len: u64,
    /// BLAKE3 of its bytes.
    pub hash: Digest,
    /// The salt of its attempt.
    pub salt: Digest,
}

/// Segments by their first block, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredSegments {
    list: Vec<Entry>,
    /// Of each attempt one.
    salts: Vec<Digest>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    first: u64,
    hash: Digest,
    blocks: u32,
    len: u32,
    salt: u32,
}

impl StoredSegments {
    /// Adds a segment, in the place of one that begins with the same block.
    pub(super) fn insert(&mut self, noted: &Noted) -> Result<(), JournalError> {
        let large = |_| JournalError(format!("segments.log: a segment at block {} larger than any", noted.first));
        let blocks = u32::try_from(noted.cvs.len()).map_err(large)?;
        let len = u32::try_from(noted.len).map_err(large)?;
        // The newest attempt is the one that most of them are of.
        let known = self.salts.iter().rposition(|salt| *salt == noted.salt);
        let salt = known.unwrap_or(self.salts.len());
        if known.is_none() {
            self.salts.push(noted.salt);
        }
        let entry = Entry { first: noted.first, hash: noted.hash, blocks, len, salt: salt as u32 };
        match self.list.binary_search_by_key(&noted.first, |entry| entry.first) {
            Ok(at) => self.list[at] = entry,
            Err(at) => self.list.insert(at, entry),
        }
        Ok(())
    }

    /// Keeps what is wanted. Of two that overlap the one that begins first is kept.
    pub(super) fn retain(&mut self, keep: impl Fn(&Stored) -> bool) {
        let (mut behind, salts) = (0, &self.salts);
        self.list.retain(|entry| {
            let kept = entry.first >= behind && keep(&entry.told(salts));
            if kept {
                behind = entry.end();
            }
            kept
        });
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// True where the very segment is one of them.
    pub(super) fn has(&self, noted: &Noted) -> bool {
        let at = self.list.binary_search_by_key(&noted.first, |entry| entry.first);
        at.is_ok_and(|at| self.list[at].hash == noted.hash && self.list[at].blocks as usize == noted.cvs.len())
    }

    /// All of them, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Stored> {
        self.list.iter().map(|entry| entry.told(&self.salts))
    }

    /// The stretches of blocks that they hold, each from its first to before its end; neighbours are one.
    pub fn stretches(&self) -> Vec<(u64, u64)> {
        let mut found: Vec<(u64, u64)> = Vec::new();
        for entry in &self.list {
            match found.last_mut().filter(|(_, end)| *end == entry.first) {
                Some((_, end)) => *end = entry.end(),
                None => found.push((entry.first, entry.end())),
            }
        }
        found
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many blocks they hold.
    pub fn blocks(&self) -> u64 {
        self.list.iter().map(|entry| u64::from(entry.blocks)).sum()
    }
}

impl Entry {
    fn end(&self) -> u64 {
        self.first.saturating_add(u64::from(self.blocks))
    }

    fn told(&self, salts: &[Digest]) -> Stored {
        Stored {
            first: self.first,
            blocks: u64::from(self.blocks),
            len: u64::from(self.len),
            hash: self.hash,
            salt: salts[self.salt as usize],
        }
    }
}
