//! Reading fields from bytes that may be hostile: every take is checked, nothing is allocated by what a length claims.

use crate::error::{FormatError, FormatErrorKind, bad};

/// Takes fields off the front of a slice, little-endian.
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Cursor<'a> {
    /// Reads from `bytes`; `what` names the record in errors.
    pub(crate) fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], FormatError> {
        if self.rest.len() < len {
            return bad(FormatErrorKind::Truncated, format!("{}: {len} more bytes expected", self.what));
        }
        let (head, rest) = self.rest.split_at(len);
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let mut out = [0; N];
        out.copy_from_slice(self.bytes(N)?);
        Ok(out)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, FormatError> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, FormatError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, FormatError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, FormatError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Takes `len` bytes that a writer leaves at zero, so that a later version may use them.
    pub(crate) fn reserved(&mut self, len: usize) -> Result<(), FormatError> {
        match self.bytes(len)?.iter().all(|b| *b == 0) {
            true => Ok(()),
            false => bad(FormatErrorKind::Impossible, format!("{}: reserved bytes are not zero", self.what)),
        }
    }

    /// The record must end here.
    pub(crate) fn end(self) -> Result<(), FormatError> {
        match self.rest.is_empty() {
            true => Ok(()),
            false => bad(FormatErrorKind::Impossible, format!("{}: {} bytes too many", self.what, self.rest.len())),
        }
    }

    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }
}

/// The first eight bytes of the BLAKE3 of `bytes`: the checksum of headers, against accidents, not against forgery.
pub(crate) fn checksum(bytes: &[u8]) -> [u8; 8] {
    let mut out = [0; 8];
    out.copy_from_slice(&blake3::hash(bytes).as_bytes()[..8]);
    out
}
