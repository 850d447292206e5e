//! What of a target a flush that failed may have lost.
//!
//! Whoever reads the target after such a flush may be given what was written, from a cache that the medium never gets: a
//! comparison would find no difference, and a power cut would bring the old bytes back. So these sectors are known until they
//! were written again and flushed.

use super::{Fingerprint, Target, TargetError, WriterMark};
use async_trait::async_trait;
use parking_lot::Mutex;
use sluice_platform::AlignedBuf;
use sluice_proto::{Extent, Sector, SectorBitmap, SectorCount};
use std::sync::Arc;

/// The sectors that were written and are not known to be on stable storage; of one target, however often it is opened.
#[derive(Debug, Default)]
pub struct Unflushed(Mutex<Sectors>);

#[derive(Debug, Default)]
struct Sectors {
    /// Written since the last flush began.
    written: SectorBitmap,
    /// Written before a flush that failed, and not since.
    lost: SectorBitmap,
    /// `lost` is not what was kept of it last.
    changed: bool,
}

impl Unflushed {
    /// Those that an earlier process knew of.
    pub fn new(lost: SectorBitmap) -> Self {
        Self(Mutex::new(Sectors { lost, ..Sectors::default() }))
    }

    /// What failed flushes may have lost.
    pub fn lost(&self) -> SectorBitmap {
        self.0.lock().lost.clone()
    }

    /// The same, where it has changed since this was asked last.
    pub fn news(&self) -> Option<SectorBitmap> {
        let mut sectors = self.0.lock();
        std::mem::take(&mut sectors.changed).then(|| sectors.lost.clone())
    }

    /// What [`Self::news`] gave could not be kept.
    pub fn not_kept(&self) {
        self.0.lock().changed = true;
    }

    fn note(&self, extents: &[Extent]) {
        let mut sectors = self.0.lock();
        extents.iter().for_each(|extent| sectors.written.set(*extent));
    }

    fn begin_flush(&self) -> Flush<'_> {
        Flush { of: self, written: std::mem::take(&mut self.0.lock().written) }
    }
}

/// A flush that has begun. What it was to bring out counts as written until it says how it ended.
struct Flush<'a> {
    of: &'a Unflushed,
    written: SectorBitmap,
}

impl Flush<'_> {
    fn end(mut self, is_good: bool) {
        let written = std::mem::take(&mut self.written);
        let mut sectors = self.of.0.lock();
        match is_good {
            true if sectors.lost.intersects(&written) => sectors.lost.subtract(&written),
            false if !written.is_empty() => sectors.lost.union_with(&written),
            _ => return,
        }
        sectors.changed = true;
    }
}

impl Drop for Flush<'_> {
    fn drop(&mut self) {
        if self.written.is_empty() {
            return;
        }
        // Nobody waited for its end, and a failure is told once only.
        let mut sectors = self.of.0.lock();
        sectors.lost.union_with(&self.written);
        sectors.changed = true;
    }
}

/// A target of which it is noted what was written and not flushed.
pub struct Watched {
    inner: Arc<dyn Target>,
    unflushed: Arc<Unflushed>,
}

impl Watched {
    /// Notes it there.
    pub fn new(inner: Arc<dyn Target>, unflushed: Arc<Unflushed>) -> Self {
        Self { inner, unflushed }
    }
}

#[async_trait]
impl Target for Watched {
    fn sectors(&self) -> SectorCount {
        self.inner.sectors()
    }

    async fn write(&self, at: Sector, bytes: AlignedBuf) -> Result<(), TargetError> {
        let extent = super::linear::extent_of(at, bytes.len());
        // Before, as nobody may wait for its end; and after, as a flush that begins in between need not bring it out.
        self.unflushed.note(&[extent]);
        let done = self.inner.write(at, bytes).await;
        self.unflushed.note(&[extent]);
        done
    }

    async fn write_parts(&self, extents: &[Extent], bytes: AlignedBuf) -> Result<(), TargetError> {
        self.unflushed.note(extents);
        let done = self.inner.write_parts(extents, bytes).await;
        self.unflushed.note(extents);
        done
    }

    async fn zero(&self, extent: Extent) -> Result<(), TargetError> {
        self.unflushed.note(&[extent]);
        let done = self.inner.zero(extent).await;
        self.unflushed.note(&[extent]);
        done
    }

    async fn read(&self, extent: Extent, buf: AlignedBuf) -> Result<AlignedBuf, TargetError> {
        self.inner.read(extent, buf).await
    }

    async fn read_parts(&self, extents: &[Extent], buf: AlignedBuf) -> Result<AlignedBuf, TargetError> {
        self.inner.read_parts(extents, buf).await
    }

    async fn next_data(&self, from: Sector) -> Result<Option<Extent>, TargetError> {
        self.inner.next_data(from).await
    }

    async fn sync(&self) -> Result<(), TargetError> {
        let flush = self.unflushed.begin_flush();
        let done = self.inner.sync().await;
        flush.end(done.is_ok());
        done
    }

    async fn fingerprint(&self) -> Result<Fingerprint, TargetError> {
        self.inner.fingerprint().await
    }

    async fn marked_by(&self) -> Result<Option<WriterMark>, TargetError> {
        self.inner.marked_by().await
    }

    async fn mark(&self, by: WriterMark) -> Result<bool, TargetError> {
        self.inner.mark(by).await
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::{MemoryTarget, TargetErrorKind};
    use crate::testkit::{FaultTarget, Faults, Then};

    fn bitmap(extents: &[Extent]) -> SectorBitmap {
        SectorBitmap::from_extents(extents.iter().copied())
    }

    fn watched() -> (Arc<Faults>, Arc<Unflushed>, Watched) {
        let (faults, unflushed) = (Arc::new(Faults::default()), Arc::new(Unflushed::default()));
        let inner = FaultTarget { inner: Arc::new(MemoryTarget::new(SectorCount(100))), faults: faults.clone() };
        (faults, unflushed.clone(), Watched::new(Arc::new(inner), unflushed))
    }

    #[tokio::test]
    async fn what_a_failed_flush_covered_is_known_until_it_is_written_and_flushed_again() {
        let (faults, unflushed, target) = watched();
        let write = |at: u64| target.write(Sector(at), AlignedBuf::from_slice(&[1; 1024]));
        write(10).await.expect("written");
        target.sync().await.expect("flushed");
        assert_eq!(unflushed.news(), None);
        write(20).await.expect("written");
        target.zero(Extent::new(30, 5)).await.expect("zeroed");
        faults.set(0, Then::Fail(TargetErrorKind::Io));
        target.sync().await.expect_err("the flush fails");
        assert_eq!(unflushed.news(), Some(bitmap(&[Extent::new(20, 2), Extent::new(30, 5)])));
        assert_eq!(unflushed.news(), None);
        // A flush that works brings nothing back.
        target.sync().await.expect("flushed");
        write(30).await.expect("written");
        assert_eq!(unflushed.lost(), bitmap(&[Extent::new(20, 2), Extent::new(30, 5)]));
        target.sync().await.expect("flushed");
        assert_eq!(unflushed.news(), Some(bitmap(&[Extent::new(20, 2), Extent::new(32, 3)])));
    }

    /// Whether such a flush brings the write out nobody can say.
    #[tokio::test]
    async fn what_is_written_while_a_flush_begins_and_ends_counts_as_not_flushed() {
        let parts: [&[Extent]; 3] =
            [&[Extent::new(10, 2)], &[Extent::new(20, 1), Extent::new(25, 1)], &[Extent::new(30, 5)]];
        for extents in parts {
            let (faults, unflushed, target) = watched();
            let meanwhile = unflushed.clone();
            faults.aside(0, move || meanwhile.begin_flush().end(true));
            let bytes = AlignedBuf::from_slice(&[1; 1024]);
            let written = match extents {
                [extent] if extent.len.0 == 2 => target.write(extent.start, bytes).await,
                [extent] => target.zero(*extent).await,
                extents => target.write_parts(extents, bytes).await,
            };
            written.expect("written");
            faults.fail_flushes(1);
            target.sync().await.expect_err("the flush fails");
            assert_eq!(unflushed.lost(), bitmap(extents));
        }
    }

    #[test]
    fn a_flush_that_nobody_waited_for_has_brought_nothing_out() {
        let unflushed = Unflushed::default();
        unflushed.note(&[Extent::new(1, 1)]);
        drop(unflushed.begin_flush());
        unflushed.note(&[Extent::new(3, 1)]);
        unflushed.begin_flush().end(false);
        assert_eq!(unflushed.lost(), bitmap(&[Extent::new(1, 1), Extent::new(3, 1)]));
    }
}
