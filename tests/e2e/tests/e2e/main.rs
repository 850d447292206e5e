//! Real processes on real block devices; one file a scenario.
#![forbid(unsafe_code)]

mod btrfs_to_raw;
mod cache_full;
mod cluster_azurite;
mod cluster_folder;
mod cluster_two_disks;
mod debian_boots;
mod dynamic_formats;
mod ext4_to_vhd;
mod foreign_target;
mod keys;
mod missing_source;
mod odd_device;
mod odd_file;
mod old_generation;
mod partition;
mod rotten_target;
mod source_mounted_scan;
mod source_resized;
mod state_full;
mod tampered;
mod target_changed;
mod target_full;
mod target_full_apart;
mod target_on_source;
mod too_large_for_vhd;
mod unknown_keys;
mod wrong_key;
mod xfs_4096_to_vhdx;
mod zram;
