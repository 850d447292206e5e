//! An image's own tables, headers and footers, read back as its data is.

use super::{TargetError, TargetErrorKind};
use crate::formats::Step;
use sluice_platform::{AlignedBuf, DirectFile, Part};
use std::collections::BTreeMap;

const SECTOR: usize = 512;
/// Sectors that are read in one go: 1 MiB.
const SECTORS_AT_ONCE: usize = 2048;

/// What of a file's metadata was written and not yet read back, sector by sector, by where it is: what was written last there
/// counts.
#[derive(Debug, Default)]
pub(super) struct Unproven(BTreeMap<u64, [u8; SECTOR]>);

impl Unproven {
    /// Adds what these steps write; gives them back.
    pub fn note(&mut self, steps: Vec<Step>) -> Vec<Step> {
        for step in &steps {
            match step {
                // Whole sectors, as a step has it.
                Step::Write(offset, bytes) => {
                    let sectors = bytes.as_chunks::<SECTOR>().0.iter();
                    self.0.extend((*offset..).step_by(SECTOR).zip(sectors.copied()));
                }
                Step::SetLen(len) => drop(self.0.split_off(len)),
                Step::Sync => {}
            }
        }
        steps
    }

    /// Reads all of it back. It must have been flushed, and nobody may write to it meanwhile.
    ///
    /// # Errors
    /// `Mismatch` where the medium has something else; a file that can't be read.
    pub async fn prove(self, file: &DirectFile) -> Result<(), TargetError> {
        let sectors: Vec<(u64, [u8; SECTOR])> = self.0.into_iter().collect();
        for some in sectors.chunks(SECTORS_AT_ONCE) {
            let (found, result) = file.read_parts(parts(some), AlignedBuf::zeroed(some.len() * SECTOR)).await;
            result?;
            let mut pairs = some.iter().zip(found.chunks(SECTOR));
            if let Some(((offset, _), _)) = pairs.find(|((_, written), found)| written[..] != **found) {
                let text = format!(
                    "the tables of target {} are not on its medium as they were written (byte {offset}); see the kernel's log \
                     for errors of the target's disk",
                    file.path().display()
                );
                return Err(TargetError::new(TargetErrorKind::Mismatch, text));
            }
        }
        Ok(())
    }
}

/// Where these sectors are read from, neighbours in one.
fn parts(sectors: &[(u64, [u8; SECTOR])]) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for (number, (offset, _)) in sectors.iter().enumerate() {
        let end = (number + 1) * SECTOR;
        match parts.last_mut().filter(|part| part.offset + part.range.len() as u64 == *offset) {
            Some(part) => part.range.end = end,
            None => parts.push(Part { offset: *offset, range: number * SECTOR..end }),
        }
    }
    parts
}
