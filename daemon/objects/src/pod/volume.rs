//! `Volume` as the node reads it.

use crate::quantity::Quantity;
use serde::{Deserialize, Serialize};

/// A named directory that containers mount. Exactly one source is set; none of these when its source is not yet supported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Volume {
    /// Unique in the pod.
    pub name: String,
    /// An empty directory that lives as long as the pod.
    pub empty_dir: Option<EmptyDir>,
    /// A ConfigMap's keys as files.
    pub config_map: Option<ConfigMapVolume>,
    /// A Secret's keys as files.
    pub secret: Option<SecretVolume>,
    /// A directory or file of the host.
    pub host_path: Option<HostPath>,
}

/// An empty directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EmptyDir {
    /// `Memory` for a tmpfs; empty for disk.
    pub medium: String,
    /// At most this many bytes.
    pub size_limit: Option<Quantity>,
}

/// A ConfigMap's keys as files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigMapVolume {
    /// The ConfigMap's name.
    pub name: String,
    /// Which keys and where; all keys by their names when empty.
    pub items: Vec<KeyToPath>,
    /// Permission bits of the files (420 is 0644).
    pub default_mode: u32,
    /// May it, or a named key, be absent?
    pub optional: bool,
}

impl Default for ConfigMapVolume {
    fn default() -> Self {
        Self { name: String::new(), items: Vec::new(), default_mode: 0o644, optional: false }
    }
}

/// A Secret's keys as files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SecretVolume {
    /// The Secret's name.
    pub secret_name: String,
    /// Which keys and where; all keys by their names when empty.
    pub items: Vec<KeyToPath>,
    /// Permission bits of the files (420 is 0644).
    pub default_mode: u32,
    /// May it, or a named key, be absent?
    pub optional: bool,
}

impl Default for SecretVolume {
    fn default() -> Self {
        Self { secret_name: String::new(), items: Vec::new(), default_mode: 0o644, optional: false }
    }
}

/// One key as a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeyToPath {
    /// The key.
    pub key: String,
    /// The file, relative to the volume.
    pub path: String,
    /// Permission bits; the volume's when absent.
    pub mode: Option<u32>,
}

/// A directory or file of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostPath {
    /// Absolute path on the host.
    pub path: String,
    /// `""`, `DirectoryOrCreate`, `Directory`, `FileOrCreate`, `File`, `Socket`, `CharDevice` or `BlockDevice`.
    #[serde(rename = "type")]
    pub kind: String,
}
