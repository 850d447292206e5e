//! All disks of a hydrator. One task asks the appliance for work; each disk has a task of its own that owns its state, so
//! that a disk in trouble never stops the others.

mod disk;
#[cfg(test)]
mod tests;

use crate::apply::Environment;
use disk::DiskTask;
use sluice_client::HydratorApi;
use sluice_proto::wire::{WAIT_MS_MAX, Work, WorkRequest};
use sluice_proto::{Digest, DiskId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// The first pause after a failure; each further one is twice as long.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// How long a disk whose data key is wrapped for another hydrator is left to that one. After that its cycle fails here, with
/// words: as long as nobody has claimed it, it may be the agent that names the wrong key.
const LEFT_TO_OTHERS: Duration = Duration::from_secs(20);

/// A hydrator: give it an appliance, a cache store and targets, and let it run.
pub struct Hydrator {
    environment: Environment,
    api: Arc<dyn HydratorApi>,
    disks: BTreeMap<DiskId, watch::Sender<Option<Work>>>,
    /// Disks that are for another hydrator, and since when they are shown here all the same.
    foreign: BTreeMap<DiskId, Instant>,
    tasks: JoinSet<()>,
}

impl Hydrator {
    /// A hydrator that is not running yet.
    pub fn new(environment: Environment, api: Arc<dyn HydratorApi>) -> Self {
        Self { environment, api, disks: BTreeMap::new(), foreign: BTreeMap::new(), tasks: JoinSet::new() }
    }

    /// Works until `stop` becomes true or its sender is gone. A cycle that is cut short then goes on at the next start.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut pause = Pause::default();
        let mut seen = 0;
        loop {
            let request = WorkRequest { seen, wait_ms: WAIT_MS_MAX };
            let reply = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                reply = self.api.work(request) => reply,
            };
            match reply {
                Ok(reply) => {
                    pause.reset();
                    seen = reply.revision;
                    self.hand_out(reply.work);
                }
                Err(error) => {
                    match error.may_pass() {
                        true => tracing::warn!(%error, "asking for work; trying again"),
                        false => tracing::error!(%error, "asking for work: this needs somebody to look at it"),
                    }
                    tokio::select! {
                        biased;
                        _ = stop.wait_for(|stop| *stop) => break,
                        () = pause.wait() => {}
                    }
                }
            }
        }
        self.tasks.shutdown().await;
    }

    /// Tells each disk's task what there is to do, or that there is nothing.
    fn hand_out(&mut self, work: Vec<Work>) {
        let own = Digest::of(self.environment.key.public());
        let is_foreign = |work: &Work| work.envelope.hydrator != own;
        self.foreign.retain(|disk, _| work.iter().any(|work| work.disk == *disk && is_foreign(work)));
        let mut rest = BTreeMap::new();
        for work in work {
            let left = is_foreign(&work) && {
                let since = self.foreign.entry(work.disk).or_insert_with(Instant::now);
                since.elapsed() < LEFT_TO_OTHERS
            };
            if !left {
                rest.insert(work.disk, work);
            }
        }
        for (disk, task) in &self.disks {
            let work = rest.remove(disk);
            task.send_if_modified(|known| {
                let changed = *known != work;
                *known = work;
                changed
            });
        }
        for (disk, work) in rest {
            let (sender, receiver) = watch::channel(Some(work));
            let task = DiskTask::new(self.environment.clone(), self.api.clone(), disk);
            self.tasks.spawn(task.run(receiver));
            self.disks.insert(disk, sender);
        }
    }
}

/// Pauses that grow with each failure.
struct Pause {
    next: Duration,
}

impl Default for Pause {
    fn default() -> Self {
        Self { next: PAUSE_FIRST }
    }
}

impl Pause {
    fn reset(&mut self) {
        self.next = PAUSE_FIRST;
    }

    async fn wait(&mut self) {
        let pause = self.next;
        self.next = (pause * 2).min(PAUSE_MAX);
        tokio::time::sleep(pause).await;
    }
}
