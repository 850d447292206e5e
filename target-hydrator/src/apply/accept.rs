//! Whether a committed cycle may be applied to the target as it is. Decided from facts alone.

use super::stop::Failure;
use crate::ledger::{Ledger, Writing};
use crate::target::{Fingerprint, WriterMark};
use sluice_proto::cycle::{CycleKind, FailReason};
use sluice_proto::header::Suite;
use sluice_proto::manifest::{Manifest, Previous};
use sluice_proto::wire::{CycleRef, Work};
use sluice_proto::{Digest, SectorBitmap};

/// The facts that decide.
pub(crate) struct Facts<'a> {
    pub ledger: &'a Ledger,
    /// Sectors that a cycle which failed half-way left in an unknown state.
    pub torn: &'a SectorBitmap,
    /// The target as it is now.
    pub fingerprint: &'a Fingerprint,
    /// Whose mark it bears, where it can bear one.
    pub writer: Option<WriterMark>,
    pub work: &'a Work,
    pub manifest: &'a Manifest,
    /// BLAKE3 of the manifest.
    pub hash: Digest,
    /// Whether cycles that are not sealed are taken: agent and hydrator are one process.
    pub allow_plain: bool,
}

impl Facts<'_> {
    /// May the cycle be applied?
    pub fn judge(&self) -> Result<(), Failure> {
        self.check_identity()?;
        let reference = CycleRef { cycle: self.work.cycle, manifest: self.hash };
        if self.manifest.kind == CycleKind::Initial {
            return self.check_initial();
        }
        check_left_alone(self.ledger, self.fingerprint, self.writer)?;
        if self.ledger.was_cut_short(reference) {
            // It was found right before the crash.
            return Ok(());
        }
        if self.is_compared() {
            // The plan is what differed from this very target: nothing that was before matters.
            return Ok(());
        }
        self.check_base()
    }

    fn is_compared(&self) -> bool {
        // Another hydrator may have compared for this cycle too, when the target was something else.
        let number = self.ledger.comparison.as_ref().map(|comparison| comparison.number);
        let ours = self.manifest.comparison.is_none() || self.manifest.comparison == number;
        self.manifest.kind == CycleKind::Resync && self.ledger.compared == Some(self.work.cycle) && ours
    }

    fn check_identity(&self) -> Result<(), Failure> {
        let (manifest, work) = (self.manifest, self.work);
        check_manifest(manifest, work, self.allow_plain)?;
        let corrupt = |text: String| Err(Failure::new(FailReason::ManifestCorrupt, text));
        if manifest.disk_bytes != self.ledger.source_size || work.size != self.ledger.source_size {
            let text = format!(
                "the source has {} bytes by the cycle's manifest and {} by the appliance, its target was made for {}: the \
                 three must be the same. A target grows with its source and never shrinks: if the source did, make it as \
                 large as it was, or begin with a new target",
                manifest.disk_bytes, work.size, self.ledger.source_size
            );
            return Err(Failure::new(FailReason::SourceChangedSize, text));
        }
        if manifest.kind == CycleKind::Final && manifest.whole_disk.is_none() {
            return corrupt("a final cycle without the digest of the whole source".into());
        }
        match self.ledger.verified {
            Some(last) if last.cycle.cycle >= manifest.cycle => corrupt(format!(
                "{:?} comes after {:?}, which the target holds already: an old manifest in the place of a new one",
                manifest.cycle, last.cycle.cycle
            )),
            _ => Ok(()),
        }
    }

    fn check_initial(&self) -> Result<(), Failure> {
        let all = self.ledger.source_size.sectors_ceil();
        if self.manifest.plan.count() != all {
            let text = format!("an initial cycle of {} sectors for a disk of {all}", self.manifest.plan.count());
            return Err(Failure::new(FailReason::ManifestCorrupt, text));
        }
        let (told, known) = (self.work.applied, self.ledger.applied_end(self.work.cycle, self.work.generation));
        if known < told {
            let text = format!(
                "the first {} MiB were applied by a hydrator whose state is not here, and are gone from the cache store: the \
                 target is compared with the source as a whole",
                told.0
            );
            return Err(Failure::new(FailReason::TargetChanged, text));
        }
        Ok(())
    }

    /// The target must be what the source's changes are based on.
    fn check_base(&self) -> Result<(), Failure> {
        let changed = |text: String| Err(Failure::new(FailReason::TargetChanged, text));
        if let Some(doubt) = &self.ledger.doubt {
            return changed(format!("the target must be compared with the source first: {doubt}"));
        }
        let base = self.ledger.verified.map(|v| v.cycle);
        if base.is_none() {
            return changed(format!("the target holds nothing yet that a {} could be based on", self.manifest.kind));
        }
        let named = self.manifest.previous.map(|Previous { cycle, manifest }| CycleRef { cycle, manifest });
        if named != base {
            let text = format!("it is based on {}, the target holds {}", shown(named), shown(base));
            // Where the appliance believes the same as the manifest, it is the target that fell behind.
            return match self.work.verified == base {
                true => Err(Failure::new(FailReason::ManifestCorrupt, format!("the manifest is out of turn: {text}"))),
                false => changed(format!("the target is not where the appliance believes it to be: {text}")),
            };
        }
        let mut missing = self.torn.clone();
        missing.subtract(&self.manifest.plan);
        match missing.is_empty() {
            true => Ok(()),
            false => changed(format!(
                "{} sectors that a failed cycle wrote are not in this one, which should bring them again",
                missing.count()
            )),
        }
    }
}

/// The manifest must be that of the very cycle, and sealed but where both ends are one process.
pub(super) fn check_manifest(manifest: &Manifest, work: &Work, allow_plain: bool) -> Result<(), Failure> {
    let corrupt = |text: String| Err(Failure::new(FailReason::ManifestCorrupt, text));
    if (manifest.disk, manifest.generation, manifest.cycle) != (work.disk, work.generation, work.cycle) {
        return corrupt(format!(
            "the manifest is that of disk {} {:?} {:?} where that of disk {} {:?} {:?} was due",
            manifest.disk, manifest.generation, manifest.cycle, work.disk, work.generation, work.cycle
        ));
    }
    if manifest.suite == Suite::Plain && !allow_plain {
        return corrupt("the manifest is not sealed, which is taken from an agent in the same process only".into());
    }
    Ok(())
}

/// Nobody but the hydrator may have changed the target since it was left, or since it began to write to it.
pub(crate) fn check_left_alone(ledger: &Ledger, now: &Fingerprint, writer: Option<WriterMark>) -> Result<(), Failure> {
    let written_by_another =
        |writing: &Writing| writer.is_some_and(|mark| mark != writing.mark) && !now.is_still(&writing.before);
    match (&ledger.fingerprint, &ledger.writing) {
        (None, Some(writing)) if written_by_another(writing) => {
            let text = "another hydrator, or one with another copy of the state, has written to the target since this one \
                        began to, or its file is a copy; it is compared with the source as a whole, give each disk one \
                        hydrator";
            Err(Failure::new(FailReason::TargetChanged, text))
        }
        (noted, _) => check_untouched(noted.as_ref(), now),
    }
}

/// Nobody but the hydrator may have changed the target since the fingerprint was noted.
pub(super) fn check_untouched(noted: Option<&Fingerprint>, now: &Fingerprint) -> Result<(), Failure> {
    match noted {
        Some(noted) if !now.is_still(noted) => {
            let text = "somebody changed the target or put another in its place since the last cycle; it is compared with \
                        the source as a whole, do not write to it";
            Err(Failure::new(FailReason::TargetChanged, text))
        }
        _ => Ok(()),
    }
}

fn shown(cycle: Option<CycleRef>) -> String {
    cycle.map_or_else(|| "nothing".to_owned(), |c| format!("{:?} ({})", c.cycle, &c.manifest.to_string()[..8]))
}

#[cfg(test)]
mod tests;
