//! How much a manifest may ask of the reader.

/// Bounds on what is read and parsed; every one is refused by name when exceeded, never cut short silently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in one file. A larger file is refused by its metadata, without being read.
    pub file_bytes: u64,
    /// Bytes of all files of all layers together.
    pub total_bytes: u64,
    /// Files of all layers together.
    pub files: usize,
    /// Documents in one file, a `List`'s items counted one by one.
    pub documents: usize,
    /// Mappings and sequences inside each other.
    pub depth: usize,
    /// Mappings, sequences and scalars in one file, expanded aliases included.
    pub nodes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            file_bytes: 1 << 20,
            total_bytes: 256 << 20,
            files: 100_000,
            documents: 10_000,
            depth: 64,
            nodes: 500_000,
        }
    }
}
