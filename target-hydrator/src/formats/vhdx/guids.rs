//! The ids that MS-VHDX gives to regions and metadata items, and new ones.

use sluice_proto::env::Entropy;
use uuid::{Uuid, uuid};

/// The region of the block allocation table (section 2.2.3.2).
pub(super) const BAT_REGION: Uuid = uuid!("2dc27766-f623-4200-9d64-115e9bfd4a08");
/// The region of the metadata (section 2.2.3.2).
pub(super) const METADATA_REGION: Uuid = uuid!("8b7ca206-4790-4b9a-b8fe-575f050f886e");
/// Block size and kind (section 2.6.2.1).
pub(super) const FILE_PARAMETERS: Uuid = uuid!("caa16737-fa36-4d43-b3b6-33f0aa44e76b");
/// Bytes of the disk (section 2.6.2.2).
pub(super) const VIRTUAL_DISK_SIZE: Uuid = uuid!("2fa54224-cd1b-4876-b211-5dbed83bf4b8");
/// The disk's id as SCSI page 83 gives it to the guest (section 2.6.2.3).
pub(super) const VIRTUAL_DISK_ID: Uuid = uuid!("beca12ab-b2e6-4523-93ef-c309e000c746");
/// 512 or 4096 (section 2.6.2.4).
pub(super) const LOGICAL_SECTOR: Uuid = uuid!("8141bf1d-a96f-4709-ba47-f233a8faab5f");
/// 512 or 4096 (section 2.6.2.5).
pub(super) const PHYSICAL_SECTOR: Uuid = uuid!("cda348c7-445d-4471-9cc9-e9885251c556");
/// A differencing disk's parent (section 2.6.2.6).
pub(super) const PARENT_LOCATOR: Uuid = uuid!("a8d35f2d-b30b-454d-abf7-d3d84834ab0c");

/// A new random id.
pub(in crate::formats) fn new_uuid(ids: &dyn Entropy) -> Uuid {
    let mut bytes = [0; 16];
    ids.fill(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

/// The id at `at`, as this format stores ids; the caller knows that the bytes are there.
pub(super) fn get(bytes: &[u8], at: usize) -> Uuid {
    let mut raw = [0; 16];
    raw.copy_from_slice(&bytes[at..at + 16]);
    Uuid::from_bytes_le(raw)
}

/// Stores the id at `at`.
pub(super) fn put(bytes: &mut [u8], at: usize, id: Uuid) {
    bytes[at..at + 16].copy_from_slice(&id.to_bytes_le());
}
