//! `Volume` as the node reads it.

use super::container::{FieldRef, ResourceFieldRef};
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
    /// Fields of the pod as files.
    #[serde(rename = "downwardAPI")]
    pub downward_api: Option<DownwardVolume>,
    /// Several sources in one directory.
    pub projected: Option<ProjectedVolume>,
    /// What a PersistentVolumeClaim of the pod's namespace is bound to.
    pub persistent_volume_claim: Option<ClaimVolume>,
    /// A claim that is made for the pod and goes with it.
    pub ephemeral: Option<EphemeralVolume>,
}

impl Volume {
    /// The claim that it is mounted through, in a pod of this name: the one it names, or the one that is made for it.
    pub fn claim_name(&self, pod: &str) -> Option<String> {
        match (&self.persistent_volume_claim, &self.ephemeral) {
            (Some(claim), _) => Some(claim.claim_name.clone()),
            (None, Some(_)) => Some(format!("{pod}-{}", self.name)),
            (None, None) => None,
        }
    }
}

/// A claim by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimVolume {
    /// The claim's name.
    pub claim_name: String,
    /// No container may write to it.
    pub read_only: bool,
}

/// A claim that is made for the pod. Its template is read by whoever makes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EphemeralVolume {}

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

/// Fields of the pod as files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DownwardVolume {
    /// Which field in which file.
    pub items: Vec<DownwardFile>,
    /// Permission bits of the files.
    pub default_mode: u32,
}

impl Default for DownwardVolume {
    fn default() -> Self {
        Self { items: Vec::new(), default_mode: 0o644 }
    }
}

/// One field of the pod as a file; exactly one source is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DownwardFile {
    /// The file, relative to the volume.
    pub path: String,
    /// A field such as `metadata.labels`.
    pub field_ref: Option<FieldRef>,
    /// A container's request or limit.
    pub resource_field_ref: Option<ResourceFieldRef>,
    /// Permission bits; the volume's when absent.
    pub mode: Option<u32>,
}

/// Several sources in one directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProjectedVolume {
    /// The sources; later ones win.
    pub sources: Vec<Projection>,
    /// Permission bits of the files.
    pub default_mode: u32,
}

impl Default for ProjectedVolume {
    fn default() -> Self {
        Self { sources: Vec::new(), default_mode: 0o644 }
    }
}

/// One source of a projected volume; exactly one of these is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Projection {
    /// Keys of a ConfigMap.
    pub config_map: Option<KeysProjection>,
    /// Keys of a Secret.
    pub secret: Option<KeysProjection>,
    /// Fields of the pod.
    #[serde(rename = "downwardAPI")]
    pub downward_api: Option<DownwardProjection>,
    /// A token of the pod's account.
    pub service_account_token: Option<TokenProjection>,
    /// Certificates of authorities.
    pub cluster_trust_bundle: Option<TrustProjection>,
}

/// Keys of a ConfigMap or Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeysProjection {
    /// The object's name.
    pub name: String,
    /// Which keys and where; all keys by their names when empty.
    pub items: Vec<KeyToPath>,
    /// May it, or a named key, be absent?
    pub optional: bool,
}

/// Fields of the pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DownwardProjection {
    /// Which field in which file.
    pub items: Vec<DownwardFile>,
}

/// A token of the pod's account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TokenProjection {
    /// For whom it is; the API when empty.
    pub audience: String,
    /// Its life; it is renewed after four fifths of it.
    pub expiration_seconds: i64,
    /// The file, relative to the volume.
    pub path: String,
}

impl Default for TokenProjection {
    fn default() -> Self {
        Self { audience: String::new(), expiration_seconds: 3600, path: String::new() }
    }
}

/// Certificates of authorities, from ClusterTrustBundles.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TrustProjection {
    /// One bundle by name.
    pub name: Option<String>,
    /// All bundles of a signer.
    pub signer_name: Option<String>,
    /// May there be none? Then the file is empty.
    pub optional: bool,
    /// The file, relative to the volume.
    pub path: String,
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
