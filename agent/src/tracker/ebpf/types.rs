//! The types of the running kernel, by which programs are fitted to it, and the loader that does so.

use super::pins::Failure;
use aya::{Btf, Ebpf, EbpfLoader};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The types of the running kernel, more than a hundred thousand: who is to attach several disks keeps them in between, as
/// reading them takes longer than all else.
#[derive(Debug)]
pub struct KernelTypes(());

struct Kept {
    keepers: usize,
    types: Option<Arc<Types>>,
}

static KEPT: Mutex<Kept> = Mutex::new(Kept { keepers: 0, types: None });

/// The types, twice: the loader reads them for itself as it is made, so one is used for all disks.
pub(super) struct Types {
    btf: Btf,
    loader: Mutex<EbpfLoader<'static>>,
}

impl KernelTypes {
    /// From when one disk needs them until this is dropped they stay in memory, some 40 MiB.
    #[must_use]
    pub fn keep() -> Self {
        KEPT.lock().keepers += 1;
        Self(())
    }

    /// Reads them, or takes those that are kept.
    pub(super) fn get(&self) -> Result<Arc<Types>, Failure> {
        let mut kept = KEPT.lock();
        if let Some(types) = &kept.types {
            return Ok(types.clone());
        }
        let types = Arc::new(Types { btf: Btf::from_sys_fs()?, loader: Mutex::new(EbpfLoader::new()) });
        kept.types = Some(types.clone());
        Ok(types)
    }

    /// Something went wrong with them: they are read anew, so that a loader that could not read its own, which it keeps to
    /// itself, fails no other disk.
    pub(super) fn forget() {
        KEPT.lock().types = None;
    }
}

impl Drop for KernelTypes {
    fn drop(&mut self) {
        let mut kept = KEPT.lock();
        kept.keepers -= 1;
        if kept.keepers == 0 && kept.types.take().is_some() {
            // Reading them takes some 30 MiB more for a moment.
            sluice_platform::process::give_back();
        }
    }
}

impl Types {
    /// The types themselves.
    pub(super) fn btf(&self) -> &Btf {
        &self.btf
    }

    /// Fits an object's programs to the kernel, with these constants, and makes its tables with so many entries. Each call
    /// names the same constants and tables: what one sets, the next would find.
    pub(super) fn load(
        &self,
        object: &[u8],
        constants: &[(&'static str, u64)],
        tables: &[(&'static str, u32)],
    ) -> Result<Ebpf, Failure> {
        let mut loader = self.loader.lock();
        for (name, value) in constants {
            loader.override_global(name, lasting(*value), true);
        }
        for (name, entries) in tables {
            loader.map_max_entries(name, *entries);
        }
        Ok(loader.load(object)?)
    }
}

/// A number that lives as long as the loader, which borrows its constants: each that was ever asked for is kept, of which a
/// disk has a dozen, most of them other disks' too.
fn lasting(value: u64) -> &'static u64 {
    static KNOWN: Mutex<BTreeMap<u64, &'static u64>> = Mutex::new(BTreeMap::new());
    KNOWN.lock().entry(value).or_insert_with(|| Box::leak(Box::new(value)))
}
