//! What registries and users send, as fuzzers and property tests give it: nothing panics, and what is taken keeps its rules.

use crate::challenge;
use crate::credentials::Logins;
use crate::manifest::{Document, Platform, blob_hex, choose, diff_ids, read};
use reddwarf_host::ImageConfig;

/// Any bytes as any of the documents.
#[allow(clippy::panic, reason = "how a fuzzer is told")]
pub fn documents(bytes: &[u8]) {
    let platform = Platform::new("linux", "amd64");
    match read(bytes, "") {
        Ok(Document::Index(all)) => {
            if let Ok(chosen) = choose(all, &platform) {
                assert!(blob_hex(&chosen.digest).is_ok(), "chosen: {:?}", chosen.digest);
            }
        }
        Ok(Document::Manifest(manifest)) => {
            assert!((1..=127).contains(&manifest.layers.len()), "{} layers", manifest.layers.len());
            let mut digests = manifest.layers.iter().chain([&manifest.config]).map(|d| &d.digest);
            assert!(digests.all(|digest| blob_hex(digest).is_ok()));
        }
        Err(_) => {}
    }
    for layers in 0..3 {
        if let Ok(ids) = diff_ids(bytes, layers, &platform) {
            assert!(ids.len() == layers && ids.iter().all(|id| blob_hex(id).is_ok()));
        }
    }
    let _ = ImageConfig::of_document(bytes);
    let _ = Logins::of_config(bytes).map(|logins| logins.matching("registry.lan:5000", "team/app"));
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = challenge::parse([text].into_iter());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seeds() -> Vec<String> {
        let digest = format!("sha256:{}", "a".repeat(64));
        let layer =
            format!(r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"{digest}","size":1}}"#);
        vec![
            format!(r#"{{"schemaVersion":2,"config":{{"digest":"{digest}","size":1}},"layers":[{layer},{layer}]}}"#),
            format!(
                r#"{{"schemaVersion":2,"manifests":[{{"digest":"{digest}","size":1,"platform":{{"os":"linux","architecture":"amd64"}}}}]}}"#
            ),
            format!(r#"{{"os":"linux","config":{{"Cmd":["a"]}},"rootfs":{{"diff_ids":["{digest}"]}}}}"#),
            r#"{"auths":{"registry.lan:5000":{"auth":"dXNlcjpwYXNz"},"*.io/team":{"username":"u","password":"p"}}}"#
                .into(),
            r#"Bearer realm="https://a/token",service="r",scope="repository:a/b:pull""#.into(),
        ]
    }

    proptest! {
        /// A document that is right, but for a few bytes.
        #[test]
        fn damaged_documents_are_read_or_refused(
            seed in 0..5usize,
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        ) {
            let mut bytes = seeds().swap_remove(seed).into_bytes();
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            documents(&bytes);
        }
    }
}
