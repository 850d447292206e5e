//! What the agent must not forget: the disk's identity and keys, the cycle that runs, the sectors of those that failed.
//!
//! Nothing that the tracker gave is released there before it is safe here, and nothing is dropped here before the
//! hydrator has proven it. Small records are replaced whole; stored segments are appended one by one.

mod folder;
mod record;
mod records;
mod stored;

pub use folder::{FolderRecords, identity_in};
use record::Secret;
pub use record::{Identity, Noted, Plan};
pub use records::{EachEntry, Records};
pub use stored::{Stored, StoredSegments};

use sluice_proto::cycle::CycleKind;
use sluice_proto::header::{Header, ObjectKind};
use sluice_proto::keys::{DataKey, KeyEnvelope};
use sluice_proto::stream::{StreamDigest, subtrees};
use sluice_proto::wire::CycleRef;
use sluice_proto::{BlockNo, ByteCount, CycleNo, Digest, SectorBitmap};
use std::collections::BTreeMap;

/// A record can't be kept or read.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the agent's state: {0}")]
pub struct JournalError(pub String);

const IDENTITY: &str = "disk.json";
const PLAN: &str = "plan.json";
const PLAN_BITMAP: &str = "plan.bitmap";
const CARRY: &str = "carry.bitmap";
const SEGMENTS: &str = "segments.log";
const MANIFEST: &str = "manifest";

/// The journal of one disk.
pub struct Journal {
    records: Box<dyn Records>,
    identity: Identity,
    plan: Option<(Plan, SectorBitmap)>,
    stored: StoredSegments,
    carry: SectorBitmap,
    /// The number of the newest release as [`IDENTITY`] has it; the plan's record may have a newer one.
    released: u64,
}

impl Journal {
    /// Opens the journal in `records`; `None` where the disk was never protected from here.
    ///
    /// # Errors
    /// Records that can't be read, or that a newer agent wrote.
    pub fn open(mut records: Box<dyn Records>) -> Result<Result<Self, Box<dyn Records>>, JournalError> {
        let Some(bytes) = records.load(IDENTITY)? else { return Ok(Err(records)) };
        let mut identity = Identity::decode(&bytes)?;
        let released = identity.released;
        let disk = identity.size.sectors_ceil();
        let bitmap = |name| {
            let decoded = records.load(name)?.map(|bytes| SectorBitmap::decode(&bytes, disk)).transpose();
            decoded.map_err(|e| JournalError(format!("{name}: {e}")))
        };
        let mut carry = bitmap(CARRY)?.unwrap_or_default();
        let plan = records.load(PLAN)?.map(|bytes| Plan::decode(&bytes)).transpose()?;
        // Stopped between noting the proof and letting go of the plan, or back after a power cut.
        let is_proven = |plan: &Plan| identity.verified.is_some_and(|verified| verified.cycle == plan.cycle);
        let plan = match plan.filter(|plan| !is_proven(plan)) {
            None => None,
            Some(plan) => {
                let planned = bitmap(PLAN_BITMAP)?;
                if planned.is_none() && plan.cycle > identity.settled {
                    // Written before the plan and removed after it: without it, sectors would be lost in silence.
                    return Err(JournalError(format!(
                        "{PLAN_BITMAP}: missing; put back a copy, or protect the disk anew"
                    )));
                }
                // Further ahead than by this plan's own release, the identity's record is an older copy.
                if plan.released == identity.released + 1 {
                    identity.released = plan.released;
                }
                planned.map(|planned| (plan, planned))
            }
        };
        let mut stored = StoredSegments::default();
        if let Some((plan, _)) = &plan {
            if plan.cycle > identity.settled {
                // Its bitmap stands for all that was carried: a crash, or a power cut, has left that behind, or a copy of the plan.
                carry = SectorBitmap::new();
                records.remove(CARRY)?;
            }
            records.read_log(SEGMENTS, &mut |entry| match Noted::decode(entry)? {
                noted if noted.cycle == plan.cycle => stored.insert(&noted),
                _ => Ok(()),
            })?;
        }
        let mut journal = Self { records, identity, plan, stored, carry, released };
        let settled = journal.identity.settled;
        match &journal.plan {
            Some((plan, _)) if plan.cycle <= settled => journal.failed(settled)?,
            Some(_) => {}
            None => journal.end_plan()?,
        }
        Ok(Ok(journal))
    }

    /// A new journal in `records`.
    ///
    /// # Errors
    /// Records that can't be written.
    pub fn create(mut records: Box<dyn Records>, identity: Identity) -> Result<Self, JournalError> {
        for name in [PLAN, PLAN_BITMAP, CARRY, SEGMENTS, MANIFEST] {
            records.remove(name)?;
        }
        records.save(IDENTITY, &identity.encode())?;
        Ok(Self {
            records,
            identity,
            plan: None,
            stored: StoredSegments::default(),
            carry: SectorBitmap::new(),
            released: 0,
        })
    }

    /// The disk's identity.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Changes the identity; it is durable when this returns.
    ///
    /// # Errors
    /// Records that can't be written; the change is not kept then.
    pub fn update(&mut self, change: impl FnOnce(&mut Identity)) -> Result<(), JournalError> {
        let mut identity = self.identity.clone();
        change(&mut identity);
        if identity != self.identity || identity.released != self.released {
            self.records.save(IDENTITY, &identity.encode())?;
            self.released = identity.released;
            self.identity = identity;
        }
        Ok(())
    }

    /// The cycle that runs, and its sectors.
    pub fn plan(&self) -> Option<(&Plan, &SectorBitmap)> {
        self.plan.as_ref().map(|(plan, bitmap)| (plan, bitmap))
    }

    /// Sectors of failed cycles, to go into the next.
    pub fn carry(&self) -> &SectorBitmap {
        &self.carry
    }

    /// Adds sectors that the tracker gave and no plan holds yet, so that the tracker may forget them.
    ///
    /// # Errors
    /// Records that can't be written.
    pub fn add_carry(&mut self, sectors: &SectorBitmap) -> Result<(), JournalError> {
        if sectors.is_empty() {
            return Ok(());
        }
        let mut carry = self.carry.clone();
        carry.union_with(sectors);
        self.records.save(CARRY, &carry.encode())?;
        self.carry = carry;
        Ok(())
    }

    /// Begins a cycle that ships `bitmap` and all of [`Self::carry`], which is let go. No cycle may be running.
    ///
    /// # Errors
    /// Records that can't be written.
    pub fn begin(&mut self, plan: Plan, mut bitmap: SectorBitmap) -> Result<(), JournalError> {
        bitmap.union_with(&self.carry);
        self.begin_compared(plan, bitmap)
    }

    /// Begins a cycle that ships `bitmap` and nothing else: all that source and target differ in, so that what [`Self::carry`]
    /// has beyond that is on the target already, as most of a first copy that failed may be.
    ///
    /// # Errors
    /// As for [`Self::begin`].
    pub fn begin_compared(&mut self, plan: Plan, bitmap: SectorBitmap) -> Result<(), JournalError> {
        debug_assert!(self.plan.is_none(), "the sectors of a plan that runs must go into the carry first");
        self.records.remove(MANIFEST)?;
        self.records.remove(SEGMENTS)?;
        self.stored.clear();
        // In this order: after a crash between any two, the sectors are in the carry, in the plan, or in both.
        self.records.save_all(&[(PLAN_BITMAP, &bitmap.encode()), (PLAN, &plan.encode())])?;
        self.records.remove(CARRY)?;
        self.carry = SectorBitmap::new();
        // As durable as the plan that says it.
        self.identity.released = self.identity.released.max(plan.released);
        self.plan = Some((plan, bitmap));
        Ok(())
    }

    /// The segments of the running cycle that are stored.
    pub fn stored(&self) -> &StoredSegments {
        &self.stored
    }

    /// Notes that a segment is stored. Where a power cut takes the note, the segment is sent once more.
    ///
    /// # Errors
    /// Records that can't be written.
    pub fn note_stored(&mut self, segment: Noted) -> Result<(), JournalError> {
        self.records.append(SEGMENTS, &segment.encode())?;
        self.stored.insert(&segment)
    }

    /// Forgets segments that the appliance no longer has. They stay in the log and may come back with a restart, when
    /// others stand in their place: of two that overlap, the one that begins first is kept.
    pub fn keep_stored(&mut self, keep: impl Fn(&Stored) -> bool) {
        self.stored.retain(keep);
    }

    /// The digest of what is stored, from the first block on to the first that is not. The log is gone through for it, in
    /// which segments stand in the order in which they were stored.
    ///
    /// # Errors
    /// A log that can't be read.
    pub fn digest(&mut self) -> Result<StreamDigest, JournalError> {
        let (mut digest, mut ahead) = (StreamDigest::default(), BTreeMap::new());
        if self.stored.is_empty() {
            return Ok(digest);
        }
        let (stored, cycle) = (&self.stored, self.plan.as_ref().map(|(plan, _)| plan.cycle));
        self.records.read_log(SEGMENTS, &mut |entry| {
            let noted = Noted::decode(entry)?;
            if Some(noted.cycle) == cycle && noted.first >= digest.blocks() && stored.has(&noted) {
                ahead.insert(noted.first, subtrees(BlockNo(noted.first), &noted.cvs));
            }
            while let Some(next) = ahead.remove(&digest.blocks()) {
                next.into_iter().for_each(|subtree| digest.push_subtree(subtree));
            }
            Ok(())
        })?;
        Ok(digest)
    }

    /// The manifest that was made for the running cycle: made once, as its nonce may be used once.
    ///
    /// # Errors
    /// Records that can't be read.
    pub fn manifest(&self) -> Result<Option<Vec<u8>>, JournalError> {
        let kept = self.records.load(MANIFEST)?;
        let (disk, generation) = (self.identity.disk, self.identity.generation);
        // One that was removed may be back after a power cut, on a file system that does not keep the order of names.
        let is_of = |plan: &Plan, bytes: &[u8]| {
            Header::decode(ObjectKind::Manifest, bytes)
                .is_ok_and(|header| header.expect(disk, generation, plan.cycle).is_ok())
        };
        Ok(kept.filter(|bytes| self.plan.as_ref().is_some_and(|(plan, _)| is_of(plan, bytes))))
    }

    /// Keeps the manifest before it is sent.
    ///
    /// # Errors
    /// Records that can't be written.
    pub fn save_manifest(&mut self, bytes: &[u8]) -> Result<(), JournalError> {
        self.records.save(MANIFEST, bytes)
    }

    /// Forgets a manifest that was refused as segments that it names are gone: those sent in their place need another.
    ///
    /// # Errors
    /// Records that can't be written.
    pub fn drop_manifest(&mut self) -> Result<(), JournalError> {
        self.records.remove(MANIFEST)
    }

    /// The running cycle is proven: its sectors are let go.
    ///
    /// # Errors
    /// Records that can't be written.
    pub fn verified(&mut self, verified: CycleRef) -> Result<(), JournalError> {
        self.update(|identity| {
            identity.verified = Some(verified);
            identity.settled = verified.cycle;
            identity.cut_off = None;
        })?;
        self.end_plan()
    }

    /// The appliance says that a cycle is verified that does not run here any more. Where it was cut off by a new generation, it
    /// is what the target holds from now on; its sectors stay in the carry, so that no proof is asked for.
    ///
    /// # Errors
    /// Records that can't be written.
    pub fn verified_elsewhere(&mut self, verified: CycleRef) -> Result<(), JournalError> {
        if self.identity.cut_off == Some(verified) {
            self.update(|identity| (identity.verified, identity.cut_off) = (Some(verified), None))?;
        }
        self.settle(verified.cycle)
    }

    /// The running cycle failed: its sectors go into the next.
    ///
    /// # Errors
    /// Records that can't be written.
    pub fn failed(&mut self, cycle: CycleNo) -> Result<(), JournalError> {
        let planned = self.plan.clone();
        if let Some((_, bitmap)) = &planned {
            self.add_carry(bitmap)?;
        }
        self.note_settled(cycle)?;
        if planned.is_some() { self.end_plan() } else { Ok(()) }
    }

    /// Begins a new generation under another data key. A cycle that runs under the old one can't be gone on with: its
    /// sectors go into the next.
    ///
    /// # Errors
    /// Records that can't be written; the old generation goes on then, or the new one without the cycle.
    pub fn rotate(&mut self, key: &DataKey, envelope: KeyEnvelope) -> Result<(), JournalError> {
        self.renew(key, envelope, |_| {})
    }

    /// The source has grown to `size`: begins a new generation, as a generation has one size, and notes that source and
    /// target must be compared. What a cycle that runs was to ship goes into the next.
    ///
    /// # Errors
    /// As for [`Self::rotate`].
    pub fn grow(&mut self, size: ByteCount, key: &DataKey, envelope: KeyEnvelope) -> Result<(), JournalError> {
        self.renew(key, envelope, |identity| {
            identity.doubt = Some(format!("the source has grown from {} to {size} bytes", identity.size));
            identity.size = size;
        })
    }

    /// Ends a cycle that must not be gone on with: what it was to ship is carried into the next.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn cut_plan(&mut self) -> Result<(), JournalError> {
        if let Some((plan, bitmap)) = self.plan.clone() {
            let manifest = self.manifest()?.filter(|_| matches!(plan.kind, CycleKind::Delta | CycleKind::Final));
            let cut_off = manifest.map(|bytes| CycleRef { cycle: plan.cycle, manifest: Digest::of(&bytes) });
            self.update(|identity| identity.cut_off = cut_off)?;
            self.add_carry(&bitmap)?;
            self.end_plan()?;
        }
        Ok(())
    }

    fn renew(
        &mut self,
        key: &DataKey,
        envelope: KeyEnvelope,
        change: impl FnOnce(&mut Identity),
    ) -> Result<(), JournalError> {
        // The cycle first: what is stored of it is sealed under the old key and must never meet the new one.
        self.cut_plan()?;
        self.update(|identity| {
            identity.generation = envelope.generation;
            identity.data_key = Secret::of(key);
            identity.envelope = envelope;
            change(identity);
        })
    }

    /// Notes that the verdict on `cycle`, which does not run here, has been dealt with. A plan of an older cycle can
    /// have no verdict any more: its sectors go into the next.
    ///
    /// # Errors
    /// Records that can't be written.
    pub fn settle(&mut self, cycle: CycleNo) -> Result<(), JournalError> {
        match self.plan.as_ref().is_some_and(|(plan, _)| plan.cycle <= cycle) {
            true => self.failed(cycle),
            false => self.note_settled(cycle),
        }
    }

    fn note_settled(&mut self, cycle: CycleNo) -> Result<(), JournalError> {
        self.update(|identity| identity.settled = identity.settled.max(cycle))
    }

    fn end_plan(&mut self) -> Result<(), JournalError> {
        // What only the plan's record says.
        self.update(|_| ())?;
        self.records.remove(PLAN)?;
        self.records.remove(PLAN_BITMAP)?;
        self.records.remove(SEGMENTS)?;
        self.records.remove(MANIFEST)?;
        self.plan = None;
        self.stored.clear();
        Ok(())
    }

    /// The records, for what else belongs to the disk.
    pub fn records(&mut self) -> &mut dyn Records {
        &mut *self.records
    }
}

#[cfg(test)]
mod tests;
