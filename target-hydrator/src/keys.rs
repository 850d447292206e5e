//! The hydrator's key file: one line of text, readable by its owner alone.

use base64::{Engine, engine::general_purpose::STANDARD};
use sluice_platform::durable::{self, Access};
use sluice_proto::keys::HydratorKey;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use zeroize::Zeroizing;

/// What a key file begins with: kind and version.
const HEAD: &str = "sluice-hydrator-key-1 ";
const FILE_BYTES_MAX: u64 = 4096;

/// The key file could not be used.
#[derive(Debug, thiserror::Error)]
#[error("hydrator key {path}: {what}")]
pub struct KeyFileError {
    path: String,
    what: String,
}

impl KeyFileError {
    fn at(path: &Path, what: impl std::fmt::Display) -> Self {
        Self { path: path.display().to_string(), what: what.to_string() }
    }
}

/// Makes a key file where there is none, for its owner only.
///
/// # Errors
/// There is one already: it is never overwritten, as all data sealed for it would be lost with it.
pub fn create(path: &Path) -> Result<HydratorKey, KeyFileError> {
    if path.symlink_metadata().is_ok() {
        return Err(KeyFileError::at(
            path,
            "exists already; it is not overwritten, as what was sealed for it needs it",
        ));
    }
    let key = HydratorKey::generate().map_err(|e| KeyFileError::at(path, e))?;
    let secret = Zeroizing::new(key.expose());
    let line = Zeroizing::new(format!("{HEAD}{}\n", Zeroizing::new(STANDARD.encode(&*secret)).as_str()));
    durable::write_file(path, line.as_bytes(), Access::Owner).map_err(|e| KeyFileError::at(path, e))?;
    Ok(key)
}

/// Reads a key file.
///
/// # Errors
/// It is missing, damaged, newer, or others may read it.
pub fn load(path: &Path) -> Result<HydratorKey, KeyFileError> {
    let bytes = durable::read_file_limited(path, FILE_BYTES_MAX);
    let bytes = Zeroizing::new(bytes.map_err(|e| {
        KeyFileError::at(path, format!("{e}; `sluice-hydrator init` makes one, or put back the one that was used"))
    })?);
    let mode = path.metadata().map(|facts| facts.mode() & 0o077).unwrap_or(0);
    if mode != 0 {
        return Err(KeyFileError::at(path, "others than its owner may read it; run chmod 600 on it"));
    }
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    let Some(key) = text.trim_end().strip_prefix(HEAD) else {
        let newer = text.starts_with("sluice-hydrator-key-");
        let what =
            if newer { "written by a newer Sluice; update this one" } else { "this is not a hydrator's key file" };
        return Err(KeyFileError::at(path, what));
    };
    let key = Zeroizing::new(STANDARD.decode(key).map_err(|_| KeyFileError::at(path, "damaged: not base64"))?);
    HydratorKey::from_bytes(&key).map_err(|e| KeyFileError::at(path, e))
}

/// The public half as agents' configurations have it.
pub fn public_text(key: &HydratorKey) -> String {
    sluice_proto::keys::public_key_to_text(key.public())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_comes_back_and_is_never_overwritten() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        let made = create(&path).expect("made");
        assert_eq!(load(&path).expect("read").expose(), made.expose());
        assert_eq!(path.metadata().expect("there").mode() & 0o777, 0o600);
        let error = create(&path).err().expect("refused").to_string();
        assert!(error.contains("exists already"), "{error}");
    }

    #[test]
    fn what_is_wrong_with_a_key_file_is_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        let error = |path: &Path| load(path).err().expect("refused").to_string();
        assert!(error(&path).contains("init"), "{}", error(&path));
        create(&path).expect("made");
        let good = std::fs::read_to_string(&path).expect("text");
        for (text, said) in [
            ("nonsense".to_owned(), "not a hydrator's key file"),
            (good.replace("key-1", "key-2"), "newer"),
            (format!("{HEAD}*"), "not base64"),
            (format!("{HEAD}AAAA"), "64 bytes"),
        ] {
            std::fs::write(&path, text).expect("written");
            assert!(error(&path).contains(said), "{}", error(&path));
        }
        std::fs::write(&path, good).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("changed");
        assert!(error(&path).contains("chmod 600"), "{}", error(&path));
    }
}
