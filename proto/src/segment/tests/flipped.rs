//! What stands at a segment's end is proven like the rest.

use super::*;

#[test]
fn a_flipped_bit_in_a_chaining_value_is_noticed() {
    let mut plan = SectorBitmap::new();
    plan.set(Extent::new(130, 300));
    for suite in [Suite::Plain, Suite::Aes256Gcm] {
        let (bytes, cvs) = encode(&plan, &disk(), suite);
        // They are the last in a segment.
        for at in bytes.len() - cvs.len() * DIGEST_BYTES..bytes.len() {
            let mut harmed = bytes.clone();
            harmed[at] ^= 1;
            let error = decode(&harmed, &data_key(), plan.count()).unwrap_err();
            assert_eq!(error.kind, FormatErrorKind::Forged, "{suite:?}, byte {at}: {error}");
        }
    }
}
