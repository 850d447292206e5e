//! Whether a block device was written to by anybody at all.

use super::sysfs::{self, DevNo};
use std::fs::File;
use std::os::unix::fs::MetadataExt;

/// What the kernel has counted of an attached device; two that are equal mean that nobody has written to it in between. Writes
/// that somebody else made to a partition's disk, past the partition, are not counted for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activity {
    /// Each attachment of a disk has another number, in one run of the machine.
    attachment: u64,
    /// Sectors written and given back.
    sectors: u64,
}

impl Activity {
    /// Of an open block device; none where the kernel doesn't count.
    pub fn of(device: &File) -> Option<Self> {
        let dev = DevNo::from_raw(device.metadata().ok()?.rdev());
        let disk = sysfs::disk_of(dev);
        let counts = sysfs::text(disk, "queue/iostats").is_some_and(|text| text != "0");
        let attachment = sysfs::text(disk, "diskseq")?.parse().ok()?;
        let stat = sysfs::text(dev, "stat").filter(|_| counts)?;
        // Documentation/block/stat.rst: the seventh field counts sectors written, the fourteenth sectors discarded.
        let field = |n: usize| stat.split_whitespace().nth(n - 1)?.parse::<u64>().ok();
        Some(Self { attachment, sectors: field(7)?.wrapping_add(field(14)?) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Loop, root};
    use std::os::unix::fs::FileExt;

    #[test]
    fn a_write_is_counted_and_a_read_is_not() {
        if !root("the activity of a loop device") {
            return;
        }
        let device = Loop::new(1 << 20, 512);
        let file = File::options().read(true).write(true).open(device.path()).expect("opens");
        let before = Activity::of(&file).expect("counted");
        file.read_exact_at(&mut [0; 4096], 0).expect("read");
        assert_eq!(Activity::of(&file), Some(before));
        file.write_all_at(&[1; 4096], 0).and_then(|()| file.sync_all()).expect("written");
        assert_ne!(Activity::of(&file), Some(before));
    }
}
