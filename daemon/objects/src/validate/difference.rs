//! The part of an error message that shows what changed: removed and added values, as the reference lays them out.

use serde_json::Value;
use std::fmt::Write;

/// What differs between two values of the type `name`, a line each.
pub(super) fn difference(name: &str, old: &Value, new: &Value) -> String {
    let mut lines = String::new();
    walk(&mut String::new(), old, new, &mut lines);
    format!("  {name}{{\n{lines}  }}\n")
}

fn walk(path: &mut String, old: &Value, new: &Value, lines: &mut String) {
    if old == new {
        return;
    }
    match (old, new) {
        (Value::Object(before), Value::Object(after)) => {
            let added = after.keys().filter(|key| !before.contains_key(*key));
            for key in before.keys().chain(added) {
                let (one, other) = (before.get(key).unwrap_or(&Value::Null), after.get(key).unwrap_or(&Value::Null));
                let step = if path.is_empty() { key.clone() } else { format!(".{key}") };
                descend(path, &step, one, other, lines);
            }
        }
        (Value::Array(before), Value::Array(after)) => {
            for index in 0..before.len().max(after.len()) {
                let (one, other) =
                    (before.get(index).unwrap_or(&Value::Null), after.get(index).unwrap_or(&Value::Null));
                descend(path, &format!("[{index}]"), one, other, lines);
            }
        }
        _ => {
            for (sign, value) in [('-', old), ('+', new)] {
                if !value.is_null() {
                    // Writing into a text has no way to fail.
                    let _ = writeln!(lines, "{sign} \t{path}: {value},");
                }
            }
        }
    }
}

fn descend(path: &mut String, step: &str, old: &Value, new: &Value, lines: &mut String) {
    let length = path.len();
    path.push_str(step);
    walk(path, old, new, lines);
    path.truncate(length);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_changed_is_shown() {
        let old = json!({"a": 1, "containers": [{"name": "c", "image": "x"}], "gone": true});
        let new = json!({"a": 1, "containers": [{"name": "c", "image": "y"}], "new": [2]});
        assert_eq!(
            difference("core.PodSpec", &old, &new),
            "  core.PodSpec{\n- \tcontainers[0].image: \"x\",\n+ \tcontainers[0].image: \"y\",\n- \tgone: true,\n+ \tnew: [2],\n  }\n"
        );
    }
}
