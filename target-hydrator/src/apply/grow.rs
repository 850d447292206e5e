//! A source that has grown: its target follows, in place.
//!
//! The size that the appliance names is enough to compare: what the target lacks reads as zeros, and what it has behind its old
//! size is compared as it is, as another hydrator may have grown it before, or it is a larger device. The target itself
//! grows on the agent's own word only, which is the sealed manifest of that comparison: a target never shrinks, so one
//! that was grown by mistake could not be used any more. The ledger says before that it grows and to what size; whoever
//! finds that there brings it to its end before the target is opened.

use super::accept::{check_left_alone, check_manifest};
use super::claim::Claim;
use super::session::Session;
use super::stop::Stop;
use crate::ledger::{Ledger, State};
use crate::target::{Target, Watched};
use sluice_proto::cycle::FailReason;
use sluice_proto::manifest::Manifest;
use sluice_proto::wire::Work;
use sluice_proto::{ByteCount, Extent, SECTOR_BYTES};
use std::sync::Arc;

/// Sectors that are made zeros before it is asked again whose the disk is: 1 GiB.
const ZEROS_AT_ONCE: u64 = (1 << 30) / SECTOR_BYTES;

impl Session {
    /// Grows the target where the manifest says that the source has grown. Whether the cycle may be applied is judged
    /// after that.
    pub(super) async fn follow_growth(&mut self, work: &Work, claim: &Claim, manifest: &Manifest) -> Result<(), Stop> {
        let ledger = &self.file.ledger;
        let to = work.size;
        // A cycle that was accepted in the old size can't be gone on with in another.
        let applying = matches!(ledger.state, State::Applying { cycle } if cycle.cycle == work.cycle);
        if manifest.disk_bytes != to || to <= ledger.size_to_be() || applying {
            return Ok(());
        }
        check_manifest(manifest, work, self.env.allow_plain).map_err(Stop::Fail)?;
        let target = self.target(work, claim).await?;
        if self.file.ledger.source_size == to {
            // It has only now been made.
            return Ok(());
        }
        self.check_growth(work).await?;
        let writer = target.marked_by().await?;
        check_left_alone(&self.file.ledger, &target.fingerprint().await?, writer).map_err(Stop::Fail)?;
        let has = target.sectors();
        // Opened again in its new size; `target` keeps the claim until then.
        self.close_target();
        // A mark before the ledger says that it grows: what is not there when that is gone on with was put away by another.
        if let Some(writing) = self.new_mark(&*target).await? {
            self.file.change(|ledger| (ledger.fingerprint, ledger.writing) = (None, Some(writing))).await?;
            self.put_mark(&*target).await?;
        }
        let from = self.file.ledger.source_size;
        tracing::info!(disk = %work.disk, from = from.0, to = to.0, "the source has grown; so does its target");
        let begin = |ledger: &mut Ledger| {
            if let State::Applying { cycle } = ledger.state {
                ledger.state = State::Torn { cycle: cycle.cycle };
            }
            if ledger.doubt.is_none() {
                ledger.doubt = Some(format!("the source has grown from {from} to {to} bytes"));
            }
            // A device may have room, or another hydrator may have grown the target: what it had was compared as it is.
            let had = has.min(to.sectors_ceil());
            let zeros = match ledger.compared == Some(work.cycle) {
                true => had.min(ledger.compared_to.unwrap_or(from.sectors_ceil())),
                false => had,
            };
            (ledger.growing, ledger.growing_from, ledger.growing_zeros) = (Some(to), Some(had), Some(zeros));
            ledger.fingerprint = None;
        };
        self.file.change(begin).await?;
        drop(target);
        self.finish_growth(work, claim).await
    }

    /// Before a comparison: whether the target can be made as large as the source is now, before anything is sent for it.
    pub(crate) async fn expect_growth(&mut self, work: &Work) -> Result<(), Stop> {
        if work.size > self.file.ledger.source_size {
            self.check_growth(work).await?;
            // A device may have been enlarged since it was opened: it is to be as large here as when it grows.
            self.close_target();
        }
        Ok(())
    }

    async fn check_growth(&self, work: &Work) -> Result<(), Stop> {
        let ledger = &self.file.ledger;
        // One that is not made yet has no size to grow from: it is made in that which the source has by then.
        if work.size <= ledger.source_size || !ledger.target_is_made() {
            return Ok(());
        }
        let record = self.env.targets.choose(work, ledger).await?;
        Ok(self.env.targets.check_growth(work, &record, ledger.source_size, work.size).await?)
    }

    /// Brings to its end what the ledger says of growing, where it says something.
    pub(super) async fn finish_growth(&mut self, work: &Work, claim: &Claim) -> Result<(), Stop> {
        let Some(to) = self.file.ledger.growing else { return Ok(()) };
        // Whoever holds the target open has claimed it.
        self.close_target();
        let from = self.file.ledger.source_size;
        let record = self.env.targets.choose(work, &self.file.ledger).await?;
        let had = self.file.ledger.growing_from.unwrap_or(from.sectors_ceil());
        let zeros = self.file.ledger.growing_zeros.unwrap_or(from.sectors_ceil()).0;
        // From what it really had: where it is as large already, nothing is left to do, and data may lie where its end was.
        let at = from.max(had.bytes()).min(to);
        claim.check().await?;
        self.env.targets.grow(work, &record, at, to).await?;
        let target = self.env.targets.open(&Work { size: to, ..work.clone() }, &record).await?;
        let target: Arc<dyn Target> = Arc::new(Watched::new(target, self.unflushed.clone()));
        if self.bears_other_mark(&*target).await? {
            tracing::warn!(disk = %work.disk, "another hydrator wrote to the target while it grew: it is compared once more");
            self.file.change(|ledger| ledger.compared = None).await?;
            self.bear_mark(&*target).await?;
        }
        // The comparison took what the target lacked for zeros, and behind the source's end there are to be zeros. Of a comparison
        // of before nothing counts any more: another hydrator may have brought the target further since, and made it larger.
        let end = target.sectors().0;
        let mut at = match self.file.ledger.compared == Some(work.cycle) {
            true => zeros,
            false if work.size == to => to.sectors_ceil().0,
            false => end,
        };
        while at < end {
            claim.check().await?;
            let piece = Extent::new(at, (end - at).min(ZEROS_AT_ONCE));
            target.zero(piece).await?;
            at = piece.end().0;
        }
        claim.check().await?;
        target.sync().await?;
        let fingerprint = target.fingerprint().await?;
        let end = |ledger: &mut Ledger| {
            (ledger.growing, ledger.growing_from, ledger.growing_zeros) = (None, None, None);
            (ledger.source_size, ledger.fingerprint, ledger.writing) = (to, Some(fingerprint), None);
            ledger.target = Some(record);
        };
        // Where that fails it grows again, which changes nothing.
        self.file.change(end).await?;
        self.target = Some(target);
        Ok(())
    }
}

/// A source that is smaller than its target was made for.
pub(super) fn shrunk(source: ByteCount, target: ByteCount) -> Stop {
    let text = format!(
        "the source has {source} bytes now, its target was made for {target}, and a target never shrinks: make the source \
         as large as it was, or begin with a new target"
    );
    Stop::fail(FailReason::SourceChangedSize, text)
}
