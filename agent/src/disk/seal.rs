//! Closing a cycle: what can be said of its instant, its digests, its manifest.

use super::DiskAgent;
use crate::capture::CaptureError;
use crate::compare;
use crate::source::SourceError;
use sluice_proto::cycle::{Consistency, CycleKind, FailReason, TrackerKind};
use sluice_proto::manifest::{Manifest, Previous, SegmentEntry};
use sluice_proto::stream::{StreamDigest, block_count};
use sluice_proto::{BlockNo, ByteCount};

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
        let consistency = self.consistency()?;
        if plan.kind == CycleKind::Final && plan.tracker == TrackerKind::Ebpf && consistency == Consistency::Fuzzy {
            return Err(self.not_at_rest().into());
        }
        let mut digest = StreamDigest::default();
        self.journal.block_cvs().for_each(|cv| digest.push(cv));
        debug_assert_eq!(digest.blocks(), block_count(bitmap.count()));
        let segment = |s: &crate::journal::Stored| SegmentEntry {
            first: BlockNo(s.first),
            blocks: s.cvs.len() as u64,
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
            segments: self.journal.stored().values().map(segment).collect(),
            plan: bitmap,
            digest: digest.finish(),
            whole_disk,
        };
        let bytes = manifest.encode(&identity.data_key.key());
        self.journal.save_manifest(&bytes)?;
        Ok(bytes)
    }

    /// Whether what was shipped is one instant. Asked after the last read.
    fn consistency(&mut self) -> Result<Consistency, CaptureError> {
        let Some((plan, bitmap)) = self.journal.plan() else { return Ok(Consistency::Fuzzy) };
        if self.capture.source.proven_at_rest() {
            return Ok(Consistency::Crash);
        }
        if plan.tracker == TrackerKind::Scan || self.journal.identity().doubt.is_some() {
            return Ok(Consistency::Fuzzy);
        }
        let since = self.tracker.peek()?;
        // A comparison read other sectors too, at other times: then nothing at all may have been written since the swap.
        let untouched = match plan.one_instant {
            true => !since.dirty.intersects(bitmap),
            false => since.dirty.is_empty(),
        };
        Ok(if untouched && since.doubt.is_none() { Consistency::Crash } else { Consistency::Fuzzy })
    }

    fn not_at_rest(&self) -> SourceError {
        SourceError {
            reason: FailReason::SourceNotAtRest,
            detail: format!(
                "{}: it was written during the final cycle; stop what writes to it (unmount its file systems, shut \
                 the machine's services down) and order the final cycle again",
                self.capture.source.name()
            ),
        }
    }
}
