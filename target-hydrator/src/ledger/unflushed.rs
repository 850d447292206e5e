//! What failed flushes may have lost, kept over a restart. It is not part of the ledger, as it may be large and is seldom there.

use super::LedgerFile;
use crate::state::StateError;
use sluice_proto::SectorBitmap;

/// The bitmap of sectors whose flush failed and that were not written since.
pub const UNFLUSHED_NAME: &str = "unflushed-sectors";
const BYTES_MAX: u64 = 1 << 30;

impl LedgerFile {
    /// The sectors whose flush failed.
    ///
    /// # Errors
    /// The record can't be read: what it says must not be forgotten.
    pub async fn unflushed(&self) -> Result<SectorBitmap, StateError> {
        let Some(bytes) = self.store.load(UNFLUSHED_NAME, BYTES_MAX).await? else { return Ok(SectorBitmap::new()) };
        let disk = self.ledger.size_to_be().sectors_ceil();
        SectorBitmap::decode(&bytes, disk)
            .map_err(|e| StateError::new(format!("{UNFLUSHED_NAME} in {}: {e}", self.store.describe())))
    }

    /// Keeps them; a target may have more sectors than its source.
    ///
    /// # Errors
    /// The record can't be saved.
    pub async fn keep_unflushed(&self, mut sectors: SectorBitmap) -> Result<(), StateError> {
        sectors.truncate(self.ledger.size_to_be().sectors_ceil());
        match sectors.is_empty() {
            true => self.store.remove(UNFLUSHED_NAME).await,
            false => self.store.save(UNFLUSHED_NAME, sectors.encode()).await,
        }
    }
}
