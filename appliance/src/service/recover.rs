//! Starting: what the repository knows is taken up, and the store is made to agree with it.
//!
//! - A segment that is recorded but gone from the store is forgotten, so that the agent sends it again; unless the hydrator
//!   has applied it, which is why it is gone. Of a committed cycle the record stays: its manifest stands, and the hydrator will find and name what is missing.
//! - A manifest whose commit was not recorded is recorded now, if it is what that cycle may have; else it is deleted.
//! - An object that belongs to no open cycle, or to an open one that does not know it, is deleted; folders of disks that
//!   this appliance does not know are left alone, as they may be another appliance's.

use super::bell::Bell;
use super::cell::{Cell, DiskState, OpenCycle};
use super::janitor::{Janitor, delete_folder};
use super::operate::check_policy;
use super::{Inner, Ports, Service, Settings, StartError};
use crate::repository::{CycleRecord, DiskRecord};
use parking_lot::Mutex;
use sluice_cache_store::Listed;
use sluice_proto::cycle::State as CycleState;
use sluice_proto::manifest::{ClaimedManifest, MANIFEST_BYTES_MAX, MANIFEST_NAME, cycle_folder};
use sluice_proto::schedule::{Admission, Previous};
use sluice_proto::wire::PolicyView;
use sluice_proto::{Digest, DiskId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::time::Instant;

pub(super) async fn start(ports: Ports, settings: Settings) -> Result<Service, StartError> {
    let policy = policy(&ports, &settings).await?;
    // Another number than a hydrator may have seen from the run before, so that it hears at once what has changed.
    let revision = ports.clock.unix_ms().max(1) << 12;
    let inner = Inner {
        queue: Mutex::new(Admission::new(settings.slots)),
        paused: Mutex::default(),
        cells: Mutex::default(),
        registering: tokio::sync::Mutex::default(),
        policy: Mutex::new(policy),
        setting_policy: tokio::sync::Mutex::default(),
        work: Bell::new(revision),
        janitor: Janitor::start(Arc::clone(&ports.store)),
        started: Instant::now(),
        ports,
        settings,
    };
    let disks = inner.ports.repository.disks().await?;
    let known: BTreeSet<DiskId> = disks.iter().map(|disk| disk.disk).collect();
    let mut open_folders = BTreeSet::new();
    for disk in disks {
        let state = inner.load(disk).await?;
        let open = state.open.as_ref().map(|open| open.record.clone());
        let cell = Arc::new(Cell::new(state));
        if let Some(cycle) = open {
            open_folders.insert(cycle_folder(cycle.disk, cycle.generation, cycle.cycle));
            inner.queue.lock().resume(cell.disk, &cell.agent, cycle.kind.into());
        }
        inner.cells.lock().insert(cell.disk, cell);
    }
    inner.remove_orphans(&known, &open_folders).await?;
    Ok(Service { inner: Arc::new(inner) })
}

async fn policy(ports: &Ports, settings: &Settings) -> Result<PolicyView, StartError> {
    let policy = ports.repository.policy().await?.unwrap_or_else(|| settings.policy.clone());
    let limits = check_policy(&policy, ports.throttle.limits().zone).map_err(StartError::Policy)?;
    ports.throttle.set_limits(limits);
    Ok(policy)
}

impl Inner {
    async fn load(&self, disk: DiskRecord) -> Result<DiskState, StartError> {
        let newest = self.ports.repository.cycles(disk.disk, 2).await?;
        let ended = newest.iter().find(|cycle| cycle.state.is_end()).cloned();
        let previous = ended.as_ref().map_or(Previous::None, |cycle| self.previous_of(&disk, cycle));
        let open = newest.into_iter().next().filter(|cycle| !cycle.state.is_end());
        let mut state = DiskState { record: disk, open: None, previous, ended, sync_wanted: false };
        if let Some(cycle) = open {
            self.load_open(&mut state, cycle).await?;
        }
        Ok(state)
    }

    /// Takes up an open cycle and makes its folder agree with its record.
    async fn load_open(&self, state: &mut DiskState, cycle: CycleRecord) -> Result<(), StartError> {
        let folder = cycle_folder(cycle.disk, cycle.generation, cycle.cycle);
        let recorded = self.ports.repository.segments(cycle.disk, cycle.cycle).await?;
        let listed = self.ports.store.list(&folder).await?;
        let there: BTreeMap<&str, u64> = listed.iter().map(|o| (name_of(o, &folder), o.len)).collect();
        let mut open = OpenCycle::new(cycle);
        let shipping = matches!(open.record.state, CycleState::Capturing | CycleState::Shipping);
        let mut gone = Vec::new();
        for segment in recorded {
            let applied = segment.first.0 + segment.blocks <= open.record.applied.0;
            let is_there = !shipping || applied || there.get(segment.name.as_str()) == Some(&segment.len.0);
            if !is_there || open.segments.insert(&segment).is_err() {
                gone.push(segment.name);
            }
        }
        open.digests = there.keys().filter_map(|name| name.strip_prefix("digests-")?.parse().ok()).collect();
        if !gone.is_empty() {
            tracing::warn!(
                disk = %open.record.disk, cycle = %open.record.cycle, count = gone.len(),
                "segments are gone from the cache store and will be sent again"
            );
            self.ports.repository.forget_segments(open.record.disk, open.record.cycle, Some(&gone)).await?;
            open.record.sectors_stored = open.sectors_stored();
        }
        let orphans = there.keys().filter(|name| name.ends_with(".seg") && open.segments.get(name).is_none());
        self.janitor.delete_all(&folder, orphans.map(|name| (*name).to_owned()).collect());
        state.open = Some(open);
        if shipping && there.contains_key(MANIFEST_NAME) {
            self.adopt(state, &folder).await?;
        }
        Ok(())
    }

    /// The appliance was stopped between putting a manifest and recording the commit.
    async fn adopt(&self, state: &mut DiskState, folder: &str) -> Result<(), StartError> {
        let key = format!("{folder}/{MANIFEST_NAME}");
        let bytes = self.ports.store.get(&key, MANIFEST_BYTES_MAX).await?;
        let Some(open) = &state.open else { return Ok(()) };
        let claimed = ClaimedManifest::parse(&bytes).map(|claimed| claimed.manifest);
        let fits = claimed.ok().filter(|claimed| self.check_manifest(&state.record, open, claimed).is_ok());
        let Some(claimed) = fits else {
            tracing::warn!(disk = %state.record.disk, cycle = %open.record.cycle, "a manifest that does not fit is deleted");
            self.ports.store.delete(&key).await?;
            return Ok(());
        };
        // As the commit itself would have done it; where it can't be saved now the agent's next commit does it.
        let _ = self.committed(state, &claimed, Digest::of(&bytes), bytes.len() as u64).await;
        Ok(())
    }

    /// Deletes what belongs to no open cycle of a disk that is known.
    async fn remove_orphans(&self, known: &BTreeSet<DiskId>, open: &BTreeSet<String>) -> Result<(), StartError> {
        let listed = self.ports.store.list("").await?;
        let folders: BTreeSet<&str> = listed.iter().filter_map(|o| o.key.rsplit_once('/')).map(|(f, _)| f).collect();
        for folder in folders {
            let disk = folder.split('/').next().and_then(|id| id.parse::<DiskId>().ok());
            let ours = disk.is_some_and(|disk| known.contains(&disk)) && folder.split('/').count() == 3;
            if ours && !open.contains(folder) {
                delete_folder(&*self.ports.store, folder).await?;
            }
        }
        Ok(())
    }
}

fn name_of<'a>(object: &'a Listed, folder: &str) -> &'a str {
    object.key.strip_prefix(folder).map_or("", |rest| rest.trim_start_matches('/'))
}
