//! Round trips, and archives that are damaged, reordered, resigned or made up.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use proptest::prelude::*;
use reddwarf_zar::{Manifest, PartKind, PublicKey, SigningKey, ZarError, create, extract, open, verify};
use std::fs::File;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

fn manifest() -> Manifest {
    let config = serde_json::from_str(r#"{"Cmd":["/bin/app"],"Env":["A=b"]}"#).unwrap();
    let (os, architecture) = ("linux".into(), "amd64".into());
    Manifest { zar: 1, name: "local/box:1".into(), os, architecture, config, parts: Vec::new() }
}

fn file(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    File::create(&path).unwrap().write_all(bytes).unwrap();
    path
}

/// An archive of two parts.
fn archive(key: Option<&SigningKey>) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let parts: Vec<_> = [("a", &[1u8; 700][..]), ("b", &[2u8; 1024])]
        .iter()
        .map(|(name, bytes)| (PartKind::Layer, file(dir.path(), name, bytes)))
        .collect();
    let target = dir.path().join("box.zar");
    create(manifest(), &parts, key, &target).unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3, "nothing else is left");
    std::fs::read(target).unwrap()
}

#[test]
fn what_was_made_is_verified_and_found_again() {
    let key = SigningKey::parse(&SigningKey::generate().unwrap()).unwrap();
    let bytes = archive(Some(&key));
    let opened = verify(Cursor::new(&bytes), &[key.public()]).unwrap();
    assert_eq!((opened.manifest.name.as_str(), opened.places.len()), ("local/box:1", 2));
    let place = opened.places[1];
    let at = usize::try_from(place.offset).unwrap();
    assert_eq!(bytes[at..at + 1024], [2; 1024]);
    let config: serde_json::Value = serde_json::from_str(&opened.manifest.image_config()).unwrap();
    assert_eq!(config["rootfs"]["diff_ids"][0], opened.manifest.parts[0].digest);
    assert_eq!(config["config"]["Cmd"][0], "/bin/app");
    assert_eq!(PublicKey::parse(&key.public().text()).unwrap(), key.public());
}

#[test]
fn an_archive_is_taken_apart_as_it_comes() {
    let key = SigningKey::parse(&SigningKey::generate().unwrap()).unwrap();
    let bytes = archive(Some(&key));
    let dir = tempfile::tempdir().unwrap();
    extract(&bytes[..], dir.path()).unwrap();
    let read = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
    assert_eq!((read("parts/0"), read("parts/1")), (vec![1; 700], vec![2; 1024]));
    assert!(key.public().verifies(&read("zar.json"), &read("zar.sig")));
}

#[test]
fn an_archive_replaces_none_and_a_half_made_one_is_in_nobodys_way() {
    let dir = tempfile::tempdir().unwrap();
    let parts = [(PartKind::Layer, file(dir.path(), "a", &[1; 700]))];
    let (target, left) = (dir.path().join("box.zar"), file(dir.path(), "box.zar.new", b"cut off"));
    create(manifest(), &parts, None, &target).unwrap();
    assert!(!left.exists());
    let made = std::fs::read(&target).unwrap();
    let refused = create(manifest(), &parts, None, &target).unwrap_err();
    assert!(matches!(&refused, ZarError::Io { source, .. } if source.kind() == std::io::ErrorKind::AlreadyExists));
    assert_eq!(std::fs::read(&target).unwrap(), made);
}

#[test]
fn a_signature_is_asked_for_where_keys_are_trusted() {
    let new = || SigningKey::parse(&SigningKey::generate().unwrap()).unwrap();
    let (key, other) = (new(), new());
    let untrusted = |bytes: &[u8]| match verify(Cursor::new(bytes), &[other.public()]) {
        Err(ZarError::Untrusted(why)) => why,
        other => panic!("{other:?}"),
    };
    assert!(untrusted(&archive(None)).contains("not signed"));
    assert!(untrusted(&archive(Some(&key))).contains("none of the keys"));
    verify(Cursor::new(archive(None)), &[]).unwrap();
}

#[test]
fn archives_that_are_none_are_told_why() {
    let tar = |entries: &[(&str, &[u8])]| {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, bytes) in entries {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_entry_type(tar::EntryType::Regular);
            tar.append_data(&mut header, name, *bytes).unwrap();
        }
        tar.into_inner().unwrap()
    };
    let good = archive(None);
    let text = open(Cursor::new(&good)).unwrap().text;
    let (a, b) = ([1u8; 700], [2u8; 1024]);
    let later = String::from_utf8(text.clone()).unwrap().replace("\"zar\": 1", "\"zar\": 2");
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (Vec::new(), "it is empty"),
        (tar(&[("parts/0", &a)]), "does not begin with zar.json"),
        (tar(&[("zar.json", b"{}")]), "zar.json can't be read"),
        (tar(&[("zar.json", later.as_bytes())]), "it is of version 2"),
        (tar(&[("zar.json", &text), ("parts/0", &a)]), "it ends before parts/1"),
        (tar(&[("zar.json", &text), ("parts/1", &b)]), "where parts/0 should be"),
        (tar(&[("zar.json", &text), ("parts/0", &b)]), "parts/0 has 1024 bytes"),
        (tar(&[("zar.json", &text), ("zar.sig", b"x")]), "zar.sig has 1 bytes"),
        (tar(&[("zar.json", &text), ("parts/0", &a), ("parts/1", &b), ("more", b"")]), "does not name"),
    ];
    for (bytes, why) in cases {
        let error = open(Cursor::new(bytes)).unwrap_err().to_string();
        assert!(error.contains(why), "{why}: {error}");
    }
}

proptest! {
    /// Every bit counts but those of the tar format's own padding and dates.
    #[test]
    fn a_flipped_bit_is_noticed_or_means_nothing(at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let good = archive(None);
        let mut bytes = good.clone();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let before = verify(Cursor::new(&good), &[]).unwrap();
        let apart = tempfile::tempdir().unwrap();
        let extracted = extract(&bytes[..], apart.path());
        if let Ok(after) = verify(Cursor::new(&bytes), &[]) {
            prop_assert!(extracted.is_ok(), "{:?}", extracted);
            prop_assert_eq!(before.manifest.parts, after.manifest.parts);
            prop_assert_eq!(before.places, after.places);
        } else {
            prop_assert!(extracted.is_err());
        }
    }

    #[test]
    fn any_bytes_and_any_cut_are_refused_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..2000), cut in any::<prop::sample::Index>()) {
        prop_assert!(open(Cursor::new(&bytes)).is_err());
        let good = archive(None);
        let _ = verify(Cursor::new(&good[..cut.index(good.len())]), &[]);
        let _ = Manifest::parse(&bytes);
        let apart = tempfile::tempdir().unwrap();
        prop_assert!(extract(&bytes[..], apart.path()).is_err());
    }
}

/// Whoever may import an archive may not read the host's files that way.
#[test]
fn a_file_that_is_no_archive_is_not_quoted() {
    let shadow = format!("root:$y$j9T$secret:19000:0:99999:7:::\n{}", "daemon:*:19000:0:99999:7:::\n".repeat(60));
    let said = reddwarf_zar::open(std::io::Cursor::new(shadow.as_bytes())).unwrap_err().to_string();
    assert!(said.contains("no archive") && !said.contains("root") && !said.contains("daemon"), "{said}");
    let raw = tar::Archive::new(shadow.as_bytes()).entries().unwrap().next().unwrap().err().unwrap();
    assert!(raw.to_string().contains("root:"), "tar itself quotes: {raw}");
    assert_eq!(reddwarf_zar::damage(&raw), "numeric field was not a number");
}
