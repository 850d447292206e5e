//! The mark that a hydrator puts on the target before it writes to it.

use super::accept::check_left_alone;
use super::session::Session;
use super::stop::Stop;
use crate::ledger::Writing;
use crate::target::{Target, WriterMark};

impl Session {
    /// A new mark, as the ledger is to note it before the target has it.
    pub(super) async fn new_mark(&self, target: &dyn Target) -> Result<Writing, Stop> {
        let mut number = [0; 16];
        self.env.entropy.fill(&mut number);
        Ok(Writing { mark: WriterMark(u128::from_le_bytes(number)), before: target.fingerprint().await? })
    }

    /// Puts the mark that the ledger notes on the target, if it is not there yet.
    ///
    /// # Errors
    /// Another has written to the target since the mark was noted: nobody may go on with what was begun then.
    pub(super) async fn put_mark(&mut self, target: &dyn Target) -> Result<(), Stop> {
        let Some(writing) = self.file.ledger.writing else { return Ok(()) };
        let there = target.marked_by().await?;
        if there.is_none_or(|mark| mark == writing.mark) {
            return Ok(());
        }
        check_left_alone(&self.file.ledger, &target.fingerprint().await?, there).map_err(Stop::Fail)?;
        if !target.mark(writing.mark).await? {
            // Its file takes none after all, of which the ledger must not demand one.
            self.file.change(|ledger| ledger.writing = None).await?;
        }
        Ok(())
    }
}
