//! A layer's blob: gzip, zstd or plain, its tar entries; as root also unpacked into a directory that it must not leave.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::path::PathBuf;
use std::sync::LazyLock;

/// `precious` lies beside the root.
static PLACE: LazyLock<PathBuf> = LazyLock::new(|| {
    let place = std::env::temp_dir().join(format!("reddwarf-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&place).expect("a temporary directory");
    std::fs::write(place.join("precious"), "").expect("a file");
    place
});

fuzz_target!(|bytes: &[u8]| {
    reddwarf_linux::unpack::fuzz::stream(bytes);
    let root = PLACE.join("root");
    if std::fs::create_dir(&root).is_ok() {
        reddwarf_linux::unpack::fuzz::apply(bytes, &root);
        let left = std::fs::read_dir(&*PLACE).expect("the directory").count();
        let precious = std::fs::read(PLACE.join("precious")).expect("what lies beside the root");
        assert!(left == 2 && precious.is_empty(), "something was written outside");
        std::fs::remove_dir_all(&root).expect("the root");
    }
});
