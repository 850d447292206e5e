//! A whole Debian, replicated into a VHD, boots from the copy alone.

use sluice_e2e::{Format, Replicate, assert_equal};
use sluice_test_support::vm::{self, Vm, Writes};
use std::time::Duration;

const QUICK: Duration = Duration::from_secs(60);

#[test]
fn debian_boots_from_its_copy() {
    if std::env::var_os("SLUICE_VM_IMAGE").is_none() {
        println!("skipped: `cargo xtask test` builds the image that this needs and names it in SLUICE_VM_IMAGE");
        return;
    }
    let image = vm::image();
    let replicate = Replicate::new(&image, Format::Vhd, &[]);
    replicate.must();
    assert_equal(&image, &replicate.target(), Format::Vhd);
    let mut copy = Vm::boot(&replicate.target(), Format::Vhd.driver(), Writes::Discarded, &[]);
    assert_eq!(copy.must("findmnt --raw --noheadings --output FSTYPE,LABEL /", QUICK), "ext4 sluice-root");
    copy.power_off(QUICK);
}
