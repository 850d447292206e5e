//! Flushing so that what is read afterwards is what the medium has.

use super::TargetError;
use sluice_platform::DirectFile;

/// Puts what was written on stable storage. Where the file system takes no direct I/O, the page cache is emptied of it: after a
/// flush that failed the kernel takes pages for clean that never got to the medium, and would answer with them. Nothing may be
/// written meanwhile there: a page that is written to again stays whole.
pub(super) async fn flush(file: &DirectFile) -> Result<(), TargetError> {
    file.sync_data().await?;
    forget(file).await;
    Ok(())
}

/// The second half alone.
pub(super) async fn forget(file: &DirectFile) {
    if !file.is_direct() {
        // It returns nothing; cut off by the program's end it is of no use any more.
        drop(tokio::task::spawn_blocking(file.forget_cached()).await);
    }
}

/// Says once for each opening of a target that its medium is read by way of the page cache.
pub(super) fn warn_if_cached(file: &DirectFile) {
    if !file.is_direct() {
        tracing::warn!(
            "the file system of target {} takes no direct I/O: what was written is read back after the page cache was emptied, \
             which is slower, and no proof where something below caches too",
            file.path().display()
        );
    }
}
