//! Reading the descriptions out of generated Rust, line by line: the generator indents a type's description by 12 columns, the
//! names of its properties by 16 and their descriptions by 20.

use reddwarf_objects::openapi::definition_name;
use reddwarf_objects::schema::types;
use std::collections::BTreeMap;
use std::path::Path;

/// A type's description, and those of its properties.
type Described = (String, BTreeMap<String, String>);

/// The text of `descriptions.z`: a line for each type of the table, and one, indented, for each of its fields; first what all kinds
/// have, as if of a type `*`. Line breaks are written `\n`.
pub(crate) fn descriptions(sources: &Path) -> String {
    let mut found = BTreeMap::new();
    walk(sources, &mut found);
    let line = |text: &str| text.replace('\n', "\\n");
    // Every kind has these two, with one text.
    let of_kinds = found.get(&definition_name("core.Pod")).map(|(_, fields)| fields.clone()).unwrap_or_default();
    let mut text = String::from("*\t\n");
    for field in ["apiVersion", "kind"] {
        text.push_str(&format!(" {field}\t{}\n", line(of_kinds.get(field).map_or("", String::as_str))));
    }
    for structure in types().iter() {
        let (own, fields) = found.get(&definition_name(structure.name)).cloned().unwrap_or_default();
        text.push_str(&format!("{}\t{}\n", structure.name, line(&own)));
        for field in
            structure.fields.iter().filter(|f| !(matches!(f.name, "apiVersion" | "kind") && structure.is_kind()))
        {
            let description = fields.get(field.name).cloned().unwrap_or_default();
            text.push_str(&format!(" {}\t{}\n", field.name, line(&description)));
        }
    }
    text
}

fn walk(folder: &Path, found: &mut BTreeMap<String, Described>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, found);
        } else if let Some((name, described)) = file(&std::fs::read_to_string(&path).unwrap()) {
            found.insert(name, described);
        }
    }
}

fn file(text: &str) -> Option<(String, Described)> {
    let (_, rest) = text.split_once("fn schema_name()")?;
    let name = rest.lines().find_map(|line| line.trim().strip_prefix('"')?.strip_suffix("\".into()"))?;
    let (mut own, mut fields, mut property) = (String::new(), BTreeMap::new(), String::new());
    for line in rest.lines() {
        let trimmed = line.trim_start();
        let depth = line.len() - trimmed.len();
        match depth {
            12 => {
                if let Some(text) = trimmed.strip_prefix("\"description\": ") {
                    own = literal(text);
                }
            }
            16 => {
                if let Some((key, _)) = trimmed.strip_prefix('"').and_then(|t| t.split_once("\": ")) {
                    property = key.to_owned();
                }
            }
            20 => {
                let text = trimmed
                    .strip_prefix("\"description\": ")
                    .or_else(|| trimmed.strip_prefix("schema_obj.ensure_object().insert(\"description\".into(), "));
                if let Some(text) = text {
                    fields.insert(property.clone(), literal(text));
                }
            }
            _ => {}
        }
    }
    Some((name.to_owned(), (own, fields)))
}

/// The value of the string literal that `text` begins with.
fn literal(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars().skip_while(|c| *c != '"').skip(1);
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some(other) => out.push(other),
                None => break,
            },
            other => out.push(other),
        }
    }
    out
}
