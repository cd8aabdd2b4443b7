//! Fetching images from registries: what is asked, how far it is, what came of it.

use crate::names::ImageId;
use crate::reference::ImageReference;
use crate::spec::Sensitive;

/// An image to be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullRequest {
    /// Which.
    pub reference: ImageReference,
    /// Credentials of whoever asks, strongest first; the host's own come after them.
    pub secrets: Vec<PullSecret>,
}

/// A document with credentials for registries, as it lies in a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullSecret {
    /// `kubernetes.io/dockerconfigjson`: docker's config.json.
    DockerConfigJson(Sensitive<Vec<u8>>),
    /// `kubernetes.io/dockercfg`: the map of registries alone.
    DockerCfg(Sensitive<Vec<u8>>),
}

/// What came of a pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PulledImage {
    /// The image's id.
    pub id: ImageId,
    /// `registry/repository@sha256:…`: what the registry called it.
    pub repo_digest: String,
    /// Bytes of its layers and config as the registry has them.
    pub size_bytes: u64,
    /// Whether anything was fetched; `false`: the registry still has what is here.
    pub fetched: bool,
}

/// How far a pull is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PullProgress {
    /// What is being done.
    pub stage: PullStage,
    /// Bytes that are here, of those that had to be fetched.
    pub bytes_done: u64,
    /// Bytes that have to be fetched.
    pub bytes_total: u64,
    /// Layers that are unpacked.
    pub layers_done: u32,
    /// Layers of the image.
    pub layers_total: u32,
}

/// The parts of a pull.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullStage {
    /// Others are pulled first.
    #[default]
    Waiting,
    /// The registry is asked what the name means.
    Resolving,
    /// Layers are fetched.
    Fetching,
    /// Layers are unpacked.
    Unpacking,
}

impl PullStage {
    /// The word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Resolving => "resolving",
            Self::Fetching => "fetching",
            Self::Unpacking => "unpacking",
        }
    }
}
