//! Are the field numbers of `types.txt` those of Kubernetes' own .proto files? Asked where these are at hand: where Debian's packages
//! golang-k8s-api-dev, -apimachinery-dev and -apiextensions-apiserver-dev put them, or below `REDDWARF_KUBERNETES_PROTO`.
#![allow(clippy::unwrap_used, missing_docs)]

use reddwarf_objects::openapi::definition_name;
use reddwarf_objects::schema::{Type, types};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Messages by their full name: each field's number and type by its name.
type Messages = BTreeMap<String, BTreeMap<String, (u8, String)>>;

fn root() -> PathBuf {
    std::env::var_os("REDDWARF_KUBERNETES_PROTO").map_or_else(|| "/usr/share/gocode/src/k8s.io".into(), PathBuf::from)
}

fn read(folder: &Path, messages: &mut Messages) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            read(&path, messages);
        } else if path.file_name().is_some_and(|name| name == "generated.proto") {
            parse(&std::fs::read_to_string(&path).unwrap(), messages);
        }
    }
}

fn parse(text: &str, messages: &mut Messages) {
    let package = text.lines().find_map(|l| l.strip_prefix("package ")?.strip_suffix(';')).unwrap();
    let mut message = String::new();
    for line in text.lines().map(str::trim).filter(|l| !l.starts_with("//")) {
        if let Some(name) = line.strip_prefix("message ").and_then(|l| l.strip_suffix(" {")) {
            message = format!("{package}.{name}");
            messages.insert(message.clone(), BTreeMap::new());
        } else if let Some((field, number)) = line.strip_suffix(';').and_then(|l| l.split_once(" = "))
            && let Ok(number) = number.parse()
        {
            let (kind, name) = field.rsplit_once(' ').unwrap();
            let kind = kind.rsplit(' ').next().unwrap().trim_start_matches('.');
            let kind = if kind.contains('.') { kind.to_owned() } else { format!("{package}.{kind}") };
            let label = if field.starts_with("optional") { kind } else { String::new() };
            messages.get_mut(&message).unwrap().insert(name.to_lowercase(), (number, label));
        }
    }
}

/// The message of a type.
fn message_name(structure: &Type) -> String {
    let name = definition_name(structure.name).trim_start_matches("io.k8s.").replace('-', "_");
    format!("k8s.io.{name}")
}

/// The field's name in its message: some names can't be JSON's.
fn in_message(field: &str) -> String {
    match field {
        "apiGroup" => "apigroup".to_owned(),
        field => field.trim_start_matches('$').replace('-', "").to_lowercase(),
    }
}

/// The name of the field at the end of a path of numbers.
fn named(messages: &Messages, message: &str, path: &[u8]) -> Option<String> {
    let (number, rest) = path.split_first()?;
    let (name, (_, kind)) = messages.get(message)?.iter().find(|(_, (n, _))| n == number)?;
    if rest.is_empty() { Some(name.clone()) } else { named(messages, kind, rest) }
}

#[test]
fn numbers_are_those_of_the_proto_files() {
    let mut messages = Messages::new();
    read(&root(), &mut messages);
    if messages.is_empty() {
        println!("skipped: no .proto files below {}", root().display());
        return;
    }
    let mut checked = 0;
    for structure in types().iter() {
        let message = message_name(structure);
        if !messages.contains_key(&message) {
            assert!(structure.name.starts_with("apiregistration."), "{message} is not there");
            continue;
        }
        for field in structure.fields.iter().filter(|f| f.number.path[0] != 0) {
            let path: Vec<u8> = field.number.path.iter().copied().take_while(|n| *n != 0).collect();
            let (is, name) = (named(&messages, &message, &path), in_message(field.name));
            assert_eq!(is, Some(name), "{} {} {path:?}", structure.name, field.name);
            checked += 1;
        }
    }
    assert!(checked > 1500, "{checked}");
}
