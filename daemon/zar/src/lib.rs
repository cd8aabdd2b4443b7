//! `.zar`: one archive for a golden image. docs/zar.md is the specification.
//!
//! | module | holds |
//! |---|---|
//! | [`manifest`] | what an archive says of itself, and the rules that it must keep |
//! | [`mod@write`] | making an archive |
//! | [`read`] | opening one, its parts' places, verifying all of it |
//! | [`sign`] | ed25519 keys and signatures |
//!
//! Nothing is unpacked here. Everything is read and written as a stream; memory is bounded by the manifest's 1 MiB.

pub mod manifest;
pub mod read;
pub mod sign;
pub mod write;

pub use manifest::{Manifest, Part, PartKind};
pub use read::{Opened, Place, damage, extract, open, verify};
pub use sign::{PublicKey, SigningKey};
pub use write::create;

/// What is wrong with an archive, a key, or the files that one is made of.
#[derive(Debug, thiserror::Error)]
pub enum ZarError {
    /// Reading or writing failed.
    #[error("{what}: {source}")]
    Io {
        /// What was done, with what.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The archive breaks a rule.
    #[error("{0}")]
    Invalid(String),
    /// It is not signed as it must be.
    #[error("{0}")]
    Untrusted(String),
}

/// Result of this crate's calls.
pub type Result<T> = std::result::Result<T, ZarError>;

pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> ZarError {
    let what = what.into();
    |source| ZarError::Io { what, source }
}

pub(crate) fn invalid<T>(why: impl Into<String>) -> Result<T> {
    Err(ZarError::Invalid(why.into()))
}

/// Bytes as lower-case hexadecimal digits, as digests are written.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// `sha256:…` of what was hashed.
pub fn digest_text(hash: sha2::Sha256) -> String {
    use sha2::Digest;
    format!("sha256:{}", hex(&hash.finalize()))
}

#[cfg(test)]
mod tests {
    use sha2::Digest;

    #[test]
    fn digests_are_put_into_words() {
        assert_eq!(super::hex(&[0, 0x0a, 0xff]), "000aff");
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(super::digest_text(sha2::Sha256::new()), empty);
    }
}
