//! Which names in a manifest directory mean what.

use crate::document::Format;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Whether a name is left alone without a word: hidden files, and what editors and package managers leave behind.
pub(super) fn is_ignored(name: &OsStr) -> bool {
    let bytes = name.as_bytes();
    let ends = |suffix: &str| bytes.ends_with(suffix.as_bytes());
    bytes.starts_with(b".")
        || (bytes.starts_with(b"#") && ends("#"))
        // vim's test whether it can write to a directory.
        || bytes == b"4913"
        || ends("~")
        || [".swp", ".swo", ".swx", ".bak", ".tmp", ".orig", ".rej", ".new", ".part"].iter().any(|s| ends(s))
        || [".rpmsave", ".rpmnew", ".rpmorig", ".dpkg-old", ".dpkg-new", ".dpkg-dist", ".dpkg-tmp", ".ucf-dist"]
            .iter()
            .any(|s| ends(s))
}

/// Whether a name is a manifest's, even when it is not UTF-8.
pub(super) fn is_manifest(name: &OsStr) -> bool {
    [".yaml", ".yml", ".json", ".toml"].iter().any(|s| name.as_bytes().ends_with(s.as_bytes()))
}

/// Whether a directory's name is one for drop-ins: `web.d` for `web.yaml`, or `web.yaml.d`.
pub(super) fn is_drop_in_directory(name: &str) -> bool {
    name.len() > 2 && name.ends_with(".d")
}

/// The bases that a drop-in directory `web.d` or `web.yaml.d` may belong to, in order.
pub(super) fn drop_in_bases(directory: &str) -> Vec<String> {
    let stem = directory.strip_suffix(".d").unwrap_or(directory);
    if Format::of(stem).is_some() {
        return vec![stem.to_owned()];
    }
    ["yaml", "yml", "json", "toml"].iter().map(|extension| format!("{stem}.{extension}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_editors_leave_behind_is_ignored() {
        for name in [
            ".web.yaml.swp",
            "web.yaml~",
            "#web.yaml#",
            ".#web.yaml",
            "4913",
            "web.yaml.bak",
            ".git",
            "web.yaml.rpmnew",
        ] {
            assert!(is_ignored(OsStr::new(name)), "{name}");
        }
        for name in ["web.yaml", "4913.yaml", "web#1.yaml", "bak.yaml", "shop", "web.d"] {
            assert!(!is_ignored(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn drop_in_directories_name_their_base() {
        assert_eq!(drop_in_bases("web.d"), ["web.yaml", "web.yml", "web.json", "web.toml"]);
        assert_eq!(drop_in_bases("shop/web.toml.d"), ["shop/web.toml"]);
    }
}
