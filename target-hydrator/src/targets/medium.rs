//! Block devices change their names from one start of the machine to the next: which one is the target's?
//!
//! An image is told by what is in it and by its inode. A device has neither, and a comparison makes whatever it is given a copy
//! of the source. So the ledger notes what the kernel tells of the medium, and a device that is another one is refused before
//! anything is read or decided. Where the kernel tells nothing (of loop devices, say) its size must be the same.

use super::Place;
use crate::ledger::{DeviceRecord, Ledger, TargetRecord};
use crate::target::{TargetError, TargetErrorKind};
use sluice_platform::device::{DeviceFacts, Medium, is_block_device};
use sluice_proto::ByteCount;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Tells which medium is under a path.
pub type MediumOf = Arc<dyn Fn(&Path) -> io::Result<Medium> + Send + Sync>;

/// The real one.
pub fn asks_the_kernel() -> MediumOf {
    Arc::new(Medium::at)
}

/// The device at the place, as it is to be noted; none where there is no device.
///
/// # Errors
/// `OtherMedium`: it is not the one that the ledger says is the target; or nothing tells, and it has another size.
pub(super) fn device_of(
    place: &Place,
    ledger: Option<&Ledger>,
    medium_of: &MediumOf,
) -> Result<Option<DeviceRecord>, TargetError> {
    // One that was only begun is made again over its beginning, but where another was chosen.
    let record = ledger.and_then(|l| l.target.as_ref()).filter(|r| r.made || Path::new(&r.path) == place.path);
    let then = record.and_then(|record| record.device.clone());
    if !is_block_device(&place.path) {
        return match place.path.exists() && then.is_some() {
            true => Err(other(&place.path, "it is a file now and was a block device")),
            false => Ok(then),
        };
    }
    let medium = medium_of(&place.path).map_err(|e| unknown(&place.path, e))?;
    let now = DeviceRecord { medium, size: DeviceFacts::of(&place.path)?.size };
    if record.is_none() {
        return Ok(Some(now));
    }
    let noted = ledger.and_then(|ledger| ledger.fingerprint);
    if then.is_none() && noted.is_some_and(|noted| noted.inode != 0) && !place.overwrite {
        return Err(other(&place.path, "it is a block device now and was a file"));
    }
    let is_same = is_same(&place.path, then.as_ref(), &now)?;
    let size = then.as_ref().map(|then| then.size).or(noted.map(|noted| ByteCount(noted.size)));
    if !is_same && !place.overwrite && size.is_some_and(|size| size != now.size) {
        let text = format!(
            "it has {} bytes now and had {} when it was written last, and nothing else tells whether it is the same disk (if \
             it is, or may be overwritten, say so: overwrite = true in the configuration, or --yes)",
            now.size,
            size.unwrap_or_default()
        );
        return Err(other(&place.path, &text));
    }
    // What is not told at the moment is not forgotten.
    let mut medium = then.map(|then| then.medium).unwrap_or_default();
    medium.learn(&now.medium);
    Ok(Some(DeviceRecord { medium, ..now }))
}

/// Looks once more at the device of a record that [`device_of`] has filled in: names can change at any moment.
pub(super) fn check_again(record: &TargetRecord, medium_of: &MediumOf) -> Result<(), TargetError> {
    let (path, Some(device)) = (Path::new(&record.path), &record.device) else { return Ok(()) };
    let medium = medium_of(path).map_err(|e| unknown(path, e))?;
    is_same(path, Some(device), &DeviceRecord { medium, ..device.clone() }).map(drop)
}

/// True where it is the same medium for certain, and an error where it is another.
fn is_same(path: &Path, then: Option<&DeviceRecord>, now: &DeviceRecord) -> Result<bool, TargetError> {
    let Some(was) = then.map(|then| &then.medium) else { return Ok(false) };
    let is = &now.medium;
    if was.differs(is) {
        let place = was.find().map(|place| format!(" (that one is {} now)", place.display())).unwrap_or_default();
        return Err(other(path, &format!("it is {is} now, and the target is {was}{place}")));
    }
    Ok(was.is_same(is))
}

fn other(path: &Path, what: &str) -> TargetError {
    let text = format!(
        "target {}: {what}. Nothing is written to it. If the disks have changed their names, name the target by its own below \
         /dev/disk/by-id; to begin with this one as a new target, remove its state folder (the whole source is sent again)",
        path.display()
    );
    TargetError::new(TargetErrorKind::OtherMedium, text)
}

fn unknown(path: &Path, error: io::Error) -> TargetError {
    let text = format!("cannot find out which disk target {} is: {error}", path.display());
    TargetError::caused(TargetErrorKind::Io, text, error)
}
