use super::*;

fn records(n: usize) -> Vec<Vec<u8>> {
    (0..n).map(|i| (0..i * 7 % 40).map(|b| (b + i) as u8).collect()).collect()
}

/// A log with these records; `sync_after` of them were followed by a flush.
fn written(path: &Path, records: &[Vec<u8>], sync_after: usize) -> Vec<u8> {
    let (mut log, _) = AppendLog::open(path).expect("opens");
    for (i, record) in records.iter().enumerate() {
        log.append(record).expect("appends");
        if i < sync_after {
            log.sync().expect("flushes");
        }
    }
    std::fs::read(path).expect("read")
}

/// How many of the records lie whole within `len` bytes.
fn whole_within(records: &[Vec<u8>], len: u64) -> usize {
    let mut end = HEADER_BYTES;
    records
        .iter()
        .take_while(|r| {
            end += (RECORD_HEADER_BYTES + r.len()) as u64;
            end <= len
        })
        .count()
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_off() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log");
    let records = records(6);
    let bytes = written(&path, &records, 3);
    for len in 0..bytes.len() {
        // Cut short, and cut short with a stretch of zeros behind, as a file system may leave it.
        for zeros in [0, 1, 50] {
            let mut torn = bytes[..len].to_vec();
            torn.resize(len + zeros, 0);
            if len < HEADER_BYTES as usize && torn.len() > HEADER_BYTES as usize {
                continue; // Nothing is appended before the header is flushed.
            }
            std::fs::write(&path, &torn).expect("written");
            let (mut log, found) = AppendLog::open(&path).unwrap_or_else(|e| panic!("cut at {len}+{zeros}: {e}"));
            let whole = whole_within(&records, len as u64);
            assert_eq!(found.records, records[..whole], "cut at {len}+{zeros}");
            log.append(b"goes on").expect("appends");
            drop(log);
            let (_, again) = AppendLog::open(&path).expect("opens");
            assert_eq!(again.records.len(), whole + 1);
            assert_eq!((again.records[whole].as_slice(), again.cut_bytes), (&b"goes on"[..], 0));
        }
    }
}

#[test]
fn a_flipped_bit_is_damage_where_flushed_and_a_torn_tail_where_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log");
    let records = records(6);
    let bytes = written(&path, &records, 3);
    // The last record that tells of a flush is the fourth; it vouches for the first three.
    let vouched = (0..bytes.len() as u64).find(|len| whole_within(&records, *len) == 3).expect("three are in it");
    for at in HEADER_BYTES..bytes.len() as u64 {
        let mut flipped = bytes.clone();
        flipped[at as usize] ^= 0x10;
        std::fs::write(&path, &flipped).expect("written");
        let opened = AppendLog::open(&path);
        if at < vouched {
            let error = opened.expect_err("damage behind a flush").to_string();
            assert!(error.contains("is damaged at byte"), "{error}");
        } else {
            let (_, found) = opened.expect("an unflushed tail may be torn");
            assert_eq!(found.records, records[..whole_within(&records, at)], "flipped at {at}");
        }
    }
}

/// Places that all look like the heads of records, as no crash leaves them: each would be hashed to the log's end.
#[test]
fn a_tail_that_looks_like_records_throughout_is_damage_and_soon_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log");
    let mut bytes = written(&path, &records(1), 1);
    let head = [&(1_u32 << 19).to_le_bytes()[..], &64_u64.to_le_bytes()].concat();
    (0..100_000).for_each(|_| bytes.extend_from_slice(&head));
    std::fs::write(&path, &bytes).expect("written");
    let file = File::open(&path).expect("opens");
    let mut window = Window::new(&file, bytes.len() as u64);
    let end = window.records(|_| {}).expect("reads");
    assert!(window.vouches_for_more_than(end).expect("reads"));
    assert!(matches!(AppendLog::open(&path), Err(LogError::Damaged { .. })));
}

#[test]
fn foreign_files_are_refused_and_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log");
    for bytes in [&b"hello"[..], b"SLUICLOG\x02\0\0\0....record", &[1; 4096]] {
        std::fs::write(&path, bytes).expect("written");
        let error = AppendLog::open(&path).expect_err("foreign").to_string();
        assert!(error.contains("is not a sluice journal"), "{error}");
        assert_eq!(std::fs::read(&path).expect("read"), bytes);
    }
}

#[test]
fn truncate_and_rewrite_forget_the_old_records() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log");
    written(&path, &records(9), 9);
    let (mut log, _) = AppendLog::open(&path).expect("opens");
    log.rewrite([&b"kept"[..]]).expect("rewritten");
    log.append(b"new").expect("appends");
    let (mut log, found) = AppendLog::open(&path).expect("opens");
    assert_eq!(found.records, [b"kept".to_vec(), b"new".to_vec()]);
    log.truncate().expect("emptied");
    assert_eq!(log.size_bytes(), HEADER_BYTES);
    assert_eq!(AppendLog::open(&path).expect("opens").1, Recovered::default());
    assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 1);
}

#[test]
fn a_record_too_large_is_refused_and_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log");
    let (mut log, _) = AppendLog::open(&path).expect("opens");
    let error = log.append(&vec![0; RECORD_BYTES_MAX + 1]).expect_err("too large");
    assert!(matches!(error, LogError::TooLarge { .. }));
    log.append(b"fine").expect("appends");
    assert_eq!(AppendLog::open(&path).expect("opens").1.records, [b"fine".to_vec()]);
}

#[test]
fn records_larger_than_the_window_and_many_small_ones_are_read_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log");
    let (mut log, _) = AppendLog::open(&path).expect("opens");
    let sizes =
        [5, WINDOW_BYTES - 30, WINDOW_BYTES, 3 * WINDOW_BYTES + 7, 0, 100, WINDOW_BYTES / 2, WINDOW_BYTES / 2 + 1];
    let records: Vec<Vec<u8>> = (1..).zip(sizes).map(|(n, size)| vec![n; size]).collect();
    records.iter().for_each(|record| log.append(record).expect("appends"));
    let read = |log: &AppendLog| {
        let mut found = Vec::new();
        log.for_each(|record| found.push(record.to_vec())).map(|()| found)
    };
    assert_eq!(read(&log).expect("read"), records);
    assert_eq!(AppendLog::open(&path).expect("opens").1.records, records);
    // Behind its back: what it has appended must be there.
    let end = log.size_bytes();
    log.file.write_all_at(b"?", end - 1).expect("written");
    assert!(matches!(read(&log), Err(LogError::Damaged { .. })));
}
