//! Committing a cycle by its manifest.

use super::access::{bad_bytes, impossible, refuse, repository_failed, store_failed};
use super::cell::{DiskState, OpenCycle};
use super::{Inner, Reply, Service};
use crate::identity::Identity;
use crate::repository::DiskRecord;
use bytes::Bytes;
use sluice_cache_store::StoreErrorKind;
use sluice_proto::cycle::{Event as CycleEvent, State as CycleState};
use sluice_proto::manifest::{ClaimedManifest, MANIFEST_BYTES_MAX, MANIFEST_NAME, Manifest, cycle_folder};
use sluice_proto::wire::{CycleRef, ErrorCode};
use sluice_proto::{CycleNo, Digest, DiskId, Generation};

impl Service {
    /// As [`Self::store_manifest`], for bytes that the throttle has not seen yet.
    ///
    /// # Errors
    /// As there.
    pub async fn commit(
        &self,
        who: &Identity,
        disk: DiskId,
        cycle: CycleNo,
        generation: Generation,
        manifest: Bytes,
    ) -> Reply<()> {
        self.inner.agents_cell(who, disk)?;
        self.inner.ports.throttle.acquire(disk, manifest.len() as u64).await;
        self.store_manifest(who, disk, cycle, generation, manifest).await
    }

    /// Commits the cycle. The same manifest again changes nothing; another one for the same cycle is refused.
    ///
    /// # Errors
    /// `NoSuchDisk`, `OldGeneration`, `WrongState`, `NotStored`, `Corrupt`, `NoRoom`, `Unavailable`.
    pub async fn store_manifest(
        &self,
        who: &Identity,
        disk: DiskId,
        cycle: CycleNo,
        generation: Generation,
        bytes: Bytes,
    ) -> Reply<()> {
        let inner = &self.inner;
        let cell = inner.agents_cell(who, disk)?;
        if bytes.len() as u64 > MANIFEST_BYTES_MAX {
            return refuse(ErrorCode::TooLarge, format!("a manifest of {} bytes", bytes.len()));
        }
        let hash = Digest::of(&bytes);
        let mut state = cell.lock().await;
        state.current(generation)?;
        if state.open(cycle).is_err() && inner.was_committed(disk, cycle, hash).await? {
            return Ok(());
        }
        if let Some(known) = state.open(cycle)?.record.manifest {
            return match known == hash {
                true => Ok(()),
                false => refuse(ErrorCode::WrongState, format!("cycle {cycle} of {disk} has another manifest already")),
            };
        }
        let claimed = ClaimedManifest::parse(&bytes).map_err(bad_bytes)?.manifest;
        inner.check_manifest(&state.record, state.open(cycle)?, &claimed)?;
        // The disk's lock is held over the put: a commit is the one thing that nothing may come in between. What the manifest
        // names is made to last before it; also what lies where something was applied, as it may be of another attempt.
        let folder = cycle_folder(disk, generation, cycle);
        let keys: Vec<String> = claimed.segments.iter().map(|entry| format!("{folder}/{}", entry.name())).collect();
        inner.ports.store.sync(&keys).await.map_err(store_failed)?;
        let len = bytes.len() as u64;
        let hash = inner.put_manifest(disk, generation, cycle, bytes, hash, &claimed).await?;
        inner.committed(&mut state, &claimed, hash, len).await?;
        inner.moves(&cell);
        cell.ring();
        inner.work_changed();
        Ok(())
    }
}

impl Inner {
    /// Whether an ended cycle had this manifest: its agent asks again as the answer was lost.
    async fn was_committed(&self, disk: DiskId, cycle: CycleNo, hash: Digest) -> Reply<bool> {
        let known = self.ports.repository.cycle(disk, cycle).await.map_err(repository_failed)?;
        Ok(known.is_some_and(|known| known.manifest == Some(hash)))
    }

    /// The manifest must be of this cycle as it was opened, stand on what is verified, and name what is stored.
    pub(super) fn check_manifest(&self, disk: &DiskRecord, open: &OpenCycle, claimed: &Manifest) -> Reply<()> {
        let cycle = &open.record;
        let place = (claimed.disk, claimed.generation, claimed.cycle);
        if place != (cycle.disk, cycle.generation, cycle.cycle) {
            let message = format!("the manifest is of cycle {} of {}", claimed.cycle, claimed.disk);
            return refuse(ErrorCode::Corrupt, message);
        }
        self.check_suite(claimed.suite)?;
        let previous = claimed.previous.map(|p| CycleRef { cycle: p.cycle, manifest: p.manifest });
        let wrong = if claimed.kind != cycle.kind || Some(claimed.tracker) != cycle.tracker {
            "its kind or tracker is another"
        } else if claimed.disk_bytes != disk.size {
            "the size of its disk is another"
        } else if claimed.plan.count() != cycle.sectors {
            "it plans another number of sectors"
        } else if previous != cycle.previous {
            "it does not stand on the cycle that was named when it was ordered"
        } else {
            return check_segments(open, claimed);
        };
        let message =
            format!("the manifest is not of cycle {} of {} as it was opened: {wrong}", cycle.cycle, cycle.disk);
        refuse(ErrorCode::WrongState, message)
    }

    /// Puts the manifest where nothing may stand yet. A manifest that stands there was put by a commit whose record was
    /// lost: if it says the same as this one, it is the one that counts.
    async fn put_manifest(
        &self,
        disk: DiskId,
        generation: Generation,
        cycle: CycleNo,
        bytes: Bytes,
        hash: Digest,
        claimed: &Manifest,
    ) -> Reply<Digest> {
        let key = format!("{}/{MANIFEST_NAME}", cycle_folder(disk, generation, cycle));
        match self.ports.store.put_new(&key, bytes).await {
            Ok(()) => return Ok(hash),
            Err(error) if error.kind() != StoreErrorKind::AlreadyExists => return Err(store_failed(error)),
            Err(_) => {}
        }
        let there = self.ports.store.get(&key, MANIFEST_BYTES_MAX).await.map_err(store_failed)?;
        let known = ClaimedManifest::parse(&there).map(|known| known.manifest);
        match known.is_ok_and(|known| Manifest { salt: claimed.salt, ..known } == *claimed) {
            true => Ok(Digest::of(&there)),
            false => refuse(ErrorCode::WrongState, format!("cycle {cycle} of {disk} has another manifest already")),
        }
    }

    /// Records the commit.
    pub(super) async fn committed(
        &self,
        state: &mut DiskState,
        claimed: &Manifest,
        hash: Digest,
        len: u64,
    ) -> Reply<()> {
        let Some(open) = &mut state.open else { return Ok(()) };
        let mut cycle = open.record.clone();
        cycle.state = cycle.state.on(CycleEvent::Commit).map_err(impossible)?;
        cycle.manifest = Some(hash);
        cycle.consistency = Some(claimed.consistency);
        cycle.bytes_sent.0 += len;
        cycle.sectors_stored = cycle.sectors;
        self.ports.repository.save(&state.record, Some(&cycle)).await.map_err(repository_failed)?;
        tracing::info!(disk = %cycle.disk, cycle = %cycle.cycle, segments = claimed.segments.len(), "a cycle is committed");
        debug_assert_eq!(cycle.state, CycleState::Committed);
        open.record = cycle;
        Ok(())
    }
}

fn check_segments(open: &OpenCycle, claimed: &Manifest) -> Reply<()> {
    match claimed.segments.iter().find(|entry| !open.segments.has(entry)) {
        None => Ok(()),
        Some(entry) => {
            let message = format!("segment {} is not stored, or with other bytes; send it first", entry.name());
            refuse(ErrorCode::NotStored, message)
        }
    }
}
