//! Pod templates: whether two are the same, and the short hash in names and labels.
//!
//! Templates are compared field by field after defaulting both, never by a stored hash: a default that a new version adds, or a
//! hash that changes its meaning, must not start a rollout.

use reddwarf_objects::{Object, default, kinds};
use serde_json::{Value, json};

/// Label with the hash of the template that a pod or ReplicaSet was made from.
pub(crate) const HASH_LABEL: &str = "pod-template-hash";

/// Are two pod templates the same, apart from the hash label?
pub(crate) fn equal(one: &Value, other: &Value) -> bool {
    one == other || normal(one) == normal(other)
}

/// A template with all defaults and without the hash label.
fn normal(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(HASH_LABEL);
    }
    if let Some(metadata) = template.pointer_mut("/metadata").and_then(Value::as_object_mut) {
        // Printed as null by older clients.
        metadata.remove("creationTimestamp");
        metadata.retain(|_, value| !is_empty(value));
    }
    let carrier = json!({"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": template});
    let (Some(kind), Ok(mut carrier)) = (kinds().by_gvk("v1", "PodTemplate"), Object::from_value(carrier)) else {
        return Value::Null;
    };
    default(kind, &mut carrier);
    carrier.get("/template").cloned().unwrap_or_default()
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

/// A short name for a value, other for another `collisions`: FNV-1a over its JSON, in letters that spell no words.
pub(crate) fn hash(value: &Value, collisions: i64) -> String {
    let text = value.to_string();
    let suffix = if collisions > 0 { collisions.to_string() } else { String::new() };
    let bytes = text.bytes().chain(suffix.bytes());
    let hash = bytes.fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    safe(&hash.to_string())
}

/// Characters as the reference spells them: no vowels, nothing that looks like another.
fn safe(text: &str) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    text.bytes().map(|b| char::from(LETTERS.get(usize::from(b) % LETTERS.len()).copied().unwrap_or(b'b'))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_and_the_hash_label_make_no_difference() {
        let bare = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
        let mut full = bare.clone();
        full["metadata"]["labels"][HASH_LABEL] = json!("x");
        full["metadata"]["creationTimestamp"] = Value::Null;
        full["spec"]["restartPolicy"] = json!("Always");
        assert!(equal(&bare, &full));
        full["spec"]["containers"][0]["image"] = json!("i:2");
        assert!(!equal(&bare, &full));
    }

    #[test]
    fn a_collision_makes_another_hash() {
        let template = json!({"spec": {}});
        assert_eq!(hash(&template, 0), hash(&template, 0));
        assert_ne!(hash(&template, 0), hash(&template, 1));
        assert!(hash(&template, 0).bytes().all(|b| b"bcdfghjklmnpqrstvwxz2456789".contains(&b)));
    }
}
