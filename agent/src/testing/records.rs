//! Records in memory, and a process that dies at a chosen one of its changes to them.

use crate::journal::{EachEntry, JournalError, Records};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Durable records; clones are the same ones.
#[derive(Clone, Default)]
pub(crate) struct MemRecords(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    files: BTreeMap<String, Vec<u8>>,
    logs: BTreeMap<String, Vec<Vec<u8>>>,
    changes: u64,
    /// The change at which the process dies, and whether that change was still made.
    dies_at: Option<(u64, bool)>,
    dead: bool,
}

impl MemRecords {
    /// The process dies at its `change`th change from now, counted from 0, before or after it is made.
    pub(crate) fn die_at(&self, change: u64, after: bool) {
        let mut inner = self.0.lock();
        inner.dies_at = Some((inner.changes + change, after));
    }

    /// A new process begins.
    pub(crate) fn revive(&self) {
        let mut inner = self.0.lock();
        (inner.dead, inner.dies_at) = (false, None);
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.0.lock().dead
    }

    /// A copy as another process would find it, which shares nothing with this.
    pub(crate) fn copy(&self) -> Self {
        let inner = self.0.lock();
        let (files, logs) = (inner.files.clone(), inner.logs.clone());
        Self(Arc::new(Mutex::new(Inner { files, logs, ..Inner::default() })))
    }

    /// Damages a record from outside.
    pub(crate) fn forget(&self, name: &str) {
        self.0.lock().files.remove(name);
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) -> Result<(), JournalError> {
        let mut inner = self.0.lock();
        if inner.dead {
            return Err(dead());
        }
        let now = inner.changes;
        inner.changes += 1;
        match inner.dies_at {
            Some((at, after)) if at == now => {
                if after {
                    change(&mut inner);
                }
                inner.dead = true;
                Err(dead())
            }
            _ => {
                change(&mut inner);
                Ok(())
            }
        }
    }
}

fn dead() -> JournalError {
    JournalError("the process is dead".into())
}

impl Records for MemRecords {
    fn load(&self, name: &str) -> Result<Option<Vec<u8>>, JournalError> {
        let inner = self.0.lock();
        if inner.dead { Err(dead()) } else { Ok(inner.files.get(name).cloned()) }
    }

    fn save(&mut self, name: &str, bytes: &[u8]) -> Result<(), JournalError> {
        self.change(|inner| drop(inner.files.insert(name.into(), bytes.to_vec())))
    }

    fn remove(&mut self, name: &str) -> Result<(), JournalError> {
        self.change(|inner| {
            inner.files.remove(name);
            inner.logs.remove(name);
        })
    }

    fn read_log(&mut self, name: &str, each: &mut EachEntry<'_>) -> Result<(), JournalError> {
        let inner = self.0.lock();
        if inner.dead {
            return Err(dead());
        }
        inner.logs.get(name).into_iter().flatten().try_for_each(|entry| each(entry))
    }

    fn append(&mut self, name: &str, entry: &[u8]) -> Result<(), JournalError> {
        self.change(|inner| inner.logs.entry(name.into()).or_default().push(entry.to_vec()))
    }
}
