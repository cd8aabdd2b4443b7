//! What is asked of a host to make an image of something that is here.

use crate::names::{ContainerName, ImageId, SandboxId};
use crate::observe::ImageConfig;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// An image to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageBuild {
    /// What is in it.
    pub content: BuildContent,
    /// How it is to be run, in whole: nothing is taken over from the image below.
    pub config: ImageConfig,
    /// The name it gets; one that pointed elsewhere moves.
    pub name: String,
}

/// What an image is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildContent {
    /// Files of the host, over another image.
    Files {
        /// The image below; `None`: nothing is.
        base: Option<ImageId>,
        /// Later ones lie over earlier ones. None at all: the image below with another config.
        files: Vec<BuildFile>,
    },
    /// The image of a container that has ended, and what the container changed in its root file system. Volumes, and
    /// what the host mounts into every container, do not count.
    Container {
        /// Where it ran.
        sandbox: SandboxId,
        /// Its name.
        name: ContainerName,
        /// Which instance.
        attempt: u32,
    },
}

/// Files of the host for an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BuildFile {
    /// A file, or a directory whose content is meant. Symbolic links to it are followed, those in it are kept.
    pub source: PathBuf,
    /// Absolute path in the image: of the file (of its directory, when it ends in `/`), or of the directory that the
    /// content goes to. Directories on the way are made; those that are there keep their attributes.
    pub target: String,
    /// User and group id of all of it.
    pub owner: (u32, u32),
}
