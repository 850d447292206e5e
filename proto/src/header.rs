//! The 128-byte header that every stored object begins with.

use crate::cursor::{Cursor, checksum};
use crate::error::{FormatError, FormatErrorKind, bad};
use crate::units::{CycleNo, DiskId, Generation};

/// Bytes in the header.
pub const HEADER_BYTES: usize = 128;

/// What an object is, by its magic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    /// Frames of a cycle.
    Segment,
    /// The commit of a cycle.
    Manifest,
    /// Digests of a target's grains.
    Digests,
}

impl ObjectKind {
    const ALL: [Self; 3] = [Self::Segment, Self::Manifest, Self::Digests];

    fn magic(self) -> [u8; 8] {
        *match self {
            Self::Segment => b"SLUICSEG",
            Self::Manifest => b"SLUICMAN",
            Self::Digests => b"SLUICDIG",
        }
    }

    /// The version that this Sluice writes; it reads all up to it. Change log: 1, the first; segments 2, blocks in one
    /// frame.
    pub fn version(self) -> u16 {
        match self {
            Self::Segment => 2,
            Self::Manifest | Self::Digests => 1,
        }
    }

    /// What the object with these first bytes is, if it is one of ours.
    pub fn recognise(bytes: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| bytes.starts_with(&kind.magic()))
    }
}

/// How payloads are sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// Neither compressed nor encrypted: only between agent and hydrator in one process, where no byte leaves it.
    Plain,
    /// zstd where it pays, then AES-256-GCM.
    Aes256Gcm,
}

impl Suite {
    fn code(self) -> u8 {
        match self {
            Self::Plain => 0,
            Self::Aes256Gcm => 1,
        }
    }
}

/// What the keys of an object are derived from, and what its header says in the clear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the object is.
    pub kind: ObjectKind,
    /// How it is sealed.
    pub suite: Suite,
    /// The disk it belongs to.
    pub disk: DiskId,
    /// The generation whose data key seals it.
    pub generation: Generation,
    /// The cycle it belongs to.
    pub cycle: CycleNo,
    /// Fresh random bytes of each attempt: the key is derived with them, so a repeated attempt never repeats a nonce.
    pub salt: [u8; 32],
    /// Three numbers whose meaning is the object kind's own.
    pub fields: [u64; 3],
}

impl Header {
    /// The header's 128 bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(&self.kind.magic());
        out.extend_from_slice(&self.kind.version().to_le_bytes());
        out.extend_from_slice(&[self.suite.code(), 0]);
        out.extend_from_slice(&(HEADER_BYTES as u32).to_le_bytes());
        out.extend_from_slice(&self.disk.0);
        out.extend_from_slice(&self.generation.0.to_le_bytes());
        out.extend_from_slice(&self.cycle.0.to_le_bytes());
        out.extend_from_slice(&self.salt);
        for field in self.fields {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.resize(HEADER_BYTES - 8, 0);
        out.extend_from_slice(&checksum(&out));
        let mut bytes = [0; HEADER_BYTES];
        bytes.copy_from_slice(&out);
        bytes
    }

    /// Reads the header of an object of `kind` off the front of `bytes`.
    ///
    /// # Errors
    /// Another kind, a newer version, a changed byte, fewer than 128 bytes.
    pub fn decode(kind: ObjectKind, bytes: &[u8]) -> Result<Self, FormatError> {
        let what = match kind {
            ObjectKind::Segment => "segment header",
            ObjectKind::Manifest => "manifest header",
            ObjectKind::Digests => "digests header",
        };
        let mut c = Cursor::new(bytes, what);
        if c.array::<8>()? != kind.magic() {
            return bad(FormatErrorKind::NotThis, what);
        }
        let version = c.u16()?;
        if version > kind.version() {
            let own = kind.version();
            return bad(FormatErrorKind::Newer, format!("{what}: version {version}, this one reads {own}"));
        }
        if version == 0 {
            return bad(FormatErrorKind::Impossible, format!("{what}: version 0"));
        }
        if bytes.len() < HEADER_BYTES {
            return bad(FormatErrorKind::Truncated, what);
        }
        if checksum(&bytes[..HEADER_BYTES - 8]) != bytes[HEADER_BYTES - 8..HEADER_BYTES] {
            return bad(FormatErrorKind::Forged, format!("{what}: checksum"));
        }
        let suite = match c.u8()? {
            0 => Suite::Plain,
            1 => Suite::Aes256Gcm,
            other => return bad(FormatErrorKind::Suite, format!("{what}: suite {other}")),
        };
        c.reserved(1)?;
        if c.u32()? as usize != HEADER_BYTES {
            return bad(FormatErrorKind::Impossible, format!("{what}: header length"));
        }
        let header = Self {
            kind,
            suite,
            disk: DiskId(c.array()?),
            generation: Generation(c.u64()?),
            cycle: CycleNo(c.u64()?),
            salt: c.array()?,
            fields: [c.u64()?, c.u64()?, c.u64()?],
        };
        c.reserved(HEADER_BYTES - 8 - 112)?;
        Ok(header)
    }

    /// The object must be of this disk, generation and cycle: a stored object may have been swapped for another.
    ///
    /// # Errors
    /// `Misplaced`, with both names.
    pub fn expect(&self, disk: DiskId, generation: Generation, cycle: CycleNo) -> Result<(), FormatError> {
        if (self.disk, self.generation, self.cycle) == (disk, generation, cycle) {
            return Ok(());
        }
        bad(
            FormatErrorKind::Misplaced,
            format!(
                "{} of {} {:?} {:?} where that of {disk} {generation:?} {cycle:?} was expected",
                self.kind_name(),
                self.disk,
                self.generation,
                self.cycle
            ),
        )
    }

    fn kind_name(&self) -> &'static str {
        match self.kind {
            ObjectKind::Segment => "segment",
            ObjectKind::Manifest => "manifest",
            ObjectKind::Digests => "digests",
        }
    }
}
