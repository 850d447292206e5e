//! The scan tracker's own table of digests: what the target holds since the last verified cycle.
//!
//! It saves asking the hydrator. It is believed only while it is the table of exactly the last verified cycle; a crash
//! at any point makes it another cycle's, and the hydrator is asked.

use super::Reference;
use crate::capture::CaptureError;
use crate::journal::{JournalError, Records};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use sluice_proto::digests::{PART_GRAINS, ZERO_GRAIN, grain_count};
use sluice_proto::wire::CycleRef;
use sluice_proto::{Digest, SectorCount};

const TAG: &str = "digests.json";

/// Which cycle a table is of.
#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tag {
    sectors: SectorCount,
    verified: CycleRef,
}

/// The table of one disk.
pub struct LocalTable {
    records: Box<dyn Records>,
    sectors: SectorCount,
    /// The part that is being changed.
    open: Option<(u64, Vec<Digest>)>,
    /// Parts that were changed in the running cycle; `None` where the running cycle's changes are not all known.
    changed: Option<Vec<u64>>,
}

impl LocalTable {
    /// The table kept in `records`, of a disk of `sectors`.
    pub fn new(records: Box<dyn Records>, sectors: SectorCount) -> Self {
        Self { records, sectors, open: None, changed: None }
    }

    /// True where the table tells what the target holds after `verified`.
    pub fn is_of(&self, verified: CycleRef) -> bool {
        let tag = Tag { sectors: self.sectors, verified };
        let kept = self.records.load(TAG).ok().flatten();
        kept.and_then(|bytes| serde_json::from_slice::<Tag>(&bytes).ok()) == Some(tag)
    }

    /// A cycle begins whose every block will be noted. `whole` where it ships the whole disk, whatever was there.
    ///
    /// # Errors
    /// Records that can't be written.
    pub fn begin(&mut self, whole: bool) -> Result<(), JournalError> {
        if whole {
            self.records.remove(TAG)?;
            for part in 0..grain_count(self.sectors).div_ceil(PART_GRAINS) {
                self.records.remove(&part_name(part))?;
            }
        }
        self.open = None;
        self.changed = Some(Vec::new());
        Ok(())
    }

    /// The running cycle's changes will not all be noted: after it the hydrator must be asked.
    pub fn lose(&mut self) {
        self.open = None;
        self.changed = None;
    }

    /// Notes what was shipped, in ascending order. A failure loses the table, never the cycle.
    pub fn note(&mut self, grains: &[(u64, Digest)]) {
        for (grain, digest) in grains {
            if self.changed.is_none() {
                return;
            }
            if let Err(error) = self.put(*grain, *digest) {
                tracing::warn!(%error, "the table of digests can't be kept; the next scan asks the hydrator");
                self.lose();
            }
        }
    }

    fn put(&mut self, grain: u64, digest: Digest) -> Result<(), JournalError> {
        let part = grain / PART_GRAINS;
        if self.open.as_ref().is_none_or(|(open, _)| *open != part) {
            self.flush()?;
            self.open = Some((part, self.load(part)?));
        }
        if let Some((_, digests)) = &mut self.open
            && let Some(place) = digests.get_mut((grain % PART_GRAINS) as usize)
        {
            *place = digest;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), JournalError> {
        let (Some((part, digests)), Some(changed)) = (self.open.take(), &mut self.changed) else { return Ok(()) };
        let bytes: Vec<u8> = digests.iter().flat_map(|d| d.0).collect();
        self.records.save(&next_name(part), &bytes)?;
        changed.push(part);
        Ok(())
    }

    /// The cycle is proven: what was noted holds.
    ///
    /// # Errors
    /// Records that can't be written; the table is not believed then.
    pub fn verified(&mut self, verified: CycleRef) -> Result<(), JournalError> {
        if self.changed.is_none() {
            return Ok(());
        }
        self.flush()?;
        self.records.remove(TAG)?;
        for part in self.changed.take().unwrap_or_default() {
            if let Some(bytes) = self.records.load(&next_name(part))? {
                self.records.save(&part_name(part), &bytes)?;
                self.records.remove(&next_name(part))?;
            }
        }
        let tag = Tag { sectors: self.sectors, verified };
        self.records.save(TAG, &serde_json::to_vec(&tag).unwrap_or_default())
    }

    fn load(&self, part: u64) -> Result<Vec<Digest>, JournalError> {
        let grains = grain_count(self.sectors).saturating_sub(part * PART_GRAINS).min(PART_GRAINS) as usize;
        let Some(bytes) = self.records.load(&part_name(part))? else { return Ok(vec![ZERO_GRAIN; grains]) };
        let digest = |chunk: &[u8]| chunk.try_into().map(Digest).unwrap_or(ZERO_GRAIN);
        match bytes.len() == grains * 32 {
            true => Ok(bytes.chunks_exact(32).map(digest).collect()),
            false => Err(JournalError(format!("{}: another length than the disk's", part_name(part)))),
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
        Ok(self.load(part)?)
    }
}
