//! Letting go of the target once it was cut over: who holds a block device open for writing keeps others from mounting it, from
//! building upon it and from starting a machine from it. Between cycles it is held: a host that finds a copy of its own volumes on
//! a free device may put them into use.

use super::session::Session;
use super::stop::Stop;
use crate::state::StateError;

impl Session {
    /// After something was not brought to its end: what of it is still under way ends, and a target that no longer knows
    /// what is in its file finds out. Whether that works, the next use tells.
    pub(crate) async fn settle_target(&self) {
        if let Some(target) = &self.target {
            drop(target.sync().await);
        }
        if let Err(error) = self.keep_unflushed().await {
            tracing::warn!(disk = %self.file.ledger.disk, "what a failed flush may have lost is known until the hydrator ends: {error}");
        }
    }

    /// The same where the disk may have been lost: then nothing is flushed any more, as the tables of an image would come over
    /// those of the other.
    pub(crate) async fn settle(&mut self, stop: &Stop) {
        if matches!(stop, Stop::Lost) {
            self.close_target();
        }
        self.settle_target().await;
    }

    /// Keeps over a restart what failed flushes may have lost, where that has changed.
    pub(super) async fn keep_unflushed(&self) -> Result<(), StateError> {
        let Some(sectors) = self.unflushed.news() else { return Ok(()) };
        let kept = self.file.keep_unflushed(sectors).await;
        if kept.is_err() {
            self.unflushed.not_kept();
        }
        kept
    }

    /// Closes the target until there is work for it again. Nothing may be under way; what was applied ahead of a commit is read
    /// back at the commit then.
    pub async fn let_go(&mut self) {
        self.settle_target().await;
        self.close_target();
    }

    /// Closes the target as it is, and forgets what is based on it.
    pub(super) fn close_target(&mut self) {
        (self.streamed, self.ahead, self.target) = (None, None, None);
    }
}
