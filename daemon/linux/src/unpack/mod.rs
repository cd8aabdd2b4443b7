//! Reading images, in processes of their own.
//!
//! An image is somebody else's data, and unpacking it needs root's rights on files. So the daemon never does it itself:
//! it starts `reddwarfd __unpack`, gives it one [`Job`] on standard input, and reads one answer from standard output.
//!
//! | job | does | gives up first |
//! |---|---|---|
//! | `Find` | finds config and layers in what the user points at | network, memory |
//! | `Layer` | unpacks one layer into an empty directory | network, memory, the file system outside of that directory, capabilities |
//! | `Flatten` | copies an image's layers, as they are seen together, into one directory | network, memory, capabilities |
//! | `Files`, `Changes` | packs files of the host, or what a container changed, as a layer | network, memory |
//!
//! | module | holds |
//! |---|---|
//! | `source`, `pack` | OCI layouts and archives, docker archives, directories |
//! | `made`, `overlay` | layers of files and of containers' changes; how overlayfs keeps those |
//! | `stream`, `zstd`, `entry`, `path` | digests, decompression, tar headers, paths: pure |
//! | `layer`, `flatten` | writing entries below a descriptor; copying what layers show together |
//! | `confine` | namespaces, root directory, capabilities |

mod confine;
mod entry;
mod error;
mod flatten;
#[doc(hidden)]
pub mod fuzz;
mod layer;
mod made;
mod overlay;
mod pack;
mod path;
mod source;
mod stream;
#[cfg(test)]
mod tests;
mod xattr;
mod zstd;

pub(crate) use error::UnpackError;
pub(crate) use source::{BlobPlace, ImageSource, LayerSource};
pub(crate) use stream::digest_of;

use error::{Kind, Result};
use reddwarf_host::{BuildFile, UnpackLimits};
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The argument that makes our program an unpacking process.
#[cfg(not(test))]
pub(crate) const ARGUMENT: &str = "__unpack";

/// One piece of work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Job {
    /// Find an image.
    Find {
        /// What the user points at.
        source: PathBuf,
        /// An empty directory for what must be decompressed or packed first.
        scratch: PathBuf,
        /// Ours, as OCI names it.
        architecture: String,
        /// Limits.
        limits: UnpackLimits,
        /// Public keys, one of which must have signed a `.zar`; none: unsigned ones are taken.
        zar_keys: Vec<String>,
    },
    /// Unpack one layer.
    Layer(LayerJob),
    /// Copy an image's layers into one directory.
    Flatten {
        /// Where layers lie.
        layers_dir: PathBuf,
        /// Their names there, lowest first.
        layers: Vec<String>,
        /// An empty directory.
        scratch: PathBuf,
        /// The empty directory that gets them.
        target: PathBuf,
    },
    /// Pack files of the host.
    Files {
        /// Which.
        files: Vec<BuildFile>,
        /// An empty directory.
        scratch: PathBuf,
        /// Limits.
        limits: UnpackLimits,
    },
    /// Pack what a container changed.
    Changes {
        /// The upper directory of its overlay, or its root; nobody writes there any more.
        changed: PathBuf,
        /// What the root was cloned from; absent for an overlay.
        origin: Option<PathBuf>,
        /// Where the host mounted something into the container.
        mount_points: Vec<PathBuf>,
        /// An empty directory.
        scratch: PathBuf,
        /// Limits.
        limits: UnpackLimits,
    },
}

/// One layer to be unpacked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LayerJob {
    /// Which.
    pub(crate) source: LayerSource,
    /// Where layers lie.
    pub(crate) layers_dir: PathBuf,
    /// The layers below, lowest first, as names in `layers_dir`.
    pub(crate) below: Vec<String>,
    /// A directory that gets: `upper` (the layer), `work`, `merged`.
    pub(crate) scratch: PathBuf,
    /// Limits.
    pub(crate) limits: UnpackLimits,
}

/// What a job gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Answer {
    /// Of `Find`.
    Found(ImageSource),
    /// Of `Layer`: its digests were as announced.
    Unpacked {
        /// How many entries.
        entries: u64,
        /// Device nodes below /dev that were left out.
        skipped_devices: u64,
    },
    /// Of `Flatten`.
    Flattened {
        /// How many entries.
        entries: u64,
    },
    /// Of `Files` and `Changes`; `None`: there was nothing.
    Packed(Option<LayerSource>),
    /// It failed.
    Failed(UnpackError),
}

/// `reddwarfd __unpack`: reads a job from standard input, does it, writes the answer to standard output.
///
/// The process confines itself: never call this in a process that does anything else.
pub fn main() -> ExitCode {
    let answer = main_job().unwrap_or_else(Answer::Failed);
    let written = serde_json::to_vec(&answer).map_err(std::io::Error::from).and_then(|bytes| {
        let mut out = std::io::stdout();
        out.write_all(&bytes)?;
        out.flush()
    });
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn main_job() -> Result<Answer> {
    let other = |e: &dyn std::fmt::Display| UnpackError::new(Kind::Other, format!("read job: {e}"));
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).map_err(|e| other(&e))?;
    let job = serde_json::from_slice(&bytes).map_err(|e| other(&e))?;
    confine::limit_process()?;
    confine::work_for_daemon();
    run(job)
}

/// Does a job in this thread, which gets namespaces and a root directory of its own and must do nothing else after.
pub(crate) fn run(job: Job) -> Result<Answer> {
    confine::leave_namespaces()?;
    // After it: until then the umask is shared with other threads.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    match job {
        Job::Find { source, scratch, architecture, limits, zar_keys } => {
            source::find(&source, &scratch, &architecture, &limits, &zar_keys).map(Answer::Found)
        }
        Job::Layer(job) => unpack_layer(&job),
        Job::Files { files, scratch, limits } => made::files(&files, &scratch, &limits).map(Answer::Packed),
        Job::Flatten { layers_dir, layers, scratch, target } => {
            flatten::flatten(&layers_dir, &layers, &scratch, &target).map(|entries| Answer::Flattened { entries })
        }
        Job::Changes { changed, origin, mount_points, scratch, limits } => {
            made::changes(&changed, origin.as_deref(), &mount_points, &scratch, &limits).map(Answer::Packed)
        }
    }
}

fn unpack_layer(job: &LayerJob) -> Result<Answer> {
    let (upper, work, merged) = (job.scratch.join("upper"), job.scratch.join("work"), job.scratch.join("merged"));
    for dir in [&upper, &work, &merged] {
        std::fs::create_dir(dir).map_err(|e| UnpackError::io("make", dir.display(), &e))?;
    }
    let open = |path: &Path| layer::open_root(path).map_err(|e| UnpackError::system("open", path.display(), e));
    let (root, upper_fd) = if job.below.is_empty() {
        (upper.clone(), None)
    } else {
        confine::mount_onto(&job.layers_dir, &job.below, &upper, &work, &merged)?;
        (merged, Some(open(&upper)?))
    };
    let disk = open(&upper)?;
    let mut blob = stream::BlobReader::new(source::open_place(&job.source.place)?, job.limits)?;
    confine::enter(&root)?;
    confine::drop_capabilities()?;
    let applied = layer::Tree::new(open(Path::new("/"))?, upper_fd).apply(&mut blob, &job.limits)?;
    let sums = blob.finish()?;
    check_digest(job.source.digest.as_deref(), &sums.digest)?;
    check_digest(Some(&job.source.diff_id), &sums.plain_digest)?;
    // All of it must be on disk before the layer gets its name.
    nix::unistd::syncfs(&disk).map_err(|e| UnpackError::system("write", "layer", e))?;
    Ok(Answer::Unpacked { entries: applied.entries, skipped_devices: applied.skipped_devices })
}

fn check_digest(expected: Option<&str>, actual: &str) -> Result<()> {
    match expected {
        Some(expected) if expected != actual => Err(UnpackError::invalid(format!(
            "digest mismatch: layer {expected} has the content of {actual}; the image is damaged"
        ))),
        _ => Ok(()),
    }
}
