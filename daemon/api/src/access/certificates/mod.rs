//! Certificates: our own authority and what it issues, the user's own files, and clients'.
//!
//! | to know | look in |
//! |---|---|
//! | the authority under the state directory, and the certificates that it issues | [`authority`] |
//! | which certificates are in force, and when they change | [`keyring`] |
//! | whether the user's files can be served with | [`offline`] |
//! | who a client's certificate says it is | [`client`], [`der`] |

pub(crate) mod authority;
pub(crate) mod client;
pub(crate) mod der;
pub(crate) mod keyring;
pub(crate) mod offline;
pub(crate) mod pem;

use crate::access::files::FileError;
use std::path::{Path, PathBuf};

/// Why there are no certificates to serve with.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file of the user's is not what it should be.
    #[error("{path}: {why}", path = .path.display())]
    Unusable {
        /// Which.
        path: PathBuf,
        /// What is wrong and how to mend it.
        why: String,
    },
    /// A key or certificate could not be made.
    #[error("a {what} could not be made: {why}")]
    Made {
        /// What.
        what: &'static str,
        /// Why.
        why: String,
    },
}

impl CertificateError {
    /// The file that is to blame.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(error) => Some(&error.path),
            Self::Unusable { path, .. } => Some(path),
            Self::Made { .. } => None,
        }
    }
}

fn unusable(path: &Path, why: &dyn std::fmt::Display) -> CertificateError {
    CertificateError::Unusable { path: path.to_owned(), why: why.to_string() }
}
