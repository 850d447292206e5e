//! What a block becomes does not depend on the buffer that it is laid into.

use super::*;

/// Noise that ends in so many zeros: compressing it saves a few bytes, or none.
fn almost_noise(zeros: usize) -> Vec<u8> {
    let noise = disk();
    let mut data = noise[150_000..150_000 + 512].to_vec();
    data[512 - zeros..].fill(0);
    data
}

#[test]
fn equal_data_becomes_equal_bytes_in_a_buffer_of_any_size() {
    let extents = [Extent::new(8, 1)];
    let mut kinds = Vec::new();
    for zeros in 0..64 {
        let data = almost_noise(zeros);
        let encode = |out: Vec<u8>| {
            let mut encoder = BlockEncoder::new(&data_key(), &header(Suite::Aes256Gcm), SectorCount(1), 1);
            encoder.encode(BlockNo(0), &extents, &data, out).bytes
        };
        let bytes = encode(Vec::new());
        assert_eq!(encode(Vec::with_capacity(1 << 20)), bytes, "{zeros} zeros");
        assert_eq!(encode(vec![7; 300]), bytes, "{zeros} zeros");
        kinds.push(FrameHeader::decode(&bytes[..FRAME_HEADER_BYTES]).unwrap().kind);
    }
    let [stored, compressed] = [FrameKind::Gathered, FrameKind::GatheredZstd];
    assert!(kinds.contains(&stored) && kinds.contains(&compressed), "{kinds:?}");
}
