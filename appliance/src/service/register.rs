//! Making disks and generations known.

use super::access::{need, refuse, repository_failed};
use super::cell::{Cell, DiskState};
use super::finish::Ending;
use super::{Inner, Reply, Service};
use crate::identity::{Identity, Role};
use crate::repository::DiskRecord;
use sluice_proto::cycle::FailReason;
use sluice_proto::disk::{Event as DiskEvent, State as DiskPhase};
use sluice_proto::schedule::Previous;
use sluice_proto::units::{DISK_SECTORS_MAX, SECTOR_BYTES};
use sluice_proto::wire::{DiskStatus, ErrorCode, Lease, RegisterRequest};
use sluice_proto::{ByteCount, CycleNo, DiskId, Generation};
use std::sync::Arc;

/// The longest name that a disk may have, in bytes.
const NAME_BYTES_MAX: usize = 256;
/// The longest part of a key envelope, in bytes: the largest there is has 64.
const ENVELOPE_BYTES_MAX: usize = 1024;

impl Service {
    /// Makes a disk or a new generation of it known. Whoever registers a disk first owns it.
    ///
    /// # Errors
    /// `NoSuchDisk` where it is another agent's, `OldGeneration`, `WrongState` where it would shrink or a generation
    /// would get another key, `BadRequest`.
    pub async fn register(&self, who: &Identity, disk: DiskId, request: RegisterRequest) -> Reply<DiskStatus> {
        need(who, Role::Agent)?;
        check(disk, &request)?;
        let inner = &self.inner;
        let registering = inner.registering.lock().await;
        let known = inner.cells.lock().contains_key(&disk);
        if !known {
            return inner.create(who, disk, request).await;
        }
        drop(registering);
        let cell = inner.agents_cell(who, disk)?;
        let mut state = cell.lock().await;
        let generation = state.record.generation;
        if request.generation < generation {
            state.current(request.generation)?;
        }
        if request.size < state.record.size {
            return refuse(ErrorCode::WrongState, shrunk(&state.record, request.size));
        }
        if request.generation > generation {
            inner.renew(&cell, &mut state, who, request).await?;
        } else {
            inner.repeat(&mut state, request).await?;
        }
        Ok(status(&state))
    }
}

impl Inner {
    async fn create(&self, who: &Identity, disk: DiskId, request: RegisterRequest) -> Reply<DiskStatus> {
        let owned = self.cells.lock().values().filter(|cell| &*cell.agent == who.name.as_str()).count();
        if owned >= self.settings.disks_per_agent_max {
            let message = format!("{who} has {owned} disks here, which is the most that one agent may have");
            return refuse(ErrorCode::WrongState, message);
        }
        let record = DiskRecord {
            disk,
            name: request.name,
            agent: who.name.to_string(),
            hydrator: None,
            size: request.size,
            logical_sector: request.logical_sector,
            generation: request.generation,
            envelope: request.envelope,
            phase: DiskPhase::Registered,
            verified: None,
            verified_start_ms: None,
            newest: CycleNo(0),
            settled: CycleNo(0),
            lease: Lease(0),
            final_wanted: false,
            compared_ms: None,
            failures: 0,
        };
        self.ports.repository.save(&record, None).await.map_err(repository_failed)?;
        let detail = format!("{:?}, {} bytes, generation {}", record.name, record.size, record.generation);
        tracing::info!(%disk, agent = %who.name, "a disk was registered");
        let state = DiskState { record, open: None, previous: Previous::None, ended: None, sync_wanted: false };
        let reply = status(&state);
        self.cells.lock().insert(disk, Arc::new(Cell::new(state)));
        self.audit(&who.to_string(), Some(disk), "registered", detail).await;
        Ok(reply)
    }

    /// A new generation: what the old one had begun will not be finished.
    async fn renew(&self, cell: &Cell, state: &mut DiskState, who: &Identity, request: RegisterRequest) -> Reply<()> {
        if state.open.is_some() {
            let detail = format!("generation {} began in the middle of it", request.generation);
            self.end(cell, state, Ending::failed(FailReason::Abandoned, detail)).await?;
        }
        let mut record = state.record.clone();
        let grown = (request.size > record.size)
            .then(|| format!("from {} to {} bytes with generation {}", record.size, request.size, request.generation));
        if grown.is_some() && record.phase != DiskPhase::Registered {
            // What a target's format does with the added sectors is not ours to guess: they are compared.
            record.phase = record.phase.on(DiskEvent::Doubt).map_err(super::access::impossible)?;
        }
        record.name = request.name;
        record.size = request.size;
        record.logical_sector = request.logical_sector;
        record.generation = request.generation;
        if request.envelope.hydrator != record.envelope.hydrator {
            record.hydrator = None;
        }
        record.envelope = request.envelope;
        self.ports.repository.save(&record, None).await.map_err(repository_failed)?;
        let detail = format!("generation {}, {} bytes", record.generation, record.size);
        tracing::info!(disk = %record.disk, generation = %record.generation, "a new generation was registered");
        state.record = record;
        cell.ring();
        self.work_changed();
        self.audit(&who.to_string(), Some(cell.disk), "generation", detail).await;
        if let Some(detail) = grown {
            tracing::info!(disk = %cell.disk, "a disk has grown {detail}");
            self.audit(&who.to_string(), Some(cell.disk), "grown", detail).await;
        }
        Ok(())
    }

    /// The same generation again: only the name that people see may be another.
    async fn repeat(&self, state: &mut DiskState, request: RegisterRequest) -> Reply<()> {
        let known = &state.record;
        if request.envelope != known.envelope {
            let message = format!(
                "generation {} of {} has another data key; a new key needs a new generation",
                known.generation, known.disk
            );
            return refuse(ErrorCode::WrongState, message);
        }
        if request.size != known.size || request.logical_sector != known.logical_sector {
            let message = format!(
                "{} has {} bytes in sectors of {}, not {} in sectors of {}; another size needs a new generation",
                known.disk, known.size, known.logical_sector, request.size, request.logical_sector
            );
            return refuse(ErrorCode::WrongState, message);
        }
        if request.name != known.name {
            let record = DiskRecord { name: request.name, ..known.clone() };
            self.ports.repository.save(&record, None).await.map_err(repository_failed)?;
            state.record = record;
        }
        Ok(())
    }
}

fn status(state: &DiskState) -> DiskStatus {
    DiskStatus {
        generation: state.record.generation,
        verified: state.record.verified,
        open: state.open.as_ref().map(|open| (open.record.cycle, open.record.state)),
    }
}

fn shrunk(known: &DiskRecord, size: ByteCount) -> String {
    format!(
        "{} ({:?}) has {} bytes here and {size} now: a disk may grow, never shrink. If the source was really replaced by a \
         smaller one, protect it as a new disk with a new target",
        known.disk, known.name, known.size
    )
}

fn check(disk: DiskId, request: &RegisterRequest) -> Reply<()> {
    let envelope = &request.envelope;
    let parts = [&envelope.encapsulated, &envelope.sealed, &envelope.signer, &envelope.signature];
    let wrong = if request.name.is_empty() || request.name.len() > NAME_BYTES_MAX {
        "the disk's name must have 1 to 256 bytes"
    } else if request.name.chars().any(char::is_control) {
        "the disk's name holds control characters"
    } else if !matches!(request.logical_sector, 512 | 4096) {
        "the logical sector must have 512 or 4096 bytes"
    } else if request.size.0 == 0 || request.size.0 > DISK_SECTORS_MAX * SECTOR_BYTES {
        "the disk's size must lie between 1 byte and 64 TiB"
    } else if request.generation == Generation(0) {
        "generations begin at 1"
    } else if envelope.disk != disk || envelope.generation != request.generation {
        "the data key is wrapped for another disk or generation"
    } else if parts.iter().any(|part| part.len() > ENVELOPE_BYTES_MAX) {
        "the wrapped data key is too long"
    } else {
        return Ok(());
    };
    refuse(ErrorCode::BadRequest, format!("registering {disk}: {wrong}"))
}
