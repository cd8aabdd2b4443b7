//! The image store's files.
//!
//! ```text
//! STATE/images/
//!   layers/CHAIN        one unpacked layer, ready to be a lower directory of overlayfs; CHAIN is the first 32
//!                       hexadecimal digits of its chain id (OCI image spec, config.md)
//!   records/ID.json     one image: what it is made of, how it is run
//!   names.json          name to image id
//!   tmp/                unfinished work; cleared when nobody holds its lock
//! ```

use crate::options::LinuxOptions;
use crate::rootfs::io_error;
use reddwarf_host::{HostError, HostErrorKind, HostResult, ImageConfig, ImageId};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// One image of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    /// Its id.
    pub(crate) id: ImageId,
    /// How it is run.
    pub(crate) config: ImageConfig,
    /// Its layers, lowest first, as names of directories in `layers/`.
    pub(crate) layers: Vec<String>,
    /// Bytes on disk of all its layers.
    pub(crate) size_bytes: u64,
}

/// The store below one state directory.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    dir: PathBuf,
}

impl Store {
    pub(crate) fn of(options: &LinuxOptions) -> Self {
        Self { dir: options.state_dir.join("images") }
    }

    pub(crate) fn layers_dir(&self) -> PathBuf {
        self.dir.join("layers")
    }

    fn record_path(&self, id: &ImageId) -> PathBuf {
        let hex = id.as_str().strip_prefix("sha256:").unwrap_or(id.as_str());
        self.dir.join("records").join(format!("{hex}.json"))
    }

    /// One image; `None` when it is not here.
    ///
    /// # Errors
    /// `Other` when the record can't be read.
    pub(crate) fn record(&self, id: &ImageId) -> HostResult<Option<Record>> {
        const OP: &str = "read image record";
        let path = self.record_path(id);
        let bytes = match std::fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|e| io_error(OP, &path, e))?,
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|e| {
            let message = "damaged: remove it and import the image again";
            HostError::new(HostErrorKind::Other, OP, path.display().to_string(), message).caused_by(e)
        })
    }
}
