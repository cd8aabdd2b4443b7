//! `.zar` archives: opened, their parts' places, all of them verified.
#![no_main]

use std::io::Cursor;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(opened) = reddwarf_zar::open(Cursor::new(bytes)) {
        assert_eq!(opened.places.len(), opened.manifest.parts.len());
        let end = opened.places.iter().all(|place| place.offset <= bytes.len() as u64);
        assert!(end, "a part lies past the end");
    }
    let _ = reddwarf_zar::verify(Cursor::new(bytes), &[]);
    let _ = reddwarf_zar::Manifest::parse(bytes);
});
