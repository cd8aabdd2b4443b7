//! Documents that were asked for lately, compressed.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use reddwarf_objects::openapi;
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::sync::{LazyLock, Mutex, PoisonError};

/// Bytes of compressed documents that are kept. One has 10 to 150 KiB.
const KEPT: usize = 384 << 10;

/// Which document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Document {
    /// OpenAPI 3 of a group (empty for core) and version.
    V3 { group: String, version: String },
    /// OpenAPI 2.
    V2Json,
    /// OpenAPI 2 in gnostic's messages.
    V2Protobuf,
}

impl Document {
    /// Changes when the document does: what it is made from, under its name.
    pub(crate) fn hash(&self) -> String {
        static SOURCES: LazyLock<String> = LazyLock::new(|| {
            let mut digest = Sha256::new();
            digest.update(env!("CARGO_PKG_VERSION"));
            openapi::sources().iter().for_each(|source| digest.update(source));
            hex(&digest.finalize())
        });
        hash(format!("{} {self:?}", *SOURCES).as_bytes())
    }

    fn make(&self) -> Vec<u8> {
        match self {
            Self::V3 { group, version } => openapi::v3(group, version).unwrap_or_default().into_bytes(),
            Self::V2Json => openapi::v2_json().into_bytes(),
            Self::V2Protobuf => openapi::v2_protobuf(),
        }
    }
}

/// A short name of some content.
pub(crate) fn hash(content: &[u8]) -> String {
    hex(&Sha256::digest(content))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

/// The documents that were asked for last.
pub(crate) struct Documents {
    /// Since when this daemon serves what it serves, as an HTTP date.
    since: String,
    kept: Mutex<VecDeque<(Document, Bytes)>>,
    /// Held while a document is made: one at a time, however many ask.
    making: Mutex<()>,
}

impl Documents {
    pub(crate) fn new(now: DateTime<Utc>) -> Self {
        Self {
            since: now.format("%a, %d %b %Y %H:%M:%S GMT").to_string(),
            kept: Mutex::default(),
            making: Mutex::default(),
        }
    }

    pub(crate) fn since(&self) -> &str {
        &self.since
    }

    /// A document, compressed or not. Takes some tens of milliseconds when it has to be made.
    pub(crate) fn get(&self, document: &Document, gzip: bool) -> Bytes {
        let mut found = self.find(document);
        let making = found.is_none().then(|| self.making.lock().unwrap_or_else(PoisonError::into_inner));
        if making.is_some() {
            // Perhaps somebody else has made it meanwhile.
            found = self.find(document);
        }
        match found {
            Some(compressed) if gzip => compressed,
            Some(compressed) => {
                let mut plain = Vec::new();
                // What we compressed ourselves can be read again.
                let _ = GzDecoder::new(&*compressed).read_to_end(&mut plain);
                plain.into()
            }
            None => {
                let plain = document.make();
                let compressed = compress(&plain);
                self.keep(document.clone(), compressed.clone());
                if gzip { compressed } else { plain.into() }
            }
        }
    }

    fn find(&self, document: &Document) -> Option<Bytes> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().find(|(d, _)| d == document).map(|(_, bytes)| bytes.clone())
    }

    fn keep(&self, document: Document, compressed: Bytes) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(d, _)| *d != document);
        kept.push_back((document, compressed));
        while kept.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() > KEPT {
            kept.pop_front();
        }
    }
}

fn compress(plain: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 8), Compression::fast());
    // Into memory: can't fail.
    let _ = encoder.write_all(plain);
    let mut compressed = encoder.finish().unwrap_or_default();
    compressed.shrink_to_fit();
    compressed.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_the_same_each_time_and_not_too_many_are_kept() {
        let documents = Documents::new(DateTime::UNIX_EPOCH);
        assert_eq!(documents.since(), "Thu, 01 Jan 1970 00:00:00 GMT");
        for (group, version) in openapi::group_versions() {
            let document = Document::V3 { group: group.to_owned(), version: version.to_owned() };
            let first = documents.get(&document, false);
            assert_eq!(first, documents.get(&document, false), "{group}/{version}");
        }
        let kept = documents.kept.lock().unwrap();
        let bytes: usize = kept.iter().map(|(_, bytes)| bytes.len()).sum();
        assert!(kept.len() > 1 && bytes <= KEPT, "{} {bytes}", kept.len());
        assert_ne!(Document::V2Json.hash(), Document::V2Protobuf.hash());
    }
}
