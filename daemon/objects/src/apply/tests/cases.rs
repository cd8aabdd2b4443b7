//! The table of cases in `cases.txt`.

use super::*;
use serde_json::json;

/// What a case is about.
struct Part {
    kind: Kind,
    path: &'static [&'static str],
}

impl Part {
    fn named(name: &str) -> Self {
        let path: &[&str] = match name {
            "spec" => &["spec"],
            "metadata" => &["metadata"],
            "data" => &["data"],
            _ => &[],
        };
        let kind = match name {
            "spec" => kind("v1", "Pod").clone(),
            "anything" => Kind { group: "example.com", kind: "Widget", plural: "widgets", ..kind("v1", "Pod").clone() },
            _ => kind("v1", "ConfigMap").clone(),
        };
        Self { kind, path }
    }

    fn wrap(&self, part: Value) -> Object {
        let mut object = Object::new(&self.kind, None, "x");
        match (self.path, part) {
            ([], Value::Object(fields)) => object.map_mut().extend(fields),
            (["metadata"], Value::Object(fields)) => {
                object.map_mut()["metadata"].as_object_mut().unwrap().extend(fields);
            }
            ([field], part) => drop(object.map_mut().insert((*field).to_owned(), part)),
            (path, part) => panic!("{path:?} {part}"),
        }
        object
    }

    fn unwrap(&self, object: &Object) -> Value {
        let mut fields = object.clone();
        drop(managed::take_list(&mut fields));
        fields.remove("/metadata/name");
        let mut fields = fields.map().clone();
        let part = match self.path.first() {
            Some(field) => fields.remove(*field),
            None => {
                ["apiVersion", "kind", "metadata"].iter().for_each(|field| drop(fields.remove(*field)));
                Some(Value::Object(fields))
            }
        };
        part.unwrap_or_else(|| json!({}))
    }

    fn field(&self, short: &str) -> String {
        let short = short.trim_start_matches("itself");
        self.path.first().map_or_else(|| short.to_owned(), |field| format!(".{field}{short}"))
    }
}

#[test]
fn published_cases() {
    let text = include_str!("cases.txt");
    let cases = text.split("\n\n").map(|case| case.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>());
    let mut count = 0;
    for case in cases.filter(|case| !case.is_empty()) {
        run(&case);
        count += 1;
    }
    assert!(count > 45, "{count}");
}

fn run(case: &[&str]) {
    let (name, part) = case[0].rsplit_once(" in ").unwrap();
    let part = Part::named(part);
    let mut live: Option<Object> = None;
    let mut failure = None;
    let mut wanted = BTreeMap::new();
    for (line, second) in case[1..].iter().zip(0..) {
        let (word, rest) = line.split_once(' ').unwrap();
        let (manager, argument) = rest.split_once(' ').unwrap_or((rest, ""));
        match word {
            "apply" | "force" => {
                assert_eq!(failure, None, "{name}: {line}");
                let config = part.wrap(serde_json::from_str(argument).unwrap());
                match apply(&part.kind, live.as_ref(), &config, &by(manager), word == "force", at(second)) {
                    Ok(object) => live = Some(object),
                    Err(error) => failure = Some(error),
                }
            }
            "update" => {
                let mut new = part.wrap(serde_json::from_str(argument).unwrap());
                track(&part.kind, live.as_ref(), &mut new, &by(manager), at(second));
                live = Some(new);
            }
            "conflict" => {
                let Some(ApplyError::Conflicts { conflicts, .. }) = failure.take() else { panic!("{name}: {line}") };
                let found: Vec<&str> = conflicts.iter().map(|conflict| conflict.field.as_str()).collect();
                let fields: Vec<String> = argument.split(' ').map(|field| part.field(field)).collect();
                assert_eq!(found, fields, "{name}");
                assert!(conflicts[0].message.starts_with(&format!("conflict with \"{manager}\"")), "{name}");
            }
            "refused" => {
                let Some(ApplyError::Schema(found)) = failure.take() else { panic!("{name}: {line}") };
                let (_, found) = found.split_once("): ").unwrap();
                assert_eq!(found, rest.replace("\\n", "\n"), "{name}");
            }
            "object" => {
                let object: Value = serde_json::from_str(rest).unwrap();
                assert_eq!(part.unwrap(live.as_ref().unwrap()), object, "{name}");
            }
            "owner" => {
                let mut fields: Vec<String> = argument.split(' ').map(|field| part.field(field)).collect();
                fields.sort();
                wanted.insert(manager.to_owned(), fields);
            }
            _ => panic!("{name}: {line}"),
        }
    }
    assert_eq!(failure, None, "{name}");
    if let Some(live) = live {
        assert_eq!(owners(&live), wanted, "{name}");
    }
}
