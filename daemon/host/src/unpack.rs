//! What images' layers and archives may come to when they are unpacked: the same on every host.

use serde::{Deserialize, Serialize};

/// What one layer or archive may come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnpackLimits {
    /// Most bytes, decompressed.
    pub bytes: u64,
    /// Most entries.
    pub entries: u64,
    /// Most decompressed bytes per compressed byte, past the first [`UnpackLimits::ratio_free_bytes`].
    pub ratio: u64,
    /// How many bytes may be had at any ratio: small files of zeros are common.
    pub ratio_free_bytes: u64,
}

impl Default for UnpackLimits {
    fn default() -> Self {
        Self { bytes: 64 << 30, entries: 2_000_000, ratio: 200, ratio_free_bytes: 256 << 20 }
    }
}

/// What there is too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooMuch {
    /// So many bytes are too many.
    #[error("it unpacks to more than {} MiB", .0 >> 20)]
    Bytes(u64),
    /// So many times its size.
    #[error("it unpacks to more than {0} times its size: refused as a decompression bomb")]
    Ratio(u64),
    /// So many entries are too many.
    #[error("it has more than {0} entries")]
    Entries(u64),
}

impl UnpackLimits {
    /// Whether so many bytes may come of so many compressed ones.
    ///
    /// # Errors
    /// [`TooMuch`].
    pub fn check_bytes(&self, plain: u64, compressed: u64) -> Result<(), TooMuch> {
        if plain > self.bytes {
            return Err(TooMuch::Bytes(self.bytes));
        }
        if plain > self.ratio_free_bytes && plain.checked_div(self.ratio).is_none_or(|least| least > compressed) {
            return Err(TooMuch::Ratio(self.ratio));
        }
        Ok(())
    }

    /// Whether there may be so many entries.
    ///
    /// # Errors
    /// [`TooMuch`].
    pub fn check_entries(&self, entries: u64) -> Result<(), TooMuch> {
        if entries > self.entries { Err(TooMuch::Entries(self.entries)) } else { Ok(()) }
    }
}
