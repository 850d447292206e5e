//! What the kernel says of a disk or partition: the facts that tracking is bound to.

use crate::tracker::TrackerError;
use std::fs;
use std::os::linux::fs::MetadataExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// One tracked range: a whole disk or a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The device's number as the kernel has it in stat(2).
    pub device: u64,
    /// The disk's sequence number: no other disk of this boot has it, nor this one after its medium was changed.
    pub disk_seq: u64,
    /// The disk's sector where the range starts.
    pub first: u64,
    /// Sectors in the range.
    pub sectors: u64,
    /// Sectors in a zone; 0 where the disk has none.
    pub zone_sectors: u64,
    /// True where the disk takes requests (blk-mq), false where its driver takes bios.
    pub requests: bool,
}

impl Facts {
    /// Asks sysfs about the block device at `path`.
    pub fn of(path: &Path) -> Result<Self, TrackerError> {
        let refuse = |why: String| TrackerError::Device { device: path.to_owned(), why };
        let meta = fs::metadata(path).map_err(|e| refuse(e.to_string()))?;
        if !meta.file_type().is_block_device() {
            return Err(refuse("it is not a block device (image files are compared instead: --tracker scan)".into()));
        }
        let facts = Self::of_number(meta.st_rdev()).map_err(refuse)?;
        if facts.sectors == 0 {
            return Err(refuse("it has no sectors: no medium, or a loop device without a file".into()));
        }
        if facts.sectors > sluice_proto::units::DISK_SECTORS_MAX {
            return Err(refuse("it is larger than 64 TiB".into()));
        }
        Ok(facts)
    }

    /// Asks again, by device number.
    pub fn of_number(device: u64) -> Result<Self, String> {
        let (own, disk) = folders(device)?;
        let is_partition = own != disk;
        if number(&disk.join("queue/dax")).unwrap_or(0) != 0 {
            return Err("it can be written through memory (DAX), past the block layer: use --tracker scan".into());
        }
        let zoned = text(&disk.join("queue/zoned")).is_ok_and(|kind| kind != "none");
        Ok(Self {
            device,
            disk_seq: number(&disk.join("diskseq"))?,
            first: if is_partition { number(&own.join("start"))? } else { 0 },
            sectors: number(&own.join("size"))?,
            zone_sectors: if zoned { number(&disk.join("queue/chunk_sectors"))? } else { 0 },
            requests: disk.join("mq").is_dir(),
        })
    }

    /// What differs between the disk tracking began on and the disk that is there now; `None` where nothing does.
    pub fn change_to(&self, now: &Self) -> Option<String> {
        if self.device != now.device {
            return Some("another device".into());
        }
        if self.disk_seq != now.disk_seq {
            return Some("another disk or medium under the same name".into());
        }
        if self.sectors != now.sectors {
            return Some(format!("its size changed from {} to {} sectors", self.sectors, now.sectors));
        }
        if self.first != now.first {
            return Some(format!("the partition moved from sector {} to {}", self.first, now.first));
        }
        (self != now).then(|| "its driver changed".into())
    }
}

/// The folders in sysfs of a device and of the disk that it is, or is a partition of.
fn folders(device: u64) -> Result<(PathBuf, PathBuf), String> {
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let own = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    let own = own.canonicalize().map_err(|e| format!("{}: {e}", own.display()))?;
    let disk = if own.join("partition").exists() { own.parent().unwrap_or(&own).to_owned() } else { own.clone() };
    Ok((own, disk))
}

/// True where the disk surely has nothing in flight at this instant; false where that is not known.
pub(super) fn is_at_rest(device: u64) -> bool {
    let Ok((_, disk)) = folders(device) else { return false };
    // Without statistics nothing is counted.
    let counted = number(&disk.join("queue/iostats")).unwrap_or(0) == 1;
    let in_flight = text(&disk.join("inflight")).unwrap_or_default();
    counted && in_flight.split_whitespace().count() == 2 && in_flight.split_whitespace().all(|count| count == "0")
}

fn text(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).map_err(|e| format!("{}: {e}", path.display()))
}

fn number(path: &Path) -> Result<u64, String> {
    text(path)?.parse().map_err(|e| format!("{}: {e}", path.display()))
}
