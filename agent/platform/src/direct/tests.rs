use super::*;

mod support;

use support::{ENGINES, pattern, read};

#[test]
fn reads_back_what_was_written() {
    for engine in ENGINES {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("disk");
        std::fs::write(&path, vec![0; 1 << 20]).expect("made");
        let disk = OpenOptions::new().write(true).engine(engine).open(&path).expect("opens");
        for (offset, len) in [(0, 4096), (8192, 65536), (512, 512), (100, 1000), (65536 - 1, 2), (1 << 19, 1 << 19)] {
            let bytes = pattern(offset, len);
            let (_, result) = disk.write_at_blocking(offset, AlignedBuf::from_slice(&bytes), 0..len);
            result.expect("writes");
            assert_eq!(read(&disk, offset, len), bytes, "{engine:?} {offset}+{len}");
        }
        disk.sync_data_blocking().expect("flushes");
    }
}
