//! Closing a cycle: what can be said of its instant, its digests, its manifest.

use super::{DiskAgent, own_state};
use crate::capture::CaptureError;
use crate::compare;
use crate::journal::{JournalError, Plan, Stored};
use crate::source::SourceError;
use sluice_proto::cycle::{Consistency, CycleKind, FailReason, TrackerKind};
use sluice_proto::manifest::{Manifest, Previous, SegmentEntry};
use sluice_proto::stream::block_count;
use sluice_proto::{BlockNo, ByteCount, SectorBitmap};

impl DiskAgent {
    /// The running cycle's manifest: made once and kept, as a second one would need another nonce.
    pub(super) async fn manifest(&mut self) -> Result<Vec<u8>, CaptureError> {
        if let Some(kept) = self.journal.manifest()? {
            return Ok(kept);
        }
        let Some((plan, bitmap)) = self.journal.plan().map(|(plan, bitmap)| (plan.clone(), bitmap.clone())) else {
            return Ok(Vec::new());
        };
        let whole_disk = match plan.kind {
            CycleKind::Final => Some(compare::whole_digest(&self.capture).await?),
            _ => None,
        };
        let written = self.written_since_swap(plan.tracker)?;
        // The digest of the whole disk holds for the instant of the swap only if nothing at all was written since.
        if plan.kind == CycleKind::Final
            && plan.tracker == TrackerKind::Ebpf
            && written.as_ref().is_none_or(|sectors| !sectors.is_empty())
        {
            return Err(self.not_at_rest().into());
        }
        let consistency = self.consistency(&plan, &bitmap, written.as_ref());
        let (digest, blocks) = (self.journal.digest()?, block_count(bitmap.count()));
        if digest.blocks() != blocks {
            let text = format!(
                "segments.log holds {} of the cycle's {blocks} blocks from the first on: something changed it. Start the agent \
                 again: it sends what is missing",
                digest.blocks()
            );
            return Err(JournalError(text).into());
        }
        let segment = |s: Stored| SegmentEntry {
            first: BlockNo(s.first),
            blocks: s.blocks,
            len: ByteCount(s.len),
            hash: s.hash,
            salt: s.salt,
        };
        let mut salt = [0; 32];
        self.capture.entropy.fill(&mut salt);
        let identity = self.journal.identity();
        let manifest = Manifest {
            disk: identity.disk,
            generation: identity.generation,
            cycle: plan.cycle,
            suite: self.capture.options.suite,
            salt,
            kind: plan.kind,
            consistency,
            tracker: plan.tracker,
            disk_bytes: identity.size,
            previous: plan.previous.map(|p| Previous { cycle: p.cycle, manifest: p.manifest }),
            segments: self.journal.stored().iter().map(segment).collect(),
            plan: bitmap,
            digest: digest.finish(),
            whole_disk,
            comparison: plan.comparison,
        };
        let bytes = manifest.encode(&identity.data_key.key());
        self.journal.save_manifest(&bytes)?;
        Ok(bytes)
    }

    /// What was written since the plan was made, asked after the last read; `None` where that is not known for certain.
    fn written_since_swap(&mut self, tracker: TrackerKind) -> Result<Option<SectorBitmap>, JournalError> {
        let tracked = tracker == TrackerKind::Ebpf && self.tracker.kind() == tracker;
        if !tracked || self.journal.identity().doubt.is_some() {
            return Ok(None);
        }
        match self.tracker.peek() {
            Ok(since) => Ok(since.doubt.is_none().then_some(since.dirty)),
            Err(error) => {
                tracing::warn!(disk = %self.id(), %error, "the tracker failed; the next cycle compares");
                self.doubt(error.to_string())?;
                Ok(None)
            }
        }
    }

    /// Whether what was shipped is one instant.
    fn consistency(&self, plan: &Plan, bitmap: &SectorBitmap, written: Option<&SectorBitmap>) -> Consistency {
        // What an earlier run of the agent read can't be vouched for: between the two, a file was under no lease, and a
        // tracker's count of skipped starts began anew.
        if self.resumed == Some(plan.cycle) {
            return Consistency::Fuzzy;
        }
        let one_instant = match plan.tracker {
            TrackerKind::Ebpf => written.is_some_and(|sectors| match plan.one_instant {
                true => !sectors.intersects(bitmap),
                // A comparison read other sectors too, at other times: nothing at all may have been written.
                false => sectors.is_empty(),
            }),
            // Where a tracker has seen what was written, nothing outvotes it.
            TrackerKind::Scan => self.rested && self.capture.source.proven_at_rest(),
        };
        if one_instant { Consistency::Crash } else { Consistency::Fuzzy }
    }

    fn not_at_rest(&self) -> SourceError {
        let own = self
            .state_on_source
            .as_ref()
            .map(|folder| format!(". What writes to it is this agent too: {}", own_state(folder)));
        SourceError {
            reason: FailReason::SourceNotAtRest,
            detail: format!(
                "{}: it was written during the final cycle, or its tracking was interrupted; stop what writes to it \
                 (unmount its file systems, shut the machine's services down) and order the final cycle again{}",
                self.capture.source.name(),
                own.unwrap_or_default()
            ),
        }
    }
}
