//! The names of the formats, as people write them.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// A disk image format that Sluice writes and reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// Fixed VHD: the disk's bytes and a footer of 512 bytes. What Azure takes.
    Vhd,
    /// Dynamic VHD: blocks of 2 MiB, those never written left out.
    VhdDynamic,
    /// Fixed VHDX: every block present from the start, in the order of the disk, over a sparse file.
    Vhdx,
    /// Dynamic VHDX: blocks that were never written left out.
    VhdxDynamic,
    /// The disk's bytes and nothing else.
    Raw,
}

/// The text was not a format, or the file's suffix doesn't say which one it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadFormat {
    /// Not one of the names.
    #[error("unknown format {0:?}: expected one of vhd, vhd-dynamic, vhdx, vhdx-dynamic, raw")]
    Name(String),
    /// The path ends in none of the known suffixes.
    #[error(
        "cannot tell the format of {0} by its suffix (.vhd, .vhdx, .raw and .img are known): \
         say it with --format vhd|vhd-dynamic|vhdx|vhdx-dynamic|raw"
    )]
    Suffix(String),
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 5] = [Self::Vhd, Self::VhdDynamic, Self::Vhdx, Self::VhdxDynamic, Self::Raw];

    /// The name on the command line and in state files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vhd => "vhd",
            Self::VhdDynamic => "vhd-dynamic",
            Self::Vhdx => "vhdx",
            Self::VhdxDynamic => "vhdx-dynamic",
            Self::Raw => "raw",
        }
    }

    /// The format that a new target at `path` gets when none is named: `.vhd` and `.vhdx` are fixed, `.raw` and
    /// `.img` raw. Upper and lower case are the same.
    pub fn from_suffix(path: &Path) -> Result<Self, BadFormat> {
        let suffix = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
        match suffix.as_deref() {
            Some("vhd") => Ok(Self::Vhd),
            Some("vhdx") => Ok(Self::Vhdx),
            Some("raw" | "img") => Ok(Self::Raw),
            _ => Err(BadFormat::Suffix(path.display().to_string())),
        }
    }

    /// True where blocks are allocated as they are written, so that the file grows and has tables to keep.
    pub fn is_dynamic(self) -> bool {
        matches!(self, Self::VhdDynamic | Self::VhdxDynamic)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Format {
    type Err = BadFormat;
    fn from_str(text: &str) -> Result<Self, BadFormat> {
        Self::ALL
            .into_iter()
            .find(|format| format.name() == text)
            .ok_or_else(|| BadFormat::Name(text.chars().take(64).collect()))
    }
}
