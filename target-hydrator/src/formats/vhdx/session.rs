//! Changing a VHDX's metadata so that every crash leaves it valid: by its headers and its log.
//!
//! One entry at a time. It is put in the log while the header says that the log is empty; only then does the header
//! name it; only then are the sectors themselves written; and then the header forgets it. So the header never names a
//! log without a complete entry, and a torn sector of the table is always mended by the entry.

use super::super::Step;
use super::guids::new_uuid;
use super::header::{self, Header};
use super::log::Replay;
use super::overlay::ChangeKind;
use super::{LOG_SECTOR, log_entry};
use sluice_proto::env::Entropy;
use uuid::Uuid;

/// A sector of the table and where it goes.
pub(super) type Page = (u64, Box<[u8; LOG_SECTOR as usize]>);

/// A VHDX's headers, its log and what that holds.
#[derive(Debug)]
pub(in crate::formats) struct Session {
    /// The header in force, and its place.
    header: Header,
    place: usize,
    /// What a crash left in the log.
    replay: Option<Replay>,
    file_size: u64,
    begun: bool,
    log_sequence: u64,
}

impl Session {
    pub(super) fn new((place, header): (usize, Header), replay: Option<Replay>, file_size: u64) -> Self {
        Self { header, place, replay, file_size, begun: false, log_sequence: 0 }
    }

    /// Applies what the log holds.
    pub(in crate::formats) fn recovery(&mut self, ids: &dyn Entropy) -> Vec<Step> {
        let Some(replay) = self.replay.take() else { return Vec::new() };
        let mut steps = Vec::new();
        if replay.last_file_offset > self.file_size {
            steps.push(Step::SetLen(replay.last_file_offset));
        }
        for change in replay.changes {
            let bytes = match change.kind {
                ChangeKind::Data(bytes) => bytes.to_vec(),
                ChangeKind::Zero(len) => vec![0; len as usize], // at most 64 MiB: checked when the log was read
            };
            steps.push(Step::Write(change.offset, bytes));
        }
        steps.push(Step::Sync);
        self.header.file_write = new_uuid(ids);
        steps.extend(self.clear_log());
        steps
    }

    /// Says in the header that the file and the disk are about to change; once after each opening.
    pub(in crate::formats) fn begin_writing(&mut self, ids: &dyn Entropy) -> Vec<Step> {
        if std::mem::replace(&mut self.begun, true) {
            return Vec::new();
        }
        self.header.file_write = new_uuid(ids);
        self.header.data_write = new_uuid(ids);
        self.put_header()
    }

    /// Changes these sectors of the table; all that they point to is on stable storage, and the file has `file_size`
    /// bytes.
    pub(in crate::formats) fn commit(&mut self, pages: Vec<Page>, file_size: u64, ids: &dyn Entropy) -> Vec<Step> {
        let mut steps = Vec::new();
        for pages in pages.chunks(log_entry::capacity(u64::from(self.header.log_length))) {
            let log = new_uuid(ids);
            self.log_sequence += 1;
            let entry = log_entry::encode(log, self.log_sequence, pages, file_size);
            steps.extend([Step::Write(self.header.log_offset, entry), Step::Sync]);
            self.header.log = log;
            steps.extend(self.put_header());
            steps.extend(pages.iter().map(|(offset, bytes)| Step::Write(*offset, bytes.to_vec())));
            steps.push(Step::Sync);
            steps.extend(self.clear_log());
        }
        steps
    }

    /// Twice, so that neither header names the log any more: if the newer one is damaged later, the older one must not
    /// have an old table put back.
    fn clear_log(&mut self) -> Vec<Step> {
        self.header.log = Uuid::nil();
        let mut steps = self.put_header();
        steps.extend(self.put_header());
        steps
    }

    /// Writes the header over the one that is not in force.
    fn put_header(&mut self) -> Vec<Step> {
        self.place ^= 1;
        self.header.sequence = self.header.sequence.wrapping_add(1);
        vec![Step::Write(header::place(self.place), self.header.encode()), Step::Sync]
    }
}
