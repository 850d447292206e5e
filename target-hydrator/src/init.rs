//! `sluice-hydrator init`: a key of its own and a configuration to fill in.

use crate::keys::{self, KeyFileError};
use sluice_platform::durable::{self, Access, FileError};
use std::path::{Path, PathBuf};

/// The configuration's name in the folder.
pub const CONFIG_NAME: &str = "hydrator.toml";
/// The key file's name in the folder.
pub const KEY_NAME: &str = "hydrator.key";

/// The configuration that `init` writes. Lines with `#:` are examples that are valid as they stand.
pub(crate) const CONFIG: &str = r#"# Configuration of sluice-hydrator. Relative paths are relative to this file's folder.

# The hydrator's own key. Its public half stands in the agents' configurations; without this file nothing that was
# sealed for it can be read again, so keep a copy where it is safe.
key = "hydrator.key"

# Where segments of a remote cache store are kept from when they were checked until they are applied. Needs room for
# one cycle of each disk. Not used where the cache store is a folder.
spool = "spool"

[appliance]
endpoint = "https://appliance.example:9443"
# From the appliance: `sluice-appliance issue-cert --role hydrator --name NAME` makes the three files.
ca = "ca.pem"
cert = "hydrator.pem"
key = "hydrator-key.pem"

[cache]
# The store that the appliance fills, by the same url as in its configuration: file:///folder, az://container or
# s3://bucket. Credentials are taken from the environment (AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_KEY,
# AWS_ACCESS_KEY_ID and so on) or from [cache.settings].
url = "file:///etc/sluice/appliance/cache"

#: [cache.settings]
#: account_name = "examplestore"

[targets]
# Disks without a [[target]] of their own get a file here, named by host, disk and id.
folder = "/srv/sluice"
# vhd (fixed, what Azure takes), vhd-dynamic, vhdx, vhdx-dynamic or raw.
format = "vhd"

# The target of one disk, by the id that `sluice` and the appliance show for it.
#: [[target]]
#: disk = "0b0e2c1e-5d55-4b62-8a4b-1f1f0d7a3a11"
#: path = "/dev/disk/by-id/example"
#: format = "raw"
# What the hydrator notes of the target: next to an image, in PATH.sluice, if it is left out; a block device needs a folder.
#: state = "/var/lib/sluice/example"
# A file or device that is there already is only taken with this.
#: overwrite = false
"#;

/// What `init` made.
#[derive(Debug)]
pub struct Made {
    /// The configuration file.
    pub config: PathBuf,
    /// The key file.
    pub key: PathBuf,
    /// The public key, in base64, for the agents' configurations.
    pub public: String,
}

/// `init` could not be done; what was there already is left as it was.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The key could not be made.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// A file or the folder could not be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is a configuration already.
    #[error("{0} exists already; it is not overwritten")]
    Exists(String),
}

/// Makes the folder, a key and a configuration in it.
///
/// # Errors
/// One of them exists already, or can't be written.
pub fn init(folder: &Path) -> Result<Made, InitError> {
    durable::create_folder(folder)?;
    let (config, key_path) = (folder.join(CONFIG_NAME), folder.join(KEY_NAME));
    if config.symlink_metadata().is_ok() {
        return Err(InitError::Exists(config.display().to_string()));
    }
    let key = keys::create(&key_path)?;
    durable::write_file(&config, CONFIG.as_bytes(), Access::Owner)?;
    Ok(Made { config, key: key_path, public: keys::public_text(&key) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makes_what_run_reads_and_never_twice() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().join("new/one");
        let made = init(&dir).expect("made");
        let config = crate::config::Config::load(&made.config).expect("valid");
        let key = keys::load(&config.key).expect("the key");
        assert_eq!(keys::public_text(&key), made.public);
        assert!(init(&dir).expect_err("refused").to_string().contains("exists already"));
    }
}
