//! The last word: all of both disks, compared by Sluice and by somebody else.

use crate::outcome::Refusal;
use crate::units;
use crate::verify::compare_disks;
use sluice_hydrator::formats::Format;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

/// Compares the whole disks; tells, and says whether they are equal.
pub async fn judge(source: &Path, target: &Path) -> Result<bool, Refusal> {
    let compared = compare_disks((source, Some(Format::Raw)), (target, Some(Format::Vhd))).await?;
    let size = units::bytes(compared.bytes.0);
    match compared.equal {
        true => print_line!("whole disks: {size} equal, BLAKE3 {}", compared.source_digest),
        false => print_line!("whole disks: {} of {size} DIFFER", units::bytes(compared.differing_sectors.bytes().0)),
    }
    Ok(compared.equal & qemu(source, target)?)
}

/// What QEMU says, where it is installed.
fn qemu(source: &Path, target: &Path) -> Result<bool, Refusal> {
    let mut command = Command::new("qemu-img");
    command.args(["compare", "-U", "-f", "raw", "-F", "vpc"]).arg(source).arg(target);
    let output = match command.output() {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            print_line!("qemu-img compare: not installed here (Debian: qemu-utils)");
            return Ok(true);
        }
        Err(error) => return Err(Refusal::at("qemu-img", error)),
    };
    let words = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    print_line!("qemu-img compare: {}", words(&[output.stdout, output.stderr].concat()));
    Ok(output.status.success())
}
