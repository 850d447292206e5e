//! The tracker where nothing can be tracked: it knows nothing of what changed, so every cycle compares.

use super::{Doubt, Swap, Tracker, TrackerError, TrackerKind, TrackingEpoch};
use sluice_proto::SectorBitmap;

/// Says of every interval that it must be compared.
pub struct ScanTracker;

impl Tracker for ScanTracker {
    fn kind(&self) -> TrackerKind {
        TrackerKind::Scan
    }

    fn swap(&mut self) -> Result<Swap, TrackerError> {
        Ok(Swap { dirty: SectorBitmap::new(), doubt: Some(Doubt::Begun) })
    }

    fn peek(&mut self) -> Result<Swap, TrackerError> {
        self.swap()
    }

    fn release(&mut self, _: u64) -> Result<(), TrackerError> {
        Ok(())
    }

    fn epoch(&self) -> TrackingEpoch {
        TrackingEpoch { run: [0; 16], boot: [0; 16] }
    }

    fn released(&self) -> u64 {
        0
    }
}
