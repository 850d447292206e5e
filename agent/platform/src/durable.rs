//! Small files that a crash leaves whole: either the old contents or the new, never a mixture, never nothing.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// Its owner only (mode 0600), from the first moment on: keys, tokens, journals.
    #[default]
    Owner,
    /// Everyone (mode 0644, less the umask): certificates, public keys, configuration without secrets.
    Everyone,
}

/// A small file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {op} {}: {error}", path.display())]
pub struct FileError {
    op: &'static str,
    path: PathBuf,
    error: io::Error,
}

impl FileError {
    pub(crate) fn of(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |error| Self { op, path, error }
    }
    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// What kind of error the system gave.
    pub fn io_kind(&self) -> io::ErrorKind {
        self.error.kind()
    }
}

/// Replaces a file's contents: written aside, flushed, renamed over it, and the folder flushed. When this returns, the
/// new contents survive a power cut. One writer at a time; a leftover of a crash (`.NAME.tmp`) is overwritten.
pub fn write_file(path: &Path, bytes: &[u8], access: Access) -> Result<(), FileError> {
    put_in_place(&write_aside(path, bytes, access)?, path)?;
    sync_folder(folder_of(path))
}

/// The same for several files of one folder, which is flushed once for all of them. They are replaced in this order: after a
/// crash none is new before those ahead of it are, on every file system that keeps the order of names in its journal.
pub fn write_files(folder: &Path, files: &[(&str, &[u8])], access: Access) -> Result<(), FileError> {
    let mut asides = Vec::new();
    let mut write = || {
        for (name, bytes) in files {
            asides.push(write_aside(&folder.join(name), bytes, access)?);
        }
        files.iter().zip(&asides).try_for_each(|((name, _), aside)| put_in_place(aside, &folder.join(name)))
    };
    if let Err(error) = write() {
        // Where the disk is full they would take what the next try needs.
        asides.iter().for_each(|aside| drop(fs::remove_file(aside)));
        return Err(error);
    }
    sync_folder(folder)
}

/// Writes the file under another name and flushes it; gives that name.
fn write_aside(path: &Path, bytes: &[u8], access: Access) -> Result<PathBuf, FileError> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().ok_or_else(|| FileError::of("write", path)(io::ErrorKind::InvalidInput.into()))?);
    name.push(".tmp");
    let aside = folder_of(path).join(name);
    let write = || -> io::Result<()> {
        match fs::remove_file(&aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mode = if access == Access::Owner { 0o600 } else { 0o644 };
        let mut file = File::options().write(true).create_new(true).mode(mode).open(&aside)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    if let Err(error) = write() {
        drop(fs::remove_file(&aside));
        return Err(FileError::of("write", &aside)(error));
    }
    Ok(aside)
}

fn put_in_place(aside: &Path, path: &Path) -> Result<(), FileError> {
    // The one place that renames: what is renamed was flushed, and the folder is flushed behind it.
    #[allow(clippy::disallowed_methods)]
    fs::rename(aside, path).map_err(FileError::of("replace", path))
}

/// Removes a file for good; one that isn't there is no error.
pub fn remove_file(path: &Path) -> Result<(), FileError> {
    match unlink(path)? {
        true => sync_folder(folder_of(path)),
        false => Ok(()),
    }
}

/// Removes a file that would do no harm if it came back: a power cut may bring it, until something is written to its folder
/// for good. False where there was none.
pub fn unlink(path: &Path) -> Result<bool, FileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(FileError::of("remove", path)(error)),
        Ok(()) => Ok(true),
    }
}

/// Renames a file for good, over whatever has the new name; the contents are flushed first. Both in one file system.
pub fn rename_file(from: &Path, to: &Path) -> Result<(), FileError> {
    File::open(from).and_then(|file| file.sync_all()).map_err(FileError::of("flush", from))?;
    put_in_place(from, to)?;
    sync_folder(folder_of(to))?;
    if folder_of(from) != folder_of(to) {
        sync_folder(folder_of(from))?;
    }
    Ok(())
}

/// Makes a folder and those above it, for their owner only (mode 0700), for good.
pub fn create_folder(path: &Path) -> Result<(), FileError> {
    use std::os::unix::fs::DirBuilderExt;
    if path.is_dir() {
        return Ok(());
    }
    let above = folder_of(path);
    if !above.is_dir() {
        create_folder(above)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !path.is_dir() => {
            return Err(FileError::of("create", path)(error));
        }
        _ => {}
    }
    sync_folder(above)
}

/// A file's contents, at most `max` bytes; a larger file is an error, so that nothing allocates by what a disk claims.
pub fn read_file_limited(path: &Path, max: u64) -> Result<Vec<u8>, FileError> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > max {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {max} bytes")));
        }
        Ok(bytes)
    };
    read().map_err(FileError::of("read", path))
}

/// As [`read_file_limited`]; `None` where the file doesn't exist.
pub fn read_file_if_exists(path: &Path, max: u64) -> Result<Option<Vec<u8>>, FileError> {
    match read_file_limited(path, max) {
        Err(error) if error.io_kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

/// Flushes a folder, so that the names in it survive a power cut.
pub fn sync_folder(folder: &Path) -> Result<(), FileError> {
    File::open(folder).and_then(|file| file.sync_all()).map_err(FileError::of("flush", folder))
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn replaces_whole_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state");
        std::fs::write(folder.path().join(".state.tmp"), b"leftover of a crash").expect("written");
        write_file(&path, b"one", Access::Owner).expect("written");
        write_file(&path, b"second", Access::Owner).expect("written");
        assert_eq!(read_file_limited(&path, 6).expect("read"), b"second");
        assert_eq!(std::fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 1);
    }

    #[test]
    fn several_files_are_replaced_or_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = |bytes: [&'static str; 2]| [("one", bytes[0].as_bytes()), ("two", bytes[1].as_bytes())];
        let read = |name: &str| read_file_limited(&folder.path().join(name), 9).expect("read");
        write_files(folder.path(), &files(["1", "2"]), Access::Owner).expect("written");
        // A folder in the place of the second file aside makes writing that fail.
        std::fs::create_dir(folder.path().join(".two.tmp")).expect("made");
        write_files(folder.path(), &files(["3", "4"]), Access::Owner).expect_err("must fail");
        assert_eq!((read("one"), read("two")), (b"1".to_vec(), b"2".to_vec()));
        assert!(!folder.path().join(".one.tmp").exists(), "it would take room");
        std::fs::remove_dir(folder.path().join(".two.tmp")).expect("removed");
        write_files(folder.path(), &files(["5", "6"]), Access::Owner).expect("written over what was left");
        assert_eq!((read("one"), read("two")), (b"5".to_vec(), b"6".to_vec()));
        assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 2);
    }

    #[test]
    fn a_failed_write_keeps_the_old_contents() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state");
        write_file(&path, b"old", Access::Owner).expect("written");
        // A folder in the place of the file aside makes writing it fail.
        std::fs::create_dir(folder.path().join(".state.tmp")).expect("made");
        let error = write_file(&path, b"new", Access::Owner).expect_err("must fail");
        assert!(error.to_string().contains(".state.tmp"), "{error}");
        assert_eq!(read_file_limited(&path, 99).expect("read"), b"old");
    }

    #[test]
    fn reads_no_more_than_allowed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("large");
        std::fs::write(&path, [0; 11]).expect("written");
        let error = read_file_limited(&path, 10).expect_err("too large");
        assert!(error.to_string().contains("larger than 10 bytes"), "{error}");
        assert_eq!(read_file_if_exists(&folder.path().join("none"), 10).expect("no error"), None);
    }

    #[test]
    fn folders_are_made_private_and_removal_is_repeatable() {
        let folder = tempfile::tempdir().expect("a folder");
        let deep = folder.path().join("a/b/c");
        create_folder(&deep).expect("made");
        create_folder(&deep).expect("made already");
        assert_eq!(std::fs::metadata(&deep).expect("there").mode() & 0o777, 0o700);
        let (from, to) = (deep.join("x"), folder.path().join("y"));
        write_file(&from, b"x", Access::Everyone).expect("written");
        rename_file(&from, &to).expect("renamed");
        assert!(!from.exists() && to.exists());
        remove_file(&to).expect("removed");
        remove_file(&to).expect("gone already");
    }
}
