//! The mark that a hydrator puts on the target before it writes to it.

use super::accept::check_left_alone;
use super::session::Session;
use super::stop::Stop;
use crate::ledger::Writing;
use crate::target::{Target, WriterMark};

impl Session {
    /// A new mark, as the ledger is to note it before the target has it; none where the target can't bear any.
    pub(super) async fn new_mark(&self, target: &dyn Target) -> Result<Option<Writing>, Stop> {
        if target.marked_by().await?.is_none() {
            return Ok(None);
        }
        let mut number = [0; 8];
        self.env.entropy.fill(&mut number);
        Ok(Some(Writing { mark: WriterMark(u64::from_le_bytes(number)), before: target.fingerprint().await? }))
    }

    /// Puts the mark that the ledger notes on the target, where it is not there yet and nobody else has written since.
    ///
    /// # Errors
    /// Another has: nobody may go on with what was begun before.
    pub(super) async fn put_mark(&mut self, target: &dyn Target) -> Result<(), Stop> {
        let (now, writer) = (target.fingerprint().await?, target.marked_by().await?);
        check_left_alone(&self.file.ledger, &now, writer).map_err(Stop::Fail)?;
        self.bear_mark(target).await
    }

    /// The same whoever has written to the target: for what reads back and proves all of it, or is compared after that.
    pub(super) async fn bear_mark(&mut self, target: &dyn Target) -> Result<(), Stop> {
        if let Some(writing) = self.file.ledger.writing
            && self.bears_other_mark(target).await?
            && !target.mark(writing.mark).await?
        {
            // Its file takes none after all, and the ledger must not demand one.
            self.file.change(|ledger| ledger.writing = None).await?;
        }
        Ok(())
    }

    /// True where the target does not bear the mark that the ledger notes, though it can.
    pub(super) async fn bears_other_mark(&self, target: &dyn Target) -> Result<bool, Stop> {
        let Some(writing) = self.file.ledger.writing else { return Ok(false) };
        Ok(target.marked_by().await?.is_some_and(|mark| mark != writing.mark))
    }
}
