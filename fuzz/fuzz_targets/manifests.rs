//! Manifest files in every format, as far as objects: nothing that a file holds ends the daemon.
#![no_main]

use reddwarf_config::{Limits, check, parse_file};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for name in ["a.yaml", "a.json", "a.toml"] {
        let (documents, diagnostics) = parse_file(name, bytes, &Limits::default());
        let checked = check(documents);
        for diagnostic in diagnostics.iter().chain(&checked.diagnostics) {
            let _ = diagnostic.render(false);
        }
    }
});
