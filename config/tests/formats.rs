//! The machine-readable forms of diagnostics.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use reddwarf_config::diagnostic::{Code, Diagnostic, sarif};
use reddwarf_config::{Limits, check, parse_file};
use std::path::Path;

fn findings() -> Vec<Diagnostic> {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, name: b}\n";
    let (_, mut all) = parse_file("/etc/reddwarf.d/größe 1.yaml", text.as_bytes(), &Limits::default());
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, uid: x}\ndota: {}\n";
    let (documents, _) = parse_file("shop/web.yaml", text.as_bytes(), &Limits::default());
    all.extend(check(documents).diagnostics);
    all
}

fn golden(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let mut file = std::fs::File::create(&path).unwrap();
        std::io::Write::write_all(&mut file, actual.as_bytes()).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(expected == actual, "{} differs; UPDATE_GOLDEN=1 writes it anew:\n{actual}", path.display());
}

#[test]
fn sarif_is_as_recorded() {
    let text = serde_json::to_string_pretty(&sarif(&findings())).unwrap();
    golden("findings.sarif", &(text + "\n"));
}

#[test]
fn json_is_as_recorded_and_comes_back() {
    let all = findings();
    let text = serde_json::to_string_pretty(&all).unwrap();
    assert_eq!(serde_json::from_str::<Vec<Diagnostic>>(&text).unwrap(), all);
    golden("findings.json", &(text + "\n"));
}

#[test]
fn colour_is_for_terminals_only() {
    let first = &findings()[0];
    assert!(first.render(true).contains("\x1b[1;31merror[RD0034]"));
    assert!(!first.render(false).contains('\x1b'));
}

#[test]
fn every_code_is_documented() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/diagnostics.md");
    let mut expected = String::from(
        "# Diagnostics\n\nEvery finding about settings and manifests has a stable code. This table is written by a test.\n\n\
         | Code | Finding |\n|---|---|\n",
    );
    for info in Code::all() {
        expected.push_str(&format!("| {} | {} |\n", info.code, info.title));
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::io::Write::write_all(&mut std::fs::File::create(&path).unwrap(), expected.as_bytes()).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), expected, "UPDATE_GOLDEN=1 writes it anew");
}
