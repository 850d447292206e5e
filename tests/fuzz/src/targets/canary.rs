//! Targets that must fail: they prove that a panic, and memory by what an input claims, are noticed.

/// What the canary does not bear. A fuzzer that sees coverage finds it byte by byte in seconds; one that doesn't, never.
const SONG: &[u8; 5] = b"PIYO!";

/// Panics at one input of 2^40.
pub fn run(input: &[u8]) {
    let mut heard = 0;
    for (expected, got) in SONG.iter().zip(input) {
        if expected != got {
            break;
        }
        heard += 1;
    }
    assert!(heard < SONG.len(), "the canary was found: this is what it is for");
}

/// Takes the memory that the first four bytes claim.
pub fn memory(input: &[u8]) {
    let Some(claim) = input.first_chunk::<4>() else { return };
    let taken = vec![0_u8; u32::from_le_bytes(*claim) as usize];
    assert!(taken.iter().all(|byte| *byte == 0));
}

/// One byte short of the song, so that blind mutation finds it too.
pub fn seeds() -> Vec<Vec<u8>> {
    vec![b"PIYO".to_vec(), b"PIYO?".to_vec()]
}

/// A modest claim.
pub fn memory_seeds() -> Vec<Vec<u8>> {
    vec![vec![0, 1, 0, 0]]
}
