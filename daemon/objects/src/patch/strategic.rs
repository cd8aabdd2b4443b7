//! Strategic merge patch: a merge patch that knows lists. Maps merge; what happens to a list says the schema: replaced as a whole,
//! merged as a set of scalars, or merged element by element, told apart by one field (the merge key). Directives in the patch:
//!
//! | directive | meaning |
//! |---|---|
//! | `"$patch": "replace"` in a map | the map becomes what else is in the patch |
//! | `"$patch": "delete"` in a map | the map becomes empty |
//! | the same in an element of a merged list | only the patch's elements stay; the element is removed |
//! | `"$deleteFromPrimitiveList/x": [..]` | these scalars are taken out of the list `x` |
//! | `"$setElementOrder/x": [..]` | the order of the elements of `x` |
//! | `"$retainKeys": [..]` | all other fields of this map are removed |
//! | null | the field is removed |
//!
//! Source: Kubernetes' documentation of strategic merge patch; errors in the words of kube-apiserver.

use super::{
    PatchError,
    go::{go_list, go_text, go_type},
    json::not_a,
    order,
};
use crate::{kind::Kind, schema::View};
use serde_json::{Map, Value};

pub(super) const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_PREFIX: &str = "$deleteFromPrimitiveList";
const ORDER_PREFIX: &str = "$setElementOrder";

/// Merges `patch` into `doc`, an object of `kind`, list by list as the schema's patch strategies say.
///
/// # Errors
/// [`PatchError::Malformed`], [`PatchError::Unmergeable`].
pub fn strategic(kind: &Kind, doc: &mut Value, patch: &Value) -> Result<(), PatchError> {
    match patch {
        Value::Object(patch) => merge_into(View::of_kind(kind), doc, patch),
        Value::Null => Ok(()),
        other => Err(not_a("Go value of type map[string]interface {}", other)),
    }
}

fn merge_into(view: View<'_>, doc: &mut Value, patch: &Map<String, Value>) -> Result<(), PatchError> {
    if !doc.is_object() {
        *doc = Value::Object(Map::new());
    }
    match doc {
        Value::Object(map) => merge_maps(view, map, patch),
        _ => Ok(()),
    }
}

fn merge_maps(view: View<'_>, doc: &mut Map<String, Value>, patch: &Map<String, Value>) -> Result<(), PatchError> {
    if let Some(directive) = patch.get(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => {
                let kept = patch.iter().filter(|(key, _)| *key != DIRECTIVE);
                *doc = kept.map(|(key, value)| (key.clone(), value.clone())).collect();
                Ok(())
            }
            Some("delete") => {
                doc.clear();
                Ok(())
            }
            _ => Err(bad_directive(directive, patch)),
        };
    }
    if let Some(keys) = patch.get(RETAIN_KEYS) {
        retain_keys(doc, patch, keys)?;
    }
    let mut ordered = Vec::new();
    for (key, order) in patch.iter().filter(|(key, _)| key.starts_with(ORDER_PREFIX)) {
        let field = directive_field(key, ORDER_PREFIX)
            .ok_or_else(|| malformed("invalid patch format of setElementOrder list"))?;
        merge_ordered(view, doc, patch, field, order)?;
        ordered.push(field);
    }
    for (key, value) in patch.iter().filter(|(key, _)| *key != RETAIN_KEYS && !key.starts_with(ORDER_PREFIX)) {
        if key.starts_with(DELETE_PREFIX) {
            let field = directive_field(key, DELETE_PREFIX)
                .ok_or_else(|| malformed("invalid patch format of primitive list"))?;
            delete_scalars(doc, field, value);
        } else if !ordered.contains(&key.as_str()) {
            merge_field(view, doc, key, value)?;
        }
    }
    Ok(())
}

fn merge_field(view: View<'_>, doc: &mut Map<String, Value>, key: &str, patch: &Value) -> Result<(), PatchError> {
    if patch.is_null() {
        doc.remove(key);
        return Ok(());
    }
    let child = view.child(key).map_or(View::Untyped, |child| child.view);
    match (doc.get_mut(key), patch) {
        (Some(Value::Object(map)), Value::Object(patch)) => merge_maps(child, map, patch),
        (Some(Value::Array(list)), Value::Array(patch)) => {
            let strategy = view.patch(key);
            if strategy.merge {
                merge_lists(child.element(), list, patch, strategy.key)
            } else {
                list.clone_from(patch);
                Ok(())
            }
        }
        _ => {
            match without_directives(patch) {
                Some(value) => doc.insert(key.to_owned(), value),
                None => doc.remove(key),
            };
            Ok(())
        }
    }
}

/// Clears all fields but those of the list; the patch may give no others.
fn retain_keys(doc: &mut Map<String, Value>, patch: &Map<String, Value>, keys: &Value) -> Result<(), PatchError> {
    let bad = || malformed("invalid patch format of retainKeys");
    let keys: Vec<&str> = keys.as_array().ok_or_else(bad)?.iter().filter_map(Value::as_str).collect();
    let given = |key: &str, value: &Value| {
        !value.is_null() && key != RETAIN_KEYS && !key.starts_with(DELETE_PREFIX) && !key.starts_with(ORDER_PREFIX)
    };
    if patch.iter().any(|(key, value)| given(key, value) && !keys.contains(&key.as_str())) {
        return Err(bad());
    }
    doc.retain(|key, _| keys.contains(&key.as_str()));
    Ok(())
}

fn delete_scalars(doc: &mut Map<String, Value>, field: &str, gone: &Value) {
    match (doc.get_mut(field), gone) {
        (_, Value::Null) => {
            doc.remove(field);
        }
        (Some(Value::Array(list)), Value::Array(gone)) => {
            let gone = order::Positions::of(gone, None);
            list.retain(|value| gone.get(value).is_none());
        }
        _ => {}
    }
}

/// Merges a list for which the patch also gives the order.
fn merge_ordered(
    view: View<'_>,
    doc: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    field: &str,
    order: &Value,
) -> Result<(), PatchError> {
    let wanted = order.as_array().ok_or_else(|| bad_argument(order))?;
    if let Some(other) = doc.get(field).into_iter().chain(patch.get(field)).find(|value| !value.is_array()) {
        return Err(bad_argument(other));
    }
    let key = view.patch(field).key;
    let before = order::Positions::of(elements(doc.get(field)), key);
    order::check(elements(patch.get(field)), wanted, key)?;
    if let Some(patched) = patch.get(field) {
        merge_field(view, doc, field, patched)?;
    }
    match doc.get_mut(field) {
        Some(Value::Array(list)) => order::arrange(list, wanted, &before, key),
        _ => Ok(()),
    }
}

fn elements(list: Option<&Value>) -> &[Value] {
    list.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn merge_lists(view: View<'_>, list: &mut Vec<Value>, patch: &[Value], key: Option<&str>) -> Result<(), PatchError> {
    let Some(first) = list.first().or(patch.first()) else { return Ok(()) };
    check_elements(list, patch, first)?;
    let before = order::Positions::of(list, key);
    match (first, key) {
        (Value::Object(_), Some(key)) => merge_elements(view, list, patch, key)?,
        (Value::Object(_), None) => {
            return Err(PatchError::Unmergeable("cannot merge lists without merge key".to_owned()));
        }
        _ => {
            list.extend(patch.iter().cloned());
            order::deduplicate(list);
        }
    }
    order::arrange(list, patch, &before, key)
}

/// All elements of both lists must be of one type, and none a list.
fn check_elements(list: &[Value], patch: &[Value], first: &Value) -> Result<(), PatchError> {
    if first.is_array() {
        return Err(PatchError::Rejected("lists of lists are not supported".to_owned()));
    }
    let kind = go_type(first);
    if first.is_null() || list.iter().chain(patch).any(|element| go_type(element) != kind) {
        let (list, patch) = (go_list(list), go_list(patch));
        return Err(PatchError::Unmergeable(format!("list element types are not identical: [{list} {patch}]")));
    }
    Ok(())
}

fn merge_elements(view: View<'_>, list: &mut Vec<Value>, patch: &[Value], key: &str) -> Result<(), PatchError> {
    if specials(list, patch, key)? {
        list.clear();
    }
    let mut known = order::Positions::of(list, Some(key));
    for element in patch.iter().filter(|element| element.get(DIRECTIVE).is_none()) {
        let Value::Object(element_patch) = element else { continue };
        let value = element_patch.get(key).ok_or_else(|| no_merge_key(element, key))?;
        match known.get(value).and_then(|position| list.get_mut(position)) {
            Some(existing) => merge_into(view, existing, element_patch)?,
            None => {
                known.insert(value, list.len());
                list.extend(without_directives(element));
            }
        }
    }
    Ok(())
}

/// Carries out the elements of a patch that are directives: removes what they delete and says whether the list is to be replaced.
fn specials(list: &mut Vec<Value>, patch: &[Value], key: &str) -> Result<bool, PatchError> {
    let mut replace = false;
    for element in patch {
        let (Value::Object(map), Some(directive)) = (element, element.get(DIRECTIVE)) else { continue };
        match directive.as_str() {
            Some("delete") => {
                let gone = map.get(key).ok_or_else(|| no_merge_key(element, key))?;
                list.retain(|existing| existing.get(key) != Some(gone));
            }
            Some("replace") => replace = true,
            Some("merge") => {
                return Err(PatchError::Unmergeable("merging lists cannot yet be specified in the patch".to_owned()));
            }
            _ => return Err(bad_directive(directive, map)),
        }
    }
    Ok(replace)
}

/// A value that is new, without nulls and directives; none when it is but a directive.
fn without_directives(value: &Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.contains_key(DIRECTIVE) => None,
        Value::Object(map) => {
            let kept = map.iter().filter(|(key, value)| !value.is_null() && !is_directive(key));
            Some(Value::Object(
                kept.filter_map(|(key, value)| Some((key.clone(), without_directives(value)?))).collect(),
            ))
        }
        Value::Array(list) => Some(Value::Array(list.iter().filter_map(without_directives).collect())),
        scalar => Some(scalar.clone()),
    }
}

fn is_directive(key: &str) -> bool {
    key.starts_with('$') && (key == RETAIN_KEYS || key.starts_with(DELETE_PREFIX) || key.starts_with(ORDER_PREFIX))
}

/// `x` of `$prefix/x`.
fn directive_field<'a>(key: &'a str, prefix: &str) -> Option<&'a str> {
    key.strip_prefix(prefix)?.strip_prefix('/')
}

fn malformed(text: &str) -> PatchError {
    PatchError::Malformed(text.to_owned())
}

pub(super) fn no_merge_key(element: &Value, key: &str) -> PatchError {
    PatchError::Unmergeable(format!("map: {} does not contain declared merge key: {key}", go_text(element)))
}

pub(super) fn bad_argument(found: &Value) -> PatchError {
    PatchError::Unmergeable(format!("expected a []interface {{}}, but received a {}", go_type(found)))
}

fn bad_directive(directive: &Value, map: &Map<String, Value>) -> PatchError {
    let map = go_text(&Value::Object(map.clone()));
    PatchError::Unmergeable(format!("unknown patch type: {} in map: {map}", go_text(directive)))
}
