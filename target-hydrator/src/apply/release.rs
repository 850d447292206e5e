//! Letting go of the target while there is nothing to do: who holds a block device open for writing keeps others from mounting
//! it, from building upon it and from starting a machine from it.
//!
//! An image shows by its fingerprint what was done to it meanwhile. A device does not, so the kernel's count of its writes is
//! remembered and looked at when it is opened again.

use super::session::Session;
use super::stop::Stop;
use crate::state::StateError;
use crate::target::{Target, TargetError};
use sluice_platform::device::Activity;

/// What was seen of a target when it was let go of.
pub(super) struct Left {
    activity: Option<Activity>,
}

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

    /// Keeps over a restart what failed flushes may have lost, where that has changed.
    pub(super) async fn keep_unflushed(&self) -> Result<(), StateError> {
        let Some(sectors) = self.unflushed.news() else { return Ok(()) };
        let kept = self.file.keep_unflushed(sectors).await;
        if kept.is_err() {
            self.unflushed.not_kept();
        }
        kept
    }

    /// True where the target is held.
    pub fn holds_target(&self) -> bool {
        self.target.is_some()
    }

    /// Lets go of a target for which there is no work for now, if it will show what is done to it meanwhile.
    pub async fn let_go_for_now(&mut self) {
        let Some(target) = &self.target else { return };
        let shows = target.activity().await.is_some() || !is_device(&**target).await.unwrap_or(true);
        if shows {
            self.let_go().await;
        }
    }

    /// Closes the target until there is work for it again. Nothing may be under way; what was applied ahead of a commit is read
    /// back at the commit then.
    pub async fn let_go(&mut self) {
        self.settle_target().await;
        (self.streamed, self.ahead) = (None, None);
        let Some(target) = self.target.take() else { return };
        self.left = Some(Left { activity: target.activity().await });
    }

    /// The target that was opened again: a device to which somebody has written since it was let go of is in doubt.
    pub(super) async fn check_left(&mut self, target: &dyn Target) -> Result<(), Stop> {
        let Some(left) = &self.left else { return Ok(()) };
        let untouched = left.activity.is_some() && left.activity == target.activity().await;
        if !untouched && is_device(target).await? && self.file.ledger.doubt.is_none() {
            let text = "somebody may have written to the device while there was no work for it";
            self.file.change(|ledger| ledger.doubt = Some(text.to_owned())).await?;
        }
        self.left = None;
        Ok(())
    }
}

/// True where neither fingerprint nor mark shows who has written to it.
async fn is_device(target: &dyn Target) -> Result<bool, TargetError> {
    Ok(target.fingerprint().await?.inode == 0 && target.marked_by().await?.is_none())
}
