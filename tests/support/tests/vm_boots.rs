//! The image that `cargo xtask vm-image` builds boots by itself, and its shell answers.
#![forbid(unsafe_code)]

use std::time::Duration;

use sluice_test_support::vm::{self, Vm, Writes};

const QUICK: Duration = Duration::from_secs(60);

#[test]
fn the_image_boots_and_its_shell_answers() {
    let mut vm = Vm::boot(&vm::image(), "raw", Writes::Discarded, &[]);
    assert_eq!(vm.must("findmnt --raw --noheadings --output FSTYPE,LABEL /", QUICK), "ext4 sluice-root");
    assert_eq!(vm.run("echo one; echo two >&2; (exit 7)", QUICK), (7, "one\ntwo".to_owned()));
    assert_eq!(vm.must("systemctl --failed --no-legend", QUICK), "");
    // What later tests stand on: BTF for the tracker, and the recorder of power cuts.
    assert_eq!(vm.run("test -r /sys/kernel/btf/vmlinux && modprobe dm-log-writes", QUICK), (0, String::new()));
    vm.power_off(QUICK);
}
