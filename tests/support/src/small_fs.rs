//! A file system with little room, to fill it up.

use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// A tmpfs of a given size, mounted in a temporary folder; unmounted on drop.
#[derive(Debug)]
pub struct SmallFs {
    dir: TempDir,
}

impl SmallFs {
    /// Mounts one with room for `bytes`. Needs root: `None` without it.
    pub fn mount(bytes: u64) -> Option<Self> {
        let id = Command::new("id").arg("-u").output().expect("id can be run");
        if id.stdout.trim_ascii() != b"0" {
            return None;
        }
        let dir = TempDir::new().expect("a temporary folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={bytes},mode=0755"), "sluice-test"]).arg(dir.path());
        let output = mount.output().expect("mount can be run");
        assert!(output.status.success(), "mount: {}", String::from_utf8_lossy(&output.stderr));
        Some(Self { dir })
    }

    /// The mount point.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for SmallFs {
    fn drop(&mut self) {
        // Lazily: a file that a failing test left open must not keep the mount in the host's table.
        let _ = Command::new("umount").arg("--lazy").arg(self.dir.path()).status();
    }
}
