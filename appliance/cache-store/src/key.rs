//! Which keys a store takes.

use crate::{StoreError, StoreErrorKind};

/// The longest key, in bytes. Azure takes 1024 characters, S3 1024 bytes; a prefix must fit too.
const KEY_LEN_MAX: usize = 512;

/// Refuses a key that could name something outside the store, or that some backend would spell in another way.
pub(crate) fn check(key: &str) -> Result<(), StoreError> {
    let part_ok = |part: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'=');
        !part.is_empty() && !part.starts_with('.') && part.bytes().all(plain)
    };
    if key.len() <= KEY_LEN_MAX && key.split('/').all(part_ok) {
        return Ok(());
    }
    let shown: String = key.chars().take(80).collect();
    Err(StoreError::new(StoreErrorKind::Other, format!("{shown:?} is not a key that the store takes")))
}

/// As [`check`], where an empty one means the whole store.
pub(crate) fn check_prefix(prefix: &str) -> Result<(), StoreError> {
    if prefix.is_empty() { Ok(()) } else { check(prefix) }
}
