//! Frames that no writer makes, laid out as FORMAT.md says.

use sluice_proto::{Digest, Extent};

const STORED: u8 = 1;
const ZSTD: u8 = 2;

/// A frame before it is sealed.
pub(crate) struct Frame {
    kind: u8,
    extent: Extent,
    pub payload: Vec<u8>,
}

impl Frame {
    /// Bytes as they are, with their hash.
    pub fn stored(extent: Extent) -> Self {
        let bytes = vec![7; extent.bytes().0 as usize];
        Self { kind: STORED, extent, payload: [&Digest::of(&bytes).0[..], &bytes].concat() }
    }

    /// 256 MiB for whatever it says to hold.
    pub fn bomb(extent: Extent) -> Self {
        let inflates = zstd::bulk::compress(&vec![7; 256 << 20], 1).expect("compressed");
        Self { kind: ZSTD, extent, payload: [&[0; 32][..], &inflates].concat() }
    }

    /// What stands before its payload, which has `sealed` bytes then.
    pub fn head(&self, number: u32, sealed: usize) -> Vec<u8> {
        let mut head = number.to_le_bytes().to_vec();
        head.extend_from_slice(&[self.kind, 0, 0, 0]);
        head.extend_from_slice(&self.extent.start.0.to_le_bytes());
        head.extend_from_slice(&self.extent.len.0.to_le_bytes());
        head.extend_from_slice(&(sealed as u32).to_le_bytes());
        head.extend_from_slice(&[0; 4]);
        head
    }
}
