//! The order of merged lists: first as the patch has it, and what only the document has stays where it was among the rest.

use super::{
    PatchError,
    go::go_list,
    strategic::{DIRECTIVE, no_merge_key},
};
use serde_json::Value;
use std::{borrow::Cow, collections::HashMap};

/// Where values are in a list: the first place of each.
pub(super) struct Positions<'a> {
    key: Option<&'a str>,
    at: HashMap<Cow<'a, str>, usize>,
}

impl<'a> Positions<'a> {
    /// The places of scalars, or, with a merge key, of maps by that field. Directives have none.
    pub(super) fn of(list: &[Value], key: Option<&'a str>) -> Self {
        let mut positions = Self { key, at: HashMap::with_capacity(list.len()) };
        for (index, element) in list.iter().enumerate().filter(|(_, element)| element.get(DIRECTIVE).is_none()) {
            if let Some(value) = positions.identity(element) {
                let value = Cow::Owned(text(value).into_owned());
                positions.at.entry(value).or_insert(index);
            }
        }
        positions
    }

    fn identity<'v>(&self, element: &'v Value) -> Option<&'v Value> {
        match self.key {
            None => Some(element),
            Some(key) => element.get(key),
        }
    }

    /// The place of a scalar, or of the element with this value of the merge key.
    pub(super) fn get(&self, value: &Value) -> Option<usize> {
        self.at.get(&text(value)).copied()
    }

    /// The place of an element like this one.
    fn like(&self, element: &Value) -> Option<usize> {
        self.get(self.identity(element)?)
    }

    /// Says where a value is from now on.
    pub(super) fn insert(&mut self, value: &'a Value, position: usize) {
        self.at.entry(text(value)).or_insert(position);
    }
}

/// Scalars as texts that are equal only when the scalars are.
fn text(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) if !text.starts_with('\0') => Cow::Borrowed(text),
        other => Cow::Owned(format!("\0{other}")),
    }
}

/// Removes scalars that were there before.
pub(super) fn deduplicate(list: &mut Vec<Value>) {
    let mut seen = std::collections::HashSet::with_capacity(list.len());
    list.retain(|value| seen.insert(text(value).into_owned()));
}

/// Puts a merged list in order: the elements of `wanted` in its order, the others in the order of `before`; both are woven together
/// by their order in `before`, and what is new goes as far to the front as that allows.
///
/// # Errors
/// An element without merge key.
pub(super) fn arrange(
    list: &mut Vec<Value>,
    wanted: &[Value],
    before: &Positions<'_>,
    key: Option<&str>,
) -> Result<(), PatchError> {
    if let Some(key) = key {
        let nameless = list.iter().chain(wanted).find(|e| e.get(key).is_none() && e.get(DIRECTIVE).is_none());
        if let Some(element) = nameless {
            return Err(no_merge_key(element, key));
        }
    }
    let wanted = Positions::of(wanted, key);
    let (mut patched, mut others): (Vec<_>, Vec<_>) =
        std::mem::take(list).into_iter().partition(|element| wanted.like(element).is_some());
    patched.sort_by_key(|element| wanted.like(element));
    others.sort_by_key(|element| before.like(element).unwrap_or(usize::MAX));
    let mut others = others.into_iter().peekable();
    for element in patched {
        let place = before.like(&element);
        while others.peek().is_some_and(|other| matches!((before.like(other), place), (Some(a), Some(b)) if a < b)) {
            list.extend(others.next());
        }
        list.push(element);
    }
    list.extend(others);
    Ok(())
}

/// Checks that the elements of `patch` are in the order of `wanted`; those that only delete don't count.
///
/// # Errors
/// One is not there or elsewhere, or has no merge key.
pub(super) fn check(patch: &[Value], wanted: &[Value], key: Option<&str>) -> Result<(), PatchError> {
    if patch.is_empty() || wanted.is_empty() {
        return Ok(());
    }
    let identity = |element: &Value| match key {
        None => Ok(element.clone()),
        Some(key) => element.get(key).cloned().ok_or_else(|| no_merge_key(element, key)),
    };
    let mut rest = wanted.iter();
    for element in patch.iter().filter(|element| element.get(DIRECTIVE).is_none()) {
        let element = identity(element)?;
        loop {
            let Some(next) = rest.next() else { return Err(out_of_order(patch, wanted)) };
            if identity(next)? == element {
                break;
            }
        }
    }
    Ok(())
}

fn out_of_order(patch: &[Value], wanted: &[Value]) -> PatchError {
    let (patch, wanted) = (go_list(patch), go_list(wanted));
    PatchError::Unmergeable(format!(
        "The order in patch list:\n{patch}\n doesn't match $setElementOrder list:\n{wanted}\n"
    ))
}
