//! Merging an applied configuration into an object, and taking fields out of it.

use super::{element, set::FieldSetRef};
use crate::schema::{Elements, Shape, View};
use serde_json::{Map, Value};
use std::collections::HashMap;

/// Merges the fields of `config` into `live`: nothing is removed, scalars and atomic values are replaced.
pub(super) fn maps(view: View<'_>, live: &mut Map<String, Value>, config: &Map<String, Value>) {
    for (key, config) in config {
        let child = view.child(key);
        let child_view = child.map_or(View::Untyped, |child| child.view);
        match live.get_mut(key) {
            Some(live) => value(child_view, live, config),
            None => {
                live.insert(key.clone(), config.clone());
            }
        }
        // A declared field that is null is absent.
        if child.is_some_and(|child| child.declared) && live.get(key).is_some_and(Value::is_null) {
            live.remove(key);
        }
    }
}

fn value(view: View<'_>, live: &mut Value, config: &Value) {
    match (view.shape(live), view.shape(config), &mut *live, config) {
        (Shape::Map, Shape::Map, Value::Object(live), Value::Object(config)) if !live.is_empty() => {
            maps(view, live, config);
        }
        // Null names the map or list, but none of what is in it.
        (Shape::Map, Shape::Map, Value::Object(live), Value::Null) if !live.is_empty() => {}
        (Shape::List(_), Shape::List(_), Value::Array(live), Value::Null) if !live.is_empty() => {}
        (Shape::List(elements), Shape::List(_), Value::Array(live), Value::Array(config)) if !live.is_empty() => {
            lists(elements, live, config);
        }
        _ => *live = config.clone(),
    }
}

/// The elements of both, told apart by their steps. Those of `config` keep its order; each that only `live` has stays before the
/// shared element that it was before.
fn lists(elements: Elements<'_>, live: &mut Vec<Value>, config: &[Value]) {
    let step = |value: &Value| element::element(elements, value).ok();
    let wanted: Vec<Option<String>> = config.iter().map(step).collect();
    let mut applied: HashMap<&str, &Value> = HashMap::with_capacity(config.len());
    for (step, value) in wanted.iter().zip(config) {
        applied.extend(step.as_deref().map(|step| (step, value)));
    }
    let mut old: Vec<(Option<String>, Option<Value>)> =
        std::mem::take(live).into_iter().map(|value| (step(&value), Some(value))).collect();
    let mut places: HashMap<String, Vec<usize>> = HashMap::new();
    for (place, (step, _)) in old.iter().enumerate() {
        if let Some(step) = step.as_ref().filter(|step| applied.contains_key(step.as_str())) {
            places.entry(step.clone()).or_default().push(place);
        }
    }
    let is_shared = |step: Option<&str>| step.is_some_and(|step| places.contains_key(step));
    let mut shared = wanted.iter().map(Option::as_deref).filter(|step| is_shared(*step));
    let mut next = shared.next().flatten();
    let mut at = 0;
    for (step, config) in wanted.iter().zip(config) {
        // What only the object has comes before, up to the shared element that is next.
        while let Some((old_step, value)) = old.get_mut(at) {
            let old_is_shared = is_shared(old_step.as_deref());
            if old_is_shared && old_step.as_deref() == next {
                break;
            }
            if !old_is_shared {
                live.extend(value.take());
            }
            at += 1;
        }
        let places = step.as_ref().and_then(|step| places.get(step));
        // Several of one step are one value and are replaced.
        let existing = match places.map(Vec::as_slice) {
            Some([place]) => old.get_mut(*place).and_then(|(_, value)| value.take()),
            _ => None,
        };
        live.push(match existing {
            Some(mut existing) => {
                value(elements.view, &mut existing, config);
                existing
            }
            None => config.clone(),
        });
        if step.is_some() && step.as_deref() == next {
            next = shared.next().flatten();
        }
    }
    let rest = old.into_iter().skip(at).filter(|(step, _)| !is_shared(step.as_deref()));
    live.extend(rest.filter_map(|(_, value)| value));
}

/// Takes everything out of `map` that is in `set`. Maps and lists that become empty go too, but for those that always are there or
/// that are in `owned` themselves.
pub(super) fn remove(view: View<'_>, map: &mut Map<String, Value>, set: FieldSetRef<'_>, owned: FieldSetRef<'_>) {
    for (step, member, below) in set.iter() {
        let Some(key) = element::field_name(step) else { continue };
        if member {
            map.remove(key);
        } else if let Some(value) = map.get_mut(key) {
            let child = view.child(key);
            let (is_owned, owned_below) = owned.get(step).unwrap_or((false, FieldSetRef::empty()));
            remove_below(child.map_or(View::Untyped, |child| child.view), value, below, owned_below);
            let stays = is_owned || child.is_some_and(|child| child.zero.is_some_and(Value::is_object));
            if is_empty(value) && !stays {
                map.remove(key);
            }
        }
    }
}

fn remove_below(view: View<'_>, value: &mut Value, set: FieldSetRef<'_>, owned: FieldSetRef<'_>) {
    if set.is_empty() {
        return;
    }
    match (view.shape(value), value) {
        (Shape::Map, Value::Object(map)) => remove(view, map, set, owned),
        (Shape::List(elements), Value::Array(list)) => list.retain_mut(|value| {
            let Ok(step) = element::element(elements, value) else { return true };
            let Some((member, below)) = set.get(&step) else { return true };
            if !member {
                let owned_below = owned.get(&step).map_or(FieldSetRef::empty(), |(_, below)| below);
                remove_below(elements.view, value, below, owned_below);
            }
            !member
        }),
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}
