//! Journals of records that are appended one by one.

use crate::fields::{Fields, flag};
use sluice_platform::append_log::{AppendLog, LogError};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The first byte chooses: a file as it comes, one with a good header, or records with good checksums.
pub fn run(input: &[u8]) {
    let Some((choice, bytes)) = input.split_first() else { return };
    let bytes = match choice % 3 {
        0 => bytes.to_vec(),
        1 => [&header()[..], bytes].concat(),
        _ => records(&mut Fields::of(bytes)),
    };
    static PATH: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = PATH.get_or_init(|| {
        let folder = crate::folder();
        let path = folder.path().join("log");
        (folder, path)
    });
    std::fs::write(path, &bytes).expect("a file of our own");
    open(path, &bytes);
}

/// What opens is whole from then on; what doesn't is left as it was.
fn open(path: &Path, bytes: &[u8]) {
    let (mut log, found) = match AppendLog::open(path) {
        Ok(opened) => opened,
        Err(LogError::Foreign { .. } | LogError::Damaged { .. }) => {
            assert_eq!(std::fs::read(path).expect("still there"), bytes, "a log that is refused was changed");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    assert!(found.cut_bytes <= bytes.len() as u64);
    log.append(b"one more").expect("room");
    log.sync().expect("a file of our own");
    let size = log.size_bytes();
    drop(log);
    let (log, again) = AppendLog::open(path).expect("our own log");
    assert_eq!((again.cut_bytes, log.size_bytes()), (0, size));
    let (last, kept) = again.records.split_last().expect("the record that was added");
    assert!(last == b"one more" && kept == found.records, "other records than those that were found");
}

/// A log by its description, not by its writer: header, then length, how far it was flushed, checksum and payload.
fn records(fields: &mut Fields<'_>) -> Vec<u8> {
    let mut out = header().to_vec();
    let mut durable = out.len() as u64;
    while !fields.is_empty() {
        let how = fields.u8();
        let payload = fields.counted();
        let (at, len) = (out.len() as u64, payload.len() as u32);
        let said = if flag(how, 0) { fields.number() } else { durable };
        let mut hasher = blake3::Hasher::new();
        hasher.update(&at.to_le_bytes()).update(&len.to_le_bytes()).update(&said.to_le_bytes()).update(payload);
        let mut sum = *hasher.finalize().as_bytes();
        if flag(how, 1) {
            sum[0] ^= 1;
        }
        let len = if flag(how, 2) { fields.u32() } else { len };
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&said.to_le_bytes());
        out.extend_from_slice(&sum[..8]);
        out.extend_from_slice(payload);
        if !flag(how, 3) {
            durable = out.len() as u64;
        }
    }
    out
}

fn header() -> [u8; 16] {
    let mut header = *b"SLUICLOG\x01\0\0\0\0\0\0\0";
    let hash = blake3::hash(&header[..12]);
    header[12..].copy_from_slice(&hash.as_bytes()[..4]);
    header
}

/// Logs that are whole, torn and damaged.
pub fn seeds() -> Vec<Vec<u8>> {
    vec![
        [&[0][..], &header()].concat(),
        vec![0],
        [&[1][..], &[9; 30]].concat(),
        vec![2, 0, 3, 0, 1, 2, 3, 0, 0, 0, 0, 2, 0, 5, 5],
        vec![2, 0, 3, 0, 1, 2, 3, 2, 1, 0, 4, 0, 2, 0, 5, 5],
        vec![2, 8, 3, 0, 1, 2, 3, 8 | 2, 1, 0, 4, 8, 2, 0, 5, 5],
        vec![2, 0, 1, 0, 1, 4, 1, 0, 2, 0xff, 0xff, 0xff, 0x03],
    ]
}
