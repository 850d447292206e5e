//! Whether source and target are equal, by Sluice and by others.

use sluice_test_support::command::output;
use sluice_test_support::devices::text;
use sluice_test_support::images::{assert_bytes_equal, assert_qemu_finds_equal};
use sluice_test_support::program::Sluice;
use std::path::Path;

/// A target's format, by the words of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Format {
    Vhd,
    VhdDynamic,
    Vhdx,
    VhdxDynamic,
    Raw,
}

impl Format {
    /// All that `--format` takes.
    pub const ALL: [Self; 5] = [Self::Vhd, Self::VhdDynamic, Self::Vhdx, Self::VhdxDynamic, Self::Raw];

    /// What `--format` takes.
    pub fn word(self) -> &'static str {
        match self {
            Self::Vhd => "vhd",
            Self::VhdDynamic => "vhd-dynamic",
            Self::Vhdx => "vhdx",
            Self::VhdxDynamic => "vhdx-dynamic",
            Self::Raw => "raw",
        }
    }

    /// QEMU's name for it.
    pub fn driver(self) -> &'static str {
        match self {
            Self::Vhd | Self::VhdDynamic => "vpc",
            Self::Vhdx | Self::VhdxDynamic => "vhdx",
            Self::Raw => "raw",
        }
    }

    /// A file name with its suffix.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Vhd | Self::VhdDynamic => "target.vhd",
            Self::Vhdx | Self::VhdxDynamic => "target.vhdx",
            Self::Raw => "target.raw",
        }
    }
}

/// Panics unless `sluice verify`, QEMU and, where the format allows it, a plain comparison of bytes find no difference.
/// Nothing may write to either disk.
pub fn assert_equal(source: &Path, target: &Path, format: Format) {
    // What a mounted file system wrote went past the device's own page cache; for image files this does nothing.
    output("blockdev", &["--flushbufs", text(source)]);
    let verified = Sluice::must(&["verify", text(source), text(target), "--json"]);
    let report: serde_json::Value = serde_json::from_str(&verified.stdout)
        .unwrap_or_else(|e| panic!("`sluice verify --json` printed no JSON ({e}): {}", verified.stdout));
    assert_eq!(report["equal"], true, "{}", verified.stdout);
    assert_qemu_finds_equal(source, target, format.driver());
    match format {
        Format::Vhd => assert_bytes_equal(source, target, 512),
        Format::Raw => assert_bytes_equal(source, target, 0),
        Format::VhdDynamic | Format::Vhdx | Format::VhdxDynamic => {}
    }
}
