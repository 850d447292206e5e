//! Targets and state that fail, or stop for ever as in a crash, after so many operations.

use crate::state::{StateError, StateStore};
use crate::target::{Fingerprint, MemoryTarget, Target, TargetError, TargetErrorKind, WriterMark};
use async_trait::async_trait;
use parking_lot::Mutex;
use sluice_platform::AlignedBuf;
use sluice_proto::{Extent, Sector, SectorCount};
use std::sync::Arc;
use tokio::sync::Notify;

/// What happens when the count of operations has run out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Then {
    #[default]
    Nothing,
    /// The operation is done in part, and nothing after it ever answers: the process is gone.
    Crash,
    /// The operation fails once with this kind.
    Fail(TargetErrorKind),
    /// The bytes that are written are not those that were given, or what is flushed is lost, and nobody says so.
    Lie,
}

#[derive(Default)]
struct Plan {
    left: u64,
    then: Then,
    done: u64,
    gone: bool,
    aside: Option<(u64, Box<dyn FnOnce() + Send>)>,
    /// Flushes that still fail, and say so.
    failing_flushes: u32,
    /// Records that are still saved before the state has no room for any more.
    state_left: Option<u64>,
}

/// Faults to come, shared by a target and its state.
#[derive(Default)]
pub(crate) struct Faults {
    plan: Mutex<Plan>,
    gone: Notify,
}

impl Faults {
    /// Sets what happens after `left` more operations, and begins to count anew.
    pub fn set(&self, left: u64, then: Then) {
        *self.plan.lock() = Plan { left, then, ..Plan::default() };
    }
    /// Somebody else does this after `left` more operations, right before the next one; nothing else goes wrong.
    pub fn aside(&self, left: u64, deed: impl FnOnce() + Send + 'static) {
        *self.plan.lock() = Plan { aside: Some((left, Box::new(deed))), ..Plan::default() };
    }
    /// After so many more records the state takes none, until the next `set`.
    pub fn fail_state_after(&self, records: u64) {
        *self.plan.lock() = Plan { state_left: Some(records), ..Plan::default() };
    }
    /// The next flushes fail, though whoever reads afterwards is given what was written.
    pub fn fail_flushes(&self, flushes: u32) {
        *self.plan.lock() = Plan { failing_flushes: flushes, ..Plan::default() };
    }
    fn fails_flush(&self) -> bool {
        let mut plan = self.plan.lock();
        let fails = plan.failing_flushes > 0;
        plan.failing_flushes -= u32::from(fails);
        fails
    }
    fn refuses_state(&self) -> bool {
        let mut plan = self.plan.lock();
        match plan.state_left.map(|left| left.checked_sub(1)) {
            Some(None) => true,
            left => {
                plan.state_left = left.flatten();
                false
            }
        }
    }
    /// Operations since `set`.
    pub fn done(&self) -> u64 {
        self.plan.lock().done
    }
    /// Waits until the crash has happened.
    pub async fn crashed(&self) {
        loop {
            let gone = self.gone.notified();
            if self.plan.lock().gone {
                return;
            }
            gone.await;
        }
    }

    fn step(&self) -> Then {
        let mut plan = self.plan.lock();
        let done = plan.done;
        if let Some((_, deed)) = plan.aside.take_if(|(left, _)| *left == done) {
            deed();
        }
        plan.done += 1;
        if plan.then == Then::Nothing {
            return Then::Nothing;
        }
        match plan.left.checked_sub(1) {
            Some(left) => {
                plan.left = left;
                Then::Nothing
            }
            None if plan.then == Then::Crash => {
                plan.gone = true;
                self.gone.notify_waiters();
                Then::Crash
            }
            None => std::mem::take(&mut plan.then),
        }
    }
}

pub(crate) struct FaultTarget {
    pub inner: Arc<MemoryTarget>,
    pub faults: Arc<Faults>,
}

impl FaultTarget {
    /// Makes the disk larger, with zeros. A crash comes before that or after it, by turns.
    pub async fn grow(&self, to: SectorCount) -> Result<(), TargetError> {
        match self.faults.step() {
            Then::Fail(kind) => return Err(failed(kind)),
            Then::Crash => {
                if self.faults.done().is_multiple_of(2) {
                    self.inner.grow(to);
                }
                std::future::pending().await
            }
            Then::Nothing | Then::Lie => self.inner.grow(to),
        }
        Ok(())
    }
}

fn failed(kind: TargetErrorKind) -> TargetError {
    TargetError::new(kind, "the test made it fail")
}

#[async_trait]
impl Target for FaultTarget {
    fn sectors(&self) -> SectorCount {
        self.inner.sectors()
    }

    async fn write(&self, at: Sector, mut bytes: AlignedBuf) -> Result<(), TargetError> {
        match self.faults.step() {
            Then::Nothing => self.inner.write(at, bytes).await,
            Then::Fail(kind) => Err(failed(kind)),
            Then::Lie => {
                bytes[0] ^= 1;
                self.inner.write(at, bytes).await
            }
            Then::Crash => {
                // Torn: the first sector got there, the others did not.
                self.inner.write(at, AlignedBuf::from_slice(&bytes[..512])).await?;
                std::future::pending().await
            }
        }
    }

    async fn zero(&self, extent: Extent) -> Result<(), TargetError> {
        match self.faults.step() {
            Then::Nothing => self.inner.zero(extent).await,
            Then::Fail(kind) => Err(failed(kind)),
            Then::Lie => Ok(()),
            Then::Crash => {
                self.inner.zero(Extent::new(extent.start.0, 1)).await?;
                std::future::pending().await
            }
        }
    }

    async fn read(&self, extent: Extent, buf: AlignedBuf) -> Result<AlignedBuf, TargetError> {
        match self.faults.step() {
            Then::Crash => std::future::pending().await,
            Then::Fail(kind) => Err(failed(kind)),
            Then::Nothing | Then::Lie => self.inner.read(extent, buf).await,
        }
    }

    async fn next_data(&self, from: Sector) -> Result<Option<Extent>, TargetError> {
        self.inner.next_data(from).await
    }

    async fn sync(&self) -> Result<(), TargetError> {
        if self.faults.fails_flush() {
            return Err(failed(TargetErrorKind::Io));
        }
        match self.faults.step() {
            Then::Crash => std::future::pending().await,
            Then::Fail(kind) => Err(failed(kind)),
            Then::Lie => {
                self.inner.cut_power();
                Ok(())
            }
            Then::Nothing => self.inner.sync().await,
        }
    }

    async fn fingerprint(&self) -> Result<Fingerprint, TargetError> {
        self.inner.fingerprint().await
    }

    async fn marked_by(&self) -> Result<Option<WriterMark>, TargetError> {
        self.inner.marked_by().await
    }

    async fn mark(&self, by: WriterMark) -> Result<bool, TargetError> {
        match self.faults.step() {
            Then::Fail(kind) => Err(failed(kind)),
            Then::Crash => {
                if self.faults.done().is_multiple_of(2) {
                    self.inner.mark(by).await?;
                }
                std::future::pending().await
            }
            Then::Nothing | Then::Lie => self.inner.mark(by).await,
        }
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

/// State whose saving may be the last thing that a process does.
pub(crate) struct FaultState<S> {
    pub inner: Arc<S>,
    pub faults: Arc<Faults>,
}

impl<S: StateStore> FaultState<S> {
    /// A crash comes before the operation or after it, by turns.
    async fn step(&self) -> Result<bool, StateError> {
        if self.faults.refuses_state() {
            return Err(StateError::new("the test made the state fail"));
        }
        match self.faults.step() {
            Then::Crash => Ok(self.faults.done().is_multiple_of(2)),
            _ => Ok(true),
        }
    }

    async fn end(&self) {
        if self.faults.plan.lock().gone {
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait]
impl<S: StateStore> StateStore for FaultState<S> {
    async fn load(&self, name: &str, len_max: u64) -> Result<Option<Vec<u8>>, StateError> {
        self.inner.load(name, len_max).await
    }
    async fn save(&self, name: &str, bytes: Vec<u8>) -> Result<(), StateError> {
        if self.step().await? {
            self.inner.save(name, bytes).await?;
        }
        self.end().await;
        Ok(())
    }
    async fn remove(&self, name: &str) -> Result<(), StateError> {
        if self.step().await? {
            self.inner.remove(name).await?;
        }
        self.end().await;
        Ok(())
    }
    fn describe(&self) -> String {
        self.inner.describe()
    }
}
