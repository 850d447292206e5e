//! Where a target is, and where its state is kept.

use crate::formats::Format;
use crate::state::StateError;
use crate::target::plan::names_device;
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use sluice_proto::Digest;
use std::path::{Path, PathBuf};

/// What is kept of targets beside which nothing can be kept.
const KEPT: &str = "/var/lib/sluice";
/// Characters of such a folder's name before it is cut; a file system takes 255 bytes.
const NAME_MAX: usize = 200;

/// A target that is named for one disk.
#[derive(Clone, Debug)]
pub struct Place {
    /// The image's file or the block device.
    pub path: PathBuf,
    /// Its format.
    pub format: Format,
    /// Where its state is kept; next to it, in `PATH.sluice`, if none. A block device needs one.
    pub state: Option<PathBuf>,
    /// Whether a target that exists and is not ours may be overwritten.
    pub overwrite: bool,
    /// The source's path, where it is on this machine.
    pub source: Option<PathBuf>,
}

impl Place {
    /// The folder of its state.
    ///
    /// # Errors
    /// None is named, and what is kept next to the target would be gone after a restart of its machine.
    pub fn state_folder(&self) -> Result<PathBuf, StateError> {
        let beside = beside(&self.path);
        match &self.state {
            Some(state) => Ok(state.clone()),
            None if !is_lost_beside(&self.path) => Ok(beside),
            None => Err(StateError::new(format!(
                "target {}: its state would lie in memory, in {}, and be gone when the machine starts again: add state = \
                 {:?} to its [[target]]{}",
                self.path.display(),
                beside.display(),
                kept_folder(&self.path).display().to_string(),
                move_hint(&beside, &kept_folder(&self.path)),
            ))),
        }
    }
}

/// The state folder of a target at `path`, where none is named: next to an image; of a block device, and of whatever else
/// lies in memory by its name alone, below `/var/lib/sluice`, in a folder whose name follows from the path as it was given.
///
/// # Errors
/// An earlier version has kept it next to the device: it must be moved.
pub fn state_folder(path: &Path) -> Result<PathBuf, StateError> {
    let beside = beside(path);
    if !is_lost_beside(path) {
        return Ok(beside);
    }
    let kept = kept_folder(path);
    match beside.exists() && !kept.exists() {
        false => Ok(kept),
        true => Err(StateError::new(format!(
            "the state of target {} lies in memory, in {}, and will be gone when the machine starts again{}",
            path.display(),
            beside.display(),
            move_hint(&beside, &kept),
        ))),
    }
}

fn move_hint(from: &Path, to: &Path) -> String {
    match from.exists() {
        true => format!("; what is there now can be gone on with: mkdir -p {KEPT} && mv {from:?} {to:?}"),
        false => String::new(),
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".sluice");
    PathBuf::from(name)
}

/// True where what is put next to the path does not outlive the machine's next start, but the target does. An image in
/// memory goes together with its state.
fn is_lost_beside(path: &Path) -> bool {
    if names_device(path) {
        return true;
    }
    let in_memory = |path: &Path| {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        statfs(folder).is_ok_and(|facts| facts.filesystem_type() == TMPFS_MAGIC)
    };
    in_memory(path) && path.canonicalize().is_ok_and(|real| !in_memory(&real))
}

/// `/dev/vdb` becomes `dev-vdb`. Where two paths could come to one name, a part of the path's digest tells them apart.
fn kept_folder(path: &Path) -> PathBuf {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let text = whole.to_string_lossy();
    let text = text.trim_start_matches('/');
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '_' | '.') { c } else { '-' };
    let mut name: String = text.chars().map(plain).take(NAME_MAX).collect();
    if text.replace('/', "-") != name || text.contains('-') {
        name = format!("{name}-{}", &Digest::of(whole.as_os_str().as_encoded_bytes()).to_string()[..8]);
    }
    Path::new(KEPT).join(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_test_support::devices::Loop;

    fn place(path: &Path) -> Place {
        Place { path: path.to_path_buf(), format: Format::Raw, state: None, overwrite: false, source: None }
    }

    #[test]
    fn an_image_s_state_lies_next_to_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.vhd");
        assert_eq!(state_folder(&path).expect("beside"), folder.path().join("a.vhd.sluice"));
        assert_eq!(place(&path).state_folder().expect("beside"), folder.path().join("a.vhd.sluice"));
    }

    #[test]
    fn a_device_s_state_never_lies_in_memory() {
        // Also while it is not there: it may be attached later.
        for path in ["/dev/vdz", "/dev/disk/by-id/none"].map(Path::new) {
            assert!(state_folder(path).expect("kept").starts_with(KEPT));
            let error = place(path).state_folder().expect_err("demanded").to_string();
            assert!(error.contains("add state = \"/var/lib/sluice/dev-"), "{error}");
            let named = Place { state: Some("/srv/state".into()), ..place(path) };
            assert_eq!(named.state_folder().expect("named"), Path::new("/srv/state"));
        }
    }

    #[test]
    fn so_does_that_of_a_device_with_another_name() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("not root: no loop device to be had, nothing was tested");
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let device = Loop::new(folder.path(), "disk", 1 << 20, 512);
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(device.path(), &link).expect("a link");
        for path in [device.path(), &link] {
            assert!(state_folder(path).expect("kept").starts_with(KEPT));
        }
        // An earlier version kept it next to the device: that is not left behind in silence.
        std::fs::create_dir(beside(&link)).expect("a folder");
        let error = state_folder(&link).expect_err("to be moved").to_string();
        assert!(error.contains("mv ") && error.contains("link.sluice"), "{error}");
    }

    #[test]
    fn each_path_has_a_folder_of_its_own() {
        let names = ["/dev/a/b", "/dev/a-b", "/dev/a:b", "/dev/a b", "/dev/a/b-c"].map(|p| kept_folder(Path::new(p)));
        assert_eq!(names[0], Path::new("/var/lib/sluice/dev-a-b"));
        assert_eq!(names.iter().collect::<std::collections::BTreeSet<_>>().len(), names.len(), "{names:?}");
        let long = format!("/dev/{}", "x".repeat(600));
        assert!(kept_folder(Path::new(&long)).file_name().is_some_and(|name| name.len() < 255));
    }
}
