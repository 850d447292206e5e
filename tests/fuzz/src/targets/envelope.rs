//! Data keys on their way to the hydrator, and keys as text and bytes.

use crate::fields::Fields;
use crate::sealed::DISK;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use sluice_proto::keys::{HydratorKey, KeyEnvelope, public_key_from_text, public_key_to_text};
use sluice_proto::{Digest, Generation};
use std::sync::OnceLock;

const HYDRATOR: &[u8] = include_bytes!("../../../../proto/samples/v1-hydrator.key");
const SAMPLE: &[u8] = include_bytes!("../../../../proto/samples/v1-key-envelope.json");

/// Reads and opens envelopes: as JSON, with fields that are signed as they come, and keys of any bytes.
pub fn run(input: &[u8]) {
    let Some((choice, rest)) = input.split_first() else { return };
    match choice % 4 {
        0 => json(rest),
        1 => signed(&mut Fields::of(rest)),
        2 => {
            if let Ok(key) = HydratorKey::from_bytes(rest) {
                assert_eq!(*key.expose(), *rest);
                let sample: KeyEnvelope = serde_json::from_slice(SAMPLE).expect("the sample");
                let own = KeyEnvelope { hydrator: Digest::of(key.public()), ..sample };
                // The hydrator's name is signed. Some bits of a secret mean nothing (RFC 7748, section 5), so that the same
                // key may have other bytes.
                let is_the_samples = key.public() == hydrator().public();
                assert_eq!(own.open(&key, None).is_ok(), is_the_samples, "opened for another hydrator");
            }
        }
        _ => {
            if let Ok(key) = public_key_from_text(&String::from_utf8_lossy(rest)) {
                assert_eq!(public_key_from_text(&public_key_to_text(&key)), Ok(key));
            }
        }
    }
}

fn json(bytes: &[u8]) {
    let Ok(envelope) = serde_json::from_slice::<KeyEnvelope>(bytes) else { return };
    let again = serde_json::to_vec(&envelope).expect("an envelope as JSON");
    assert_eq!(serde_json::from_slice::<KeyEnvelope>(&again).expect("our own JSON"), envelope);
    let opened = envelope.open(hydrator(), Some(&envelope.signer));
    let sample: KeyEnvelope = serde_json::from_slice(SAMPLE).expect("the sample");
    // Whatever was changed, the seals tell.
    assert_eq!(opened.is_ok(), envelope == sample, "an envelope that nobody made was opened");
}

fn hydrator() -> &'static HydratorKey {
    static KEY: OnceLock<HydratorKey> = OnceLock::new();
    KEY.get_or_init(|| HydratorKey::from_bytes(HYDRATOR).expect("the sample's key"))
}

/// What an agent with a key of its own may send: the signature is right whatever it is over.
fn signed(fields: &mut Fields<'_>) {
    static SIGNER: OnceLock<Ed25519KeyPair> = OnceLock::new();
    let signer = SIGNER.get_or_init(|| Ed25519KeyPair::from_seed_unchecked(&[3; 32]).expect("a seed of 32 bytes"));
    let mut envelope = KeyEnvelope {
        disk: DISK,
        generation: Generation(fields.number()),
        hydrator: Digest::of(hydrator().public()),
        encapsulated: fields.counted().to_vec(),
        sealed: fields.counted().to_vec(),
        signer: signer.public_key().as_ref().to_vec(),
        signature: Vec::new(),
    };
    let mut over = b"sluice v1 key envelope".to_vec();
    over.extend_from_slice(&envelope.disk.0);
    over.extend_from_slice(&envelope.generation.0.to_le_bytes());
    for field in [&envelope.hydrator.0[..], &envelope.encapsulated, &envelope.sealed, &envelope.signer] {
        over.extend_from_slice(&(field.len() as u64).to_le_bytes());
        over.extend_from_slice(field);
    }
    envelope.signature = signer.sign(&over).as_ref().to_vec();
    let sample: KeyEnvelope = serde_json::from_slice(SAMPLE).expect("the sample");
    let real = (envelope.generation, &envelope.encapsulated, &envelope.sealed)
        == (sample.generation, &sample.encapsulated, &sample.sealed);
    assert_eq!(envelope.open(hydrator(), None).is_ok(), real, "a key that nobody wrapped was unwrapped");
}

/// The sample in both forms, and keys.
pub fn seeds() -> Vec<Vec<u8>> {
    let sample: KeyEnvelope = serde_json::from_slice(SAMPLE).expect("the sample");
    let counted = |bytes: &[u8]| [&(bytes.len() as u16).to_le_bytes()[..], bytes].concat();
    let fields = [vec![1, 2], counted(&sample.encapsulated), counted(&sample.sealed)].concat();
    let text = public_key_to_text(&HYDRATOR[32..]);
    vec![
        [&[0][..], SAMPLE].concat(),
        fields,
        vec![1, 2, 0, 0, 0, 0],
        [&[2][..], HYDRATOR].concat(),
        [&[3][..], text.as_bytes()].concat(),
    ]
}
