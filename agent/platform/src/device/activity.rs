//! Whether a block device was written to by anybody at all.

use super::sysfs::{self, DevNo};
use crate::system::boot_id;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::unix::fs::MetadataExt;

/// What the kernel has counted of an attached device; two that are equal mean that nobody has written to it in between. Writes
/// that somebody else made to a partition's disk, past the partition, are not counted for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Activity {
    /// The run of the machine: the first half of its name.
    boot: u64,
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
        let boot = u64::from_be_bytes(*boot_id().ok()?.first_chunk()?);
        let field = |n: usize| stat.split_whitespace().nth(n - 1)?.parse::<u64>().ok();
        Some(Self { boot, attachment, sectors: field(7)?.wrapping_add(field(14)?) })
    }

    /// True where somebody has written to the device between the two: not where it was attached anew, its partitions were read
    /// anew, or the machine started again, as the kernel counts from zero then.
    pub fn shows_writes_since(&self, before: &Self) -> bool {
        (self.boot, self.attachment) == (before.boot, before.attachment) && self.sectors > before.sectors
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
        let after = Activity::of(&file).expect("counted");
        assert!(after.shows_writes_since(&before) && !before.shows_writes_since(&before));
        for other in [Activity { boot: 1, ..after }, Activity { attachment: 0, ..after }] {
            assert!(!other.shows_writes_since(&before), "it was counted anew");
        }
    }
}
