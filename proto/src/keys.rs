//! Data keys: made at the source, wrapped for the hydrator, never seen by what lies between.
//!
//! A generation has one data key. Every object is sealed under a key of its own, derived from the data key, the
//! object's header and 32 fresh random bytes in it (HKDF-SHA-256, RFC 5869). A nonce is then a mere number within one
//! attempt: a counter kept on disk over all attempts would be one lost write away from using a nonce twice.

use crate::error::{FormatError, FormatErrorKind, bad};
use crate::header::{Header, ObjectKind, Suite};
use crate::stream::Digest;
use crate::units::{DiskId, Generation};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::agreement::{PrivateKey, X25519};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_256 as HPKE;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke, HpkePrivateKey, HpkePublicKey};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes that AES-256-GCM adds to what it seals.
pub const TAG_BYTES: usize = 16;

/// The key of one generation of one disk. Never printed, wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct DataKey([u8; 32]);

impl std::fmt::Debug for DataKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DataKey(..)")
    }
}

struct AesKeyLen;

impl KeyType for AesKeyLen {
    fn len(&self) -> usize {
        32
    }
}

impl DataKey {
    /// A key from 32 random bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key's bytes, for the agent's own store and for nothing else.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key that seals the object with this header.
    pub fn object_key(&self, header: &Header) -> ObjectKey {
        if header.suite == Suite::Plain {
            return ObjectKey(None);
        }
        let label: &[u8] = match header.kind {
            ObjectKind::Segment => b"sluice v1 segment",
            ObjectKind::Manifest => b"sluice v1 manifest",
            ObjectKind::Digests => b"sluice v1 digests",
        };
        let (generation, cycle) = (header.generation.0.to_le_bytes(), header.cycle.0.to_le_bytes());
        let info = [label, &header.disk.0, &generation, &cycle];
        let mut key = [0; 32];
        let derived = Salt::new(HKDF_SHA256, &header.salt)
            .extract(&self.0)
            .expand(&info, AesKeyLen)
            .and_then(|okm| okm.fill(&mut key))
            .and_then(|()| UnboundKey::new(&AES_256_GCM, &key));
        key.zeroize();
        // Both lengths are constants within their limits, so neither step can fail.
        ObjectKey(Some(LessSafeKey::new(derived.expect("a 32-byte key from HKDF"))))
    }

    /// What proves to the source that the hydrator has verified the cycle with this manifest, which names disk, generation and
    /// cycle: BLAKE3 of the manifest's digest, keyed by what BLAKE3 derives from the data key. Nobody between the two can make it.
    pub fn proof(&self, manifest: Digest) -> Digest {
        Digest(*self.keyed(manifest).as_bytes())
    }

    /// True where this is the proof for `manifest`; takes as long for every wrong one.
    pub fn is_proof(&self, manifest: Digest, proof: Digest) -> bool {
        self.keyed(manifest) == blake3::Hash::from_bytes(proof.0)
    }

    fn keyed(&self, manifest: Digest) -> blake3::Hash {
        let mut key = blake3::derive_key("sluice v1 verdict", &self.0);
        let hash = blake3::keyed_hash(&key, &manifest.0);
        key.zeroize();
        hash
    }
}

/// Seals and opens the parts of one object.
pub struct ObjectKey(Option<LessSafeKey>);

/// The part of an object that a nonce stands for: never the same twice under one [`ObjectKey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The block, or the number that the object's kind gives the part.
    pub block: u64,
    /// The frame within the block; `u32::MAX` is the block's index.
    pub frame: u32,
}

impl Part {
    fn nonce(self) -> Nonce {
        let mut bytes = [0; NONCE_LEN];
        bytes[..8].copy_from_slice(&self.block.to_le_bytes());
        bytes[8..].copy_from_slice(&self.frame.to_le_bytes());
        Nonce::assume_unique_for_key(bytes)
    }
}

impl ObjectKey {
    /// Bytes that sealing adds.
    pub fn overhead(&self) -> usize {
        if self.0.is_some() { TAG_BYTES } else { 0 }
    }

    /// Seals `buf[from..]` in place and appends the tag. `aad` is bound to it.
    pub fn seal(&self, part: Part, aad: &[u8], buf: &mut Vec<u8>, from: usize) {
        let Some(key) = &self.0 else { return };
        // The only failure is a plaintext beyond 64 GiB; parts are a few MiB.
        let tag = key
            .seal_in_place_separate_tag(part.nonce(), Aad::from(aad), &mut buf[from..])
            .expect("parts are far below AES-GCM's limit");
        buf.extend_from_slice(tag.as_ref());
    }

    /// Opens a sealed part into `out`, which ends up holding the plaintext and nothing else.
    ///
    /// # Errors
    /// `Forged`, where the bytes, the associated data, the place or the key is another one.
    pub fn open(
        &self,
        part: Part,
        aad: &[u8],
        sealed: &[u8],
        out: &mut Vec<u8>,
        what: &str,
    ) -> Result<(), FormatError> {
        out.clear();
        let Some(key) = &self.0 else {
            out.extend_from_slice(sealed);
            return Ok(());
        };
        let Some(len) = sealed.len().checked_sub(TAG_BYTES) else {
            return bad(FormatErrorKind::Truncated, format!("{what}: no room for a tag"));
        };
        let (text, tag) = sealed.split_at(len);
        out.resize(len, 0);
        key.open_separate_gather(part.nonce(), Aad::from(aad), text, tag, out)
            .or_else(|_| bad(FormatErrorKind::Forged, format!("{what}: authentication failed")))
    }
}

/// The hydrator's key pair (X25519): data keys are wrapped for its public half.
pub struct HydratorKey {
    private: HpkePrivateKey,
    public: Vec<u8>,
}

impl HydratorKey {
    /// A new pair; the library draws its own randomness.
    ///
    /// # Errors
    /// The library's own failure, which is out of memory or entropy.
    pub fn generate() -> Result<Self, FormatError> {
        let (public, private) = HPKE.generate_key_pair().or_else(|_| bad(FormatErrorKind::Impossible, "key pair"))?;
        Ok(Self { private, public: public.0 })
    }

    /// A pair from what [`Self::expose`] gave: 32 private bytes, 32 public bytes.
    ///
    /// # Errors
    /// Another length than 64 bytes; halves that are no pair, which would open nothing that was wrapped for the public one.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FormatError> {
        if bytes.len() != 64 {
            return bad(FormatErrorKind::Truncated, "hydrator key: 64 bytes expected");
        }
        let (private, public) = bytes.split_at(32);
        let pair = PrivateKey::from_private_key(&X25519, private).ok().and_then(|key| key.compute_public_key().ok());
        match pair.is_some_and(|pair| pair.as_ref() == public) {
            true => Ok(Self { private: HpkePrivateKey::from(private.to_vec()), public: public.to_vec() }),
            false => bad(FormatErrorKind::Forged, "hydrator key: its two halves are no pair"),
        }
    }

    /// Both halves, for the hydrator's own key file and for nothing else.
    pub fn expose(&self) -> Vec<u8> {
        [self.private.secret_bytes(), &self.public].concat()
    }

    /// The public half, to be given to agents.
    pub fn public(&self) -> &[u8] {
        &self.public
    }
}

/// A hydrator's public key as text: base64 of its 32 bytes.
pub fn public_key_to_text(key: &[u8]) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    STANDARD.encode(key)
}

/// A hydrator's public key from its text.
///
/// # Errors
/// Text that is not base64 of 32 bytes.
pub fn public_key_from_text(text: &str) -> Result<Vec<u8>, FormatError> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    match STANDARD.decode(text.trim()) {
        Ok(key) if key.len() == 32 => Ok(key),
        _ => bad(FormatErrorKind::Impossible, "hydrator's public key: base64 of 32 bytes is expected"),
    }
}

/// The agent's signing key (Ed25519): the hydrator pins its public half when it first meets a disk, so that whoever
/// holds the appliance cannot put a data key of his own in the place of the source's.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// The key that grows from 32 random bytes.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        // A seed of the right length is always accepted.
        Self(Ed25519KeyPair::from_seed_unchecked(seed).expect("an Ed25519 seed is any 32 bytes"))
    }

    /// The public half.
    pub fn public(&self) -> Vec<u8> {
        self.0.public_key().as_ref().to_vec()
    }
}

/// A data key on its way to the hydrator, through hands that must not read or replace it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyEnvelope {
    /// The disk that the key is for.
    pub disk: DiskId,
    /// The generation that the key is for.
    pub generation: Generation,
    /// BLAKE3 of the hydrator's public key, so that a wrong key file is told apart from a forged envelope.
    pub hydrator: Digest,
    /// HPKE's encapsulated secret (RFC 9180, base mode, X25519, HKDF-SHA-256, AES-256-GCM).
    #[serde(with = "base64_bytes")]
    pub encapsulated: Vec<u8>,
    /// The sealed data key.
    #[serde(with = "base64_bytes")]
    pub sealed: Vec<u8>,
    /// The agent's public signing key.
    #[serde(with = "base64_bytes")]
    pub signer: Vec<u8>,
    /// The signer's Ed25519 signature over all of the above.
    #[serde(with = "base64_bytes")]
    pub signature: Vec<u8>,
}

const HPKE_INFO: &[u8] = b"sluice v1 data key";

impl KeyEnvelope {
    /// Wraps `key` for the hydrator with public key `hydrator` and signs the envelope.
    ///
    /// # Errors
    /// `Impossible`, where `hydrator` is no X25519 public key.
    pub fn wrap(
        key: &DataKey,
        disk: DiskId,
        generation: Generation,
        hydrator: &[u8],
        signer: &SigningKey,
    ) -> Result<Self, FormatError> {
        let aad = Self::aad(disk, generation);
        let (encapsulated, sealed) = HPKE
            .seal(HPKE_INFO, &aad, key.expose(), &HpkePublicKey(hydrator.to_vec()))
            .or_else(|_| bad(FormatErrorKind::Impossible, "hydrator's public key: not an X25519 key"))?;
        let mut envelope = Self {
            disk,
            generation,
            hydrator: Digest::of(hydrator),
            encapsulated: encapsulated.0,
            sealed,
            signer: signer.public(),
            signature: Vec::new(),
        };
        envelope.signature = signer.0.sign(&envelope.signed_bytes()).as_ref().to_vec();
        Ok(envelope)
    }

    /// Checks the signature and unwraps the data key. `pinned` is the signer that the hydrator met first; `None` at the
    /// first meeting.
    ///
    /// # Errors
    /// `Misplaced` where it is wrapped for another hydrator or signed by another agent, `Forged` where a byte changed.
    pub fn open(&self, hydrator: &HydratorKey, pinned: Option<&[u8]>) -> Result<DataKey, FormatError> {
        if self.hydrator != Digest::of(hydrator.public()) {
            return bad(FormatErrorKind::Misplaced, "data key: wrapped for another hydrator's key");
        }
        if pinned.is_some_and(|pin| pin != self.signer) {
            return bad(FormatErrorKind::Misplaced, "data key: signed by another agent than this disk's first one");
        }
        UnparsedPublicKey::new(&ED25519, &self.signer)
            .verify(&self.signed_bytes(), &self.signature)
            .or_else(|_| bad(FormatErrorKind::Forged, "data key: signature"))?;
        let opened = HPKE
            .open(
                &EncapsulatedSecret(self.encapsulated.clone()),
                HPKE_INFO,
                &Self::aad(self.disk, self.generation),
                &self.sealed,
                &hydrator.private,
            )
            .or_else(|_| bad(FormatErrorKind::Forged, "data key: can't be unwrapped with this hydrator's key"))?;
        let mut opened = zeroize::Zeroizing::new(opened);
        match <[u8; 32]>::try_from(opened.as_mut_slice()) {
            Ok(bytes) => Ok(DataKey(bytes)),
            Err(_) => bad(FormatErrorKind::Impossible, "data key: not 32 bytes"),
        }
    }

    fn aad(disk: DiskId, generation: Generation) -> Vec<u8> {
        [&disk.0[..], &generation.0.to_le_bytes()].concat()
    }

    fn signed_bytes(&self) -> Vec<u8> {
        let mut out = b"sluice v1 key envelope".to_vec();
        out.extend_from_slice(&Self::aad(self.disk, self.generation));
        for field in [&self.hydrator.0[..], &self.encapsulated, &self.sealed, &self.signer] {
            out.extend_from_slice(&(field.len() as u64).to_le_bytes());
            out.extend_from_slice(field);
        }
        out
    }
}

/// Bytes as base64 in JSON.
pub(crate) mod base64_bytes {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&STANDARD.encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        STANDARD.decode(text.as_bytes()).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests;
