//! Every refusal of a text, as users see it. `tests/golden/*.txt` hold input and output of one case each:
//!
//! ```text
//! name.yaml            the file's name
//! <input lines>
//! =====
//! <one-line form of every finding>
//! -----
//! <rustc-like form>
//! ```
//!
//! `UPDATE_GOLDEN=1 cargo test -p reddwarf-config` writes the outputs anew; read the difference before committing it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use reddwarf_config::{Limits, check, parse_file};
use std::path::PathBuf;

fn golden() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Characters that editors would not keep: `<TAB>`, `<NUL>`, `<BAD>` (a byte that is not UTF-8), `<BOM>`, `<CR>`.
fn bytes(text: &str) -> Vec<u8> {
    let text = text.replace("<TAB>", "\t").replace("<BOM>", "\u{FEFF}").replace("<CR>", "\r").replace("<NUL>", "\0");
    let mut out = Vec::new();
    for (i, part) in text.split("<BAD>").enumerate() {
        if i > 0 {
            out.push(0xFF);
        }
        out.extend_from_slice(part.as_bytes());
    }
    out
}

fn outcome(name: &str, input: &str) -> String {
    let limits = Limits { file_bytes: 4096, documents: 5, depth: 8, nodes: 400, ..Limits::default() };
    let (documents, mut findings) = parse_file(name, &bytes(input), &limits);
    if findings.iter().all(|f| !f.is_error()) {
        let count = documents.len();
        let checked = check(documents);
        findings.extend(checked.diagnostics);
        if findings.is_empty() {
            return format!("valid: {count} documents, {} objects\n", checked.declared.len());
        }
    }
    let lines: String = findings.iter().map(|f| f.one_line() + "\n").collect();
    let full: String = findings.iter().map(|f| f.render(false)).collect();
    format!("{lines}-----\n{full}")
}

#[test]
fn refusals_read_as_recorded() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut paths: Vec<PathBuf> = std::fs::read_dir(golden()).unwrap().map(|e| e.unwrap().path()).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "txt"));
    paths.sort();
    assert!(paths.len() > 40, "the golden files are missing");
    let mut wrong = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        let (name, rest) = text.split_once('\n').unwrap();
        let (input, expected) = rest.split_once("=====\n").unwrap_or((rest, ""));
        let actual = outcome(name, input);
        if update {
            let mut file = std::fs::File::create(&path).unwrap();
            std::io::Write::write_all(&mut file, format!("{name}\n{input}=====\n{actual}").as_bytes()).unwrap();
        } else if actual != expected {
            wrong.push(format!("{}\n--- expected\n{expected}--- found\n{actual}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
