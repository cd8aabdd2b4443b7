//! The manifest: the archive's first entry, `zar.json`.

use crate::{Result, invalid};
use serde::{Deserialize, Serialize};

/// The version of the format.
pub const VERSION: u32 = 1;
/// Bytes of a manifest at most.
pub const MANIFEST_BYTES: u64 = 1 << 20;
/// Parts at most: docker's limit of layers.
pub const PARTS: usize = 127;

/// What an archive says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    /// [`VERSION`].
    pub zar: u32,
    /// The name that its maker suggests.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `linux` or `illumos`.
    pub os: String,
    /// As OCI names it: `amd64`.
    pub architecture: String,
    /// How it is run: the object `config` of an OCI image config (Entrypoint, Cmd, Env, WorkingDir, User, StopSignal).
    #[serde(default)]
    pub config: serde_json::Map<String, serde_json::Value>,
    /// What it consists of, lowest first.
    pub parts: Vec<Part>,
}

/// One part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Part {
    /// What it is.
    pub kind: PartKind,
    /// Bytes.
    pub size: u64,
    /// `sha256:` and 64 digits: of the part as it lies in the archive.
    pub digest: String,
}

/// Kinds of parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PartKind {
    /// An uncompressed tar: a layer as in an OCI image, whiteouts included.
    Layer,
    /// A stream of `zfs send`: the first a full one, others incremental to the one before.
    Zfs,
}

impl Manifest {
    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let manifest: Self = match serde_json::from_slice(bytes) {
            Ok(manifest) => manifest,
            Err(error) => return invalid(format!("zar.json can't be read: {error}")),
        };
        manifest.check()?;
        Ok(manifest)
    }

    /// Holds it to the rules.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn check(&self) -> Result<()> {
        if self.zar != VERSION {
            return invalid(format!("it is of version {}, known here is {VERSION}", self.zar));
        }
        if !matches!(self.os.as_str(), "linux" | "illumos") {
            return invalid(format!("it is for {:?}: known are linux and illumos", self.os));
        }
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        if self.architecture.is_empty() || !self.architecture.bytes().all(plain) {
            return invalid(format!("{:?} is no architecture", self.architecture));
        }
        if self.parts.is_empty() || self.parts.len() > PARTS {
            return invalid(format!("it has {} parts; 1 to {PARTS} are allowed", self.parts.len()));
        }
        let first = self.parts.first().map(|p| p.kind);
        if self.parts.iter().any(|p| Some(p.kind) != first) {
            return invalid("it mixes layers and zfs streams");
        }
        for part in &self.parts {
            let hex = part.digest.strip_prefix("sha256:").unwrap_or_default();
            if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
                return invalid(format!("the digest {:?} is no sha256", part.digest));
            }
        }
        Ok(())
    }

    /// The OCI image config that it amounts to, which makes the image's id.
    pub fn image_config(&self) -> String {
        let diff_ids: Vec<&str> = self.parts.iter().map(|p| p.digest.as_str()).collect();
        serde_json::json!({
            "architecture": self.architecture,
            "os": self.os,
            "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        })
        .to_string()
    }
}
