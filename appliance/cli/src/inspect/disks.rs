//! Disk images.

use super::Findings;
use crate::outcome::Refusal;
use crate::units;
use sluice_hydrator::formats::{Format, ReadAt, Severity, open};
use sluice_proto::ByteCount;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::Path;

/// Explains a VHD or a VHDX; anything else is not ours.
pub fn look(path: &Path) -> Result<Findings, Refusal> {
    let failed = |e: std::io::Error| Refusal::at(path.display(), e);
    let mut file = File::open(path).map_err(failed)?;
    let size = file.seek(SeekFrom::End(0)).map_err(failed)?;
    let image = match open(&file as &dyn ReadAt, ByteCount(size)) {
        Ok(image) => image,
        Err(error) => {
            let mut found = Findings::of("a damaged disk image");
            found.fact("length", units::bytes(size));
            found.wrong(error);
            return Ok(found);
        }
    };
    if image.format == Format::Raw {
        return Err(Refusal::new(format!(
            "{} is no file that Sluice knows: neither segment, manifest, digests, VHD, VHDX nor state (a raw disk image \
             has no marks by which it could be told or checked)",
            path.display()
        )));
    }
    let mut found = Findings::of(match image.format {
        Format::Vhd => "a fixed VHD",
        Format::VhdDynamic => "a dynamic VHD",
        Format::Vhdx => "a fixed VHDX: all blocks present and in order",
        Format::VhdxDynamic => "a dynamic VHDX",
        Format::Raw => "a raw image",
    });
    found.good(match image.format {
        Format::Vhd | Format::VhdDynamic => "footer, its checksum and the tables that it names",
        _ => "headers, region table, metadata and block table, with their checksums",
    });
    let virtual_size = image.virtual_size;
    found.fact("disk's size", format!("{virtual_size} bytes ({})", units::bytes(virtual_size.0)));
    found.fact("file's length", format!("{size} bytes ({})", units::bytes(size)));
    if let Some(id) = image.uuid {
        found.fact("id", id);
    }
    for (name, value) in &image.facts {
        found.fact(name, value);
    }
    for finding in &image.findings {
        match finding.severity {
            Severity::Info => found.note(&finding.text),
            Severity::Warning => found.note(format_args!("warning: {}", finding.text)),
        }
    }
    Ok(found)
}
