//! What the journal is kept in.

use super::JournalError;

/// Who is shown the entries of a log.
pub type EachEntry<'a> = dyn FnMut(&[u8]) -> Result<(), JournalError> + 'a;

/// Durable records by name. What `save` has returned for survives a power cut.
pub trait Records: Send + Sync {
    /// The record, if there is one.
    fn load(&self, name: &str) -> Result<Option<Vec<u8>>, JournalError>;
    /// Puts the record in the place of the old one, whole or not at all.
    fn save(&mut self, name: &str, bytes: &[u8]) -> Result<(), JournalError>;
    /// The same for several, which are put in their places in this order.
    fn save_all(&mut self, records: &[(&str, &[u8])]) -> Result<(), JournalError> {
        records.iter().try_for_each(|(name, bytes)| self.save(name, bytes))
    }
    /// Removes the record. A power cut may bring it back, until another is saved.
    fn remove(&mut self, name: &str) -> Result<(), JournalError>;
    /// Shows `each` all entries of a log, oldest first, until it fails.
    fn read_log(&mut self, name: &str, each: &mut EachEntry<'_>) -> Result<(), JournalError>;
    /// Adds an entry to a log. It survives a crash of the process; a power cut may take the newest entries.
    fn append(&mut self, name: &str, entry: &[u8]) -> Result<(), JournalError>;
}
