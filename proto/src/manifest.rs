//! The manifest: what a cycle consists of. Written last; its presence commits the cycle.
//!
//! Layout: header (128 bytes; its fields are the length of the body, the kind, and consistency and tracker), the body
//! in the clear, and sealed behind it the digests. The seal covers header and body, so that whoever holds the cache can
//! read which sectors changed, as he can from the segments, but change nothing.

use crate::bitmap::SectorBitmap;
use crate::cursor::Cursor;
use crate::cycle::{Consistency, CycleKind, TrackerKind};
use crate::error::{FormatError, FormatErrorKind, bad};
use crate::header::{HEADER_BYTES, Header, ObjectKind, Suite};
use crate::keys::{DataKey, Part, TAG_BYTES};
use crate::segment::{SEGMENT_BLOCKS_MAX, SEGMENT_BYTES_MAX, segment_name};
use crate::stream::{Digest, block_count};
use crate::units::{BlockNo, ByteCount, CycleNo, DISK_SECTORS_MAX, DiskId, Generation, SECTOR_BYTES, SectorCount};
use serde::{Deserialize, Serialize};

/// The name of the manifest within its cycle's folder.
pub const MANIFEST_NAME: &str = "manifest";
/// The largest manifest that a reader accepts. An entry has 88 bytes and a segment 4 MiB at least, so that this is enough for
/// 46 TiB of what does not compress at all, and for the largest disk where it compresses by a third.
pub const MANIFEST_BYTES_MAX: u64 = 1 << 30;

/// The folder of a cycle in the cache store, without a slash at its end.
pub fn cycle_folder(disk: DiskId, generation: Generation, cycle: CycleNo) -> String {
    format!("{disk}/g{:08}/c{:08}", generation.0, cycle.0)
}

/// A segment of a committed cycle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentEntry {
    /// Its first block.
    pub first: BlockNo,
    /// How many blocks it holds.
    pub blocks: u64,
    /// Its length in bytes.
    pub len: ByteCount,
    /// BLAKE3 of the object as stored, so that damage is found without the key.
    pub hash: Digest,
    /// The salt of the attempt that made it; the first eight bytes are in its name.
    pub salt: Digest,
}

impl SegmentEntry {
    /// The segment's name within its cycle's folder.
    pub fn name(&self) -> String {
        segment_name(self.first, &self.salt.0)
    }
}

/// The cycle before a cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Previous {
    /// Its number.
    pub cycle: CycleNo,
    /// BLAKE3 of its manifest: cycles form a chain that can't be shortened or reordered.
    pub manifest: Digest,
}

/// What a cycle consists of and what it must come to.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// The disk.
    pub disk: DiskId,
    /// The generation whose data key seals the cycle.
    pub generation: Generation,
    /// The cycle's number.
    pub cycle: CycleNo,
    /// How the payloads are sealed.
    pub suite: Suite,
    /// Fresh random bytes that the manifest's key is derived with.
    pub salt: [u8; 32],
    /// Why the cycle was run.
    pub kind: CycleKind,
    /// What can be said of the instant that the image shows.
    pub consistency: Consistency,
    /// Who noted the dirty sectors.
    pub tracker: TrackerKind,
    /// The source's true size in bytes; targets are padded beyond it.
    pub disk_bytes: ByteCount,
    /// The last verified cycle before this one; `None` before the first.
    pub previous: Option<Previous>,
    /// The planned sectors: those that the segments carry, all of them and no other.
    pub plan: SectorBitmap,
    /// The segments, ascending, that cover every block of the stream once.
    pub segments: Vec<SegmentEntry>,
    /// BLAKE3 of the stream.
    pub digest: Digest,
    /// BLAKE3 of the whole source, in a final cycle.
    pub whole_disk: Option<Digest>,
    /// The comparison by which a resync was planned: which of several, as the target's digests name it. Only where there is no
    /// [`Self::whole_disk`]; none is by an agent that carries what earlier cycles had planned all the same.
    pub comparison: Option<Digest>,
}

const SEAL: Part = Part { block: u64::MAX, frame: 0 };
const ENTRY_BYTES: usize = 8 + 8 + 8 + 32 + 32;
/// The digests that are sealed.
const TAIL_BYTES: usize = 32 + 1 + 32;
/// What the last of them is.
const NOTHING: u8 = 0;
const WHOLE_DISK: u8 = 1;
const COMPARISON: u8 = 2;

impl Manifest {
    /// The manifest's bytes under the generation's data key.
    pub fn encode(&self, key: &DataKey) -> Vec<u8> {
        let bitmap = self.plan.encode();
        let bytes = HEADER_BYTES + 72 + bitmap.len() + self.segments.len() * ENTRY_BYTES + TAIL_BYTES + TAG_BYTES;
        // In place: that of a large disk is too large to be copied.
        let mut out = Vec::with_capacity(bytes);
        out.extend_from_slice(&[0; HEADER_BYTES]);
        out.extend_from_slice(&self.disk_bytes.0.to_le_bytes());
        let previous = self.previous.unwrap_or(Previous { cycle: CycleNo(0), manifest: Digest([0; 32]) });
        out.push(u8::from(self.previous.is_some()));
        out.extend_from_slice(&[0; 7]);
        out.extend_from_slice(&previous.cycle.0.to_le_bytes());
        out.extend_from_slice(&previous.manifest.0);
        out.extend_from_slice(&(bitmap.len() as u64).to_le_bytes());
        out.extend_from_slice(&bitmap);
        out.extend_from_slice(&(self.segments.len() as u64).to_le_bytes());
        for segment in &self.segments {
            out.extend_from_slice(&segment.first.0.to_le_bytes());
            out.extend_from_slice(&segment.blocks.to_le_bytes());
            out.extend_from_slice(&segment.len.0.to_le_bytes());
            out.extend_from_slice(&segment.hash.0);
            out.extend_from_slice(&segment.salt.0);
        }
        let header = self.header((out.len() - HEADER_BYTES) as u64);
        out[..HEADER_BYTES].copy_from_slice(&header.encode());
        let mut tail = Vec::with_capacity(TAIL_BYTES + TAG_BYTES);
        tail.extend_from_slice(&self.digest.0);
        let (what, last) = match (self.whole_disk, self.comparison) {
            (Some(whole), _) => (WHOLE_DISK, whole),
            (None, Some(comparison)) => (COMPARISON, comparison),
            (None, None) => (NOTHING, Digest([0; 32])),
        };
        tail.push(what);
        tail.extend_from_slice(&last.0);
        key.object_key(&header).seal(SEAL, &out, &mut tail, 0);
        out.extend_from_slice(&tail);
        if self.suite == Suite::Plain {
            // Without a seal, a hash stands in its place: against accidents only.
            let hash = blake3::hash(&out);
            out.extend_from_slice(&hash.as_bytes()[..TAG_BYTES]);
        }
        out
    }

    fn header(&self, body_len: u64) -> Header {
        Header {
            kind: ObjectKind::Manifest,
            suite: self.suite,
            disk: self.disk,
            generation: self.generation,
            cycle: self.cycle,
            salt: self.salt,
            fields: [body_len, self.kind.code(), self.consistency.code() | self.tracker.code() << 8],
        }
    }

    /// Opens a manifest with the key. Structure, seal and coverage of the stream are all checked.
    ///
    /// # Errors
    /// Any [`FormatError`].
    pub fn decode(bytes: &[u8], key: &DataKey) -> Result<Self, FormatError> {
        let claimed = ClaimedManifest::parse(bytes)?;
        let (signed, mut tail) = bytes.split_at(claimed.sealed_at);
        if claimed.manifest.suite == Suite::Plain {
            let (body, hash) = bytes.split_at(bytes.len() - TAG_BYTES);
            if blake3::hash(body).as_bytes()[..TAG_BYTES] != *hash {
                return bad(FormatErrorKind::Forged, "manifest: checksum");
            }
            tail = &tail[..tail.len() - TAG_BYTES];
        }
        let header = Header::decode(ObjectKind::Manifest, bytes)?;
        let mut opened = Vec::new();
        key.object_key(&header).open(SEAL, signed, tail, &mut opened, "manifest")?;
        let mut c = Cursor::new(&opened, "manifest digests");
        let digest = Digest(c.array()?);
        let what = c.u8()?;
        let last = Digest(c.array()?);
        c.end()?;
        if what > COMPARISON {
            return Err(unknown("digest"));
        }
        let last_if = |is| (what == is).then_some(last);
        Ok(Self { digest, whole_disk: last_if(WHOLE_DISK), comparison: last_if(COMPARISON), ..claimed.manifest })
    }
}

/// A manifest read without its key: everything but the digests, believed by nobody who has the key.
#[derive(Clone, Debug)]
pub struct ClaimedManifest {
    /// What it says; both digests are blank.
    pub manifest: Manifest,
    sealed_at: usize,
}

impl ClaimedManifest {
    /// Reads the clear part and checks that the segments cover the plan's stream exactly once.
    ///
    /// # Errors
    /// Any [`FormatError`] but those that need the key.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let header = Header::decode(ObjectKind::Manifest, bytes)?;
        let [body_len, kind, how] = header.fields;
        // Both suites end in the sealed digests and what proves them.
        let tail = TAIL_BYTES + TAG_BYTES;
        let body_end = (HEADER_BYTES as u64).checked_add(body_len);
        if body_end.and_then(|end| end.checked_add(tail as u64)) != Some(bytes.len() as u64) {
            return bad(FormatErrorKind::Truncated, "manifest: does not end where its header says");
        }
        let sealed_at = bytes.len() - tail;
        let mut c = Cursor::new(&bytes[HEADER_BYTES..sealed_at], "manifest");
        let disk_bytes = ByteCount(c.u64()?);
        let sectors = disk_bytes.sectors_ceil();
        if sectors.0 == 0 || sectors.0 > DISK_SECTORS_MAX {
            return bad(FormatErrorKind::Impossible, format!("manifest: a disk of {disk_bytes} bytes"));
        }
        let has_previous = c.u8()? != 0;
        c.reserved(7)?;
        let previous = Previous { cycle: CycleNo(c.u64()?), manifest: Digest(c.array()?) };
        let bitmap_len = c.u64()?;
        if bitmap_len > c.left() as u64 {
            return bad(FormatErrorKind::Truncated, "manifest: bitmap");
        }
        let plan = SectorBitmap::decode(c.bytes(bitmap_len as usize)?, sectors)
            .or_else(|e| bad(FormatErrorKind::Impossible, format!("manifest: bitmap: {e}")))?;
        let segments = Self::segments(&mut c)?;
        c.end()?;
        check_coverage(&segments, plan.count())?;
        let manifest = Manifest {
            disk: header.disk,
            generation: header.generation,
            cycle: header.cycle,
            suite: header.suite,
            salt: header.salt,
            kind: CycleKind::from_code(kind).ok_or_else(|| unknown("kind"))?,
            consistency: Consistency::from_code(how & 0xff).ok_or_else(|| unknown("consistency"))?,
            tracker: TrackerKind::from_code(how >> 8).ok_or_else(|| unknown("tracker"))?,
            disk_bytes,
            previous: has_previous.then_some(previous),
            plan,
            segments,
            digest: Digest([0; 32]),
            whole_disk: None,
            comparison: None,
        };
        Ok(Self { manifest, sealed_at })
    }

    fn segments(c: &mut Cursor<'_>) -> Result<Vec<SegmentEntry>, FormatError> {
        let count = c.u64()?;
        if count > (c.left() / ENTRY_BYTES) as u64 {
            return bad(FormatErrorKind::Truncated, "manifest: segments");
        }
        let mut segments = Vec::with_capacity(count as usize);
        for _ in 0..count {
            segments.push(SegmentEntry {
                first: BlockNo(c.u64()?),
                blocks: c.u64()?,
                len: ByteCount(c.u64()?),
                hash: Digest(c.array()?),
                salt: Digest(c.array()?),
            });
        }
        Ok(segments)
    }
}

fn unknown(what: &str) -> FormatError {
    FormatError::new(FormatErrorKind::Impossible, format!("manifest: {what} that this version does not know"))
}

/// The segments must cover blocks 0 to the stream's last, each once and in order.
fn check_coverage(segments: &[SegmentEntry], stream: SectorCount) -> Result<(), FormatError> {
    let mut next = 0u64;
    for segment in segments {
        if segment.first.0 != next || segment.blocks == 0 || segment.blocks > SEGMENT_BLOCKS_MAX {
            return bad(
                FormatErrorKind::Impossible,
                format!("manifest: {:?} where block {next} was due", segment.first),
            );
        }
        if segment.len.0 > SEGMENT_BYTES_MAX || segment.len.0 < SECTOR_BYTES / 4 {
            return bad(FormatErrorKind::Impossible, format!("manifest: a segment of {} bytes", segment.len));
        }
        next += segment.blocks;
    }
    match next == block_count(stream) {
        true => Ok(()),
        false => bad(FormatErrorKind::Impossible, format!("manifest: {next} blocks for {stream} sectors")),
    }
}

#[cfg(test)]
mod tests;
