//! The scan tracker's own table of digests: what the target holds since the last verified cycle.
//!
//! It saves asking the hydrator. It is believed only while it is the table of exactly the last verified cycle; a crash
//! at any point makes it another cycle's, and the hydrator is asked. Nothing that befalls it ever stops a cycle.

use super::Reference;
use crate::capture::CaptureError;
use crate::journal::{JournalError, Records};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use sluice_proto::digests::{PART_GRAINS, ZERO_GRAIN, grain_count, part_count};
use sluice_proto::wire::CycleRef;
use sluice_proto::{Digest, SectorCount};
use std::collections::BTreeSet;

const TAG: &str = "digests.json";

/// Which cycle a table is of.
#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tag {
    sectors: SectorCount,
    verified: CycleRef,
}

/// What the notes of a cycle are laid over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// The table as it is: it was compared with, and believed.
    Kept,
    /// Nothing: every grain will be noted or adopted.
    Nothing,
}

/// What the running cycle has noted.
struct Notes {
    base: Base,
    /// The part that is being changed.
    open: Option<(u64, Vec<Digest>)>,
    /// Parts whose new contents lie beside the old.
    changed: BTreeSet<u64>,
}

/// The table of one disk.
pub struct LocalTable {
    records: Box<dyn Records>,
    sectors: SectorCount,
    /// `None` where the running cycle's changes are not all known: after it the hydrator must be asked.
    notes: Option<Notes>,
}

impl LocalTable {
    /// The table kept in `records`, of a disk of `sectors`.
    pub fn new(records: Box<dyn Records>, sectors: SectorCount) -> Self {
        Self { records, sectors, notes: None }
    }

    /// True where the table tells what the target holds after `verified`.
    pub fn is_of(&self, verified: CycleRef) -> bool {
        let tag = Tag { sectors: self.sectors, verified };
        let kept = self.records.load(TAG).ok().flatten();
        kept.and_then(|bytes| serde_json::from_slice::<Tag>(&bytes).ok()) == Some(tag)
    }

    /// A cycle begins whose every block will be noted.
    pub fn begin(&mut self, base: Base) {
        self.notes = Some(Notes { base, open: None, changed: BTreeSet::new() });
    }

    /// True while what is shipped is to be noted.
    pub fn is_noting(&self) -> bool {
        self.notes.is_some()
    }

    /// The running cycle's changes will not all be noted.
    pub fn lose(&mut self) {
        self.notes = None;
    }

    /// Notes what was shipped, in ascending order.
    pub fn note(&mut self, grains: &[(u64, Digest)]) {
        if let Err(error) = grains.iter().try_for_each(|(grain, digest)| self.put(*grain, *digest)) {
            self.lost(&error);
        }
    }

    /// Notes what the target was found to hold in a whole part.
    pub fn adopt(&mut self, part: u64, digests: &[Digest]) {
        if let Some(notes) = &mut self.notes {
            notes.open = None;
            if let Err(error) = self.save_next(part, digests) {
                self.lost(&error);
            }
        }
    }

    /// The cycle is proven: what was noted holds.
    pub fn verified(&mut self, verified: CycleRef) {
        if let Err(error) = self.take_over(verified) {
            self.lost(&error);
        }
    }

    fn lost(&mut self, error: &JournalError) {
        tracing::warn!(%error, "the table of digests can't be kept; the next scan asks the hydrator");
        self.lose();
    }

    fn put(&mut self, grain: u64, digest: Digest) -> Result<(), JournalError> {
        let part = grain / PART_GRAINS;
        let Some(notes) = &self.notes else { return Ok(()) };
        if notes.open.as_ref().is_none_or(|(open, _)| *open != part) {
            self.flush()?;
            let digests = self.so_far(part)?;
            if let Some(notes) = &mut self.notes {
                notes.open = Some((part, digests));
            }
        }
        let open = self.notes.as_mut().and_then(|notes| notes.open.as_mut());
        if let Some((_, digests)) = open
            && let Some(place) = digests.get_mut((grain % PART_GRAINS) as usize)
        {
            *place = digest;
        }
        Ok(())
    }

    /// A part as it is with what the running cycle noted. A cycle that is sent again comes back to earlier parts.
    fn so_far(&self, part: u64) -> Result<Vec<Digest>, JournalError> {
        match &self.notes {
            Some(notes) if notes.changed.contains(&part) => self.load(&next_name(part), part),
            Some(notes) if notes.base == Base::Nothing => Ok(vec![ZERO_GRAIN; self.grains_in(part)]),
            _ => self.load(&part_name(part), part),
        }
    }

    fn flush(&mut self) -> Result<(), JournalError> {
        match self.notes.as_mut().and_then(|notes| notes.open.take()) {
            Some((part, digests)) => self.save_next(part, &digests),
            None => Ok(()),
        }
    }

    fn save_next(&mut self, part: u64, digests: &[Digest]) -> Result<(), JournalError> {
        let bytes: Vec<u8> = digests.iter().flat_map(|d| d.0).collect();
        self.records.save(&next_name(part), &bytes)?;
        if let Some(notes) = &mut self.notes {
            notes.changed.insert(part);
        }
        Ok(())
    }

    fn take_over(&mut self, verified: CycleRef) -> Result<(), JournalError> {
        self.flush()?;
        let Some(notes) = self.notes.take() else { return Ok(()) };
        let parts = part_count(self.sectors);
        if notes.base == Base::Nothing && (0..parts).any(|part| !notes.changed.contains(&part)) {
            return Err(JournalError("not every part of the table was noted".into()));
        }
        // From here until the tag stands again, nobody believes the table.
        self.records.remove(TAG)?;
        for part in notes.changed {
            let missing = || JournalError(format!("{}: missing", next_name(part)));
            let bytes = self.records.load(&next_name(part))?.ok_or_else(missing)?;
            self.records.save(&part_name(part), &bytes)?;
            self.records.remove(&next_name(part))?;
        }
        let tag = Tag { sectors: self.sectors, verified };
        let tag = serde_json::to_vec(&tag).map_err(|e| JournalError(format!("{TAG}: {e}")))?;
        self.records.save(TAG, &tag)
    }

    fn grains_in(&self, part: u64) -> usize {
        grain_count(self.sectors).saturating_sub(part * PART_GRAINS).min(PART_GRAINS) as usize
    }

    fn load(&self, name: &str, part: u64) -> Result<Vec<Digest>, JournalError> {
        let bytes = self.records.load(name)?.ok_or_else(|| JournalError(format!("{name}: missing")))?;
        let digest = |chunk: &[u8]| chunk.try_into().map(Digest).unwrap_or(ZERO_GRAIN);
        match bytes.len() == self.grains_in(part) * 32 {
            true => Ok(bytes.chunks_exact(32).map(digest).collect()),
            false => Err(JournalError(format!("{name}: another length than the disk's"))),
        }
    }
}

fn part_name(part: u64) -> String {
    format!("digests-{part:06}")
}

fn next_name(part: u64) -> String {
    format!("digests-{part:06}.next")
}

#[async_trait]
impl Reference for LocalTable {
    async fn part(&mut self, part: u64) -> Result<Vec<Digest>, CaptureError> {
        Ok(self.load(&part_name(part), part)?)
    }
}
