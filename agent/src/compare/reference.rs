//! Where the digests to compare with come from.

use super::LocalTable;
use crate::capture::CaptureError;
use async_trait::async_trait;
use sluice_client::AgentApi;
use sluice_proto::digests::{comparison_of, open_part};
use sluice_proto::keys::DataKey;
use sluice_proto::{CycleNo, Digest, DiskId, FormatError, FormatErrorKind, Generation, SectorCount};
use std::sync::Arc;

/// How long one request for digests is held open, in milliseconds.
const WAIT_MS: u64 = 20_000;

/// Digests of what the target holds, part by part.
#[async_trait]
pub trait Reference: Send + Sync {
    /// The digests of part `part`, one a grain.
    async fn part(&mut self, part: u64) -> Result<Vec<Digest>, CaptureError>;
}

/// The hydrator reads the target anew and tells: what is compared with is what is there.
pub struct RemoteReference {
    /// The way to the hydrator.
    pub api: Arc<dyn AgentApi>,
    /// The disk.
    pub disk: DiskId,
    /// The cycle that the digests are for.
    pub cycle: CycleNo,
    /// Its generation.
    pub generation: Generation,
    /// The generation's data key.
    pub key: DataKey,
    /// The disk's size.
    pub sectors: SectorCount,
    /// The comparison that the parts so far are of.
    pub comparison: Option<Digest>,
}

#[async_trait]
impl Reference for RemoteReference {
    async fn part(&mut self, part: u64) -> Result<Vec<Digest>, CaptureError> {
        loop {
            let answer = self.api.digests(self.disk, self.cycle, self.generation, part, WAIT_MS).await?;
            if let Some(bytes) = answer {
                let (header, digests) = open_part(&bytes, &self.key, part, self.sectors)?;
                // An old table would hide what changed on the target since.
                header.expect(self.disk, self.generation, self.cycle)?;
                let comparison = comparison_of(&header);
                if *self.comparison.get_or_insert(comparison) != comparison {
                    // The target may have changed between the two.
                    let text = format!("digests: part {part} is of another comparison than those before it");
                    return Err(FormatError::new(FormatErrorKind::Misplaced, text).into());
                }
                return Ok(digests);
            }
        }
    }
}

/// The target's digests, kept in the scan tracker's own table as they pass by.
pub struct Adopting<'a> {
    /// Where they come from.
    pub remote: RemoteReference,
    /// The table, where there is one.
    pub table: Option<&'a mut LocalTable>,
}

#[async_trait]
impl Reference for Adopting<'_> {
    async fn part(&mut self, part: u64) -> Result<Vec<Digest>, CaptureError> {
        let digests = self.remote.part(part).await?;
        if let Some(table) = &mut self.table {
            table.adopt(part, &digests);
        }
        Ok(digests)
    }
}
