//! How much was written to a disk, as the kernel's own statistics have it: what no delta may exceed.

use std::path::{Path, PathBuf};

/// The statistics of a block device (Documentation/admin-guide/iostats.rst in the kernel).
#[derive(Debug, Clone)]
pub struct Written {
    stat: PathBuf,
}

impl Written {
    /// Of the device at `path`.
    pub fn to(path: &Path) -> Self {
        let name = path.file_name().expect("a device has a name");
        Self { stat: Path::new("/sys/class/block").join(name).join("stat") }
    }

    /// Sectors written and discarded so far.
    pub fn sectors(&self) -> u64 {
        let text = std::fs::read_to_string(&self.stat).unwrap_or_else(|e| panic!("{}: {e}", self.stat.display()));
        let fields: Vec<u64> = text.split_whitespace().map(|field| field.parse().expect("numbers")).collect();
        // The 7th and the 14th field.
        fields[6] + fields[13]
    }

    /// Writes done so far.
    pub fn writes(&self) -> u64 {
        let text = std::fs::read_to_string(&self.stat).unwrap_or_else(|e| panic!("{}: {e}", self.stat.display()));
        text.split_whitespace().nth(4).and_then(|field| field.parse().ok()).expect("a fifth number")
    }
}
