//! Who owns the fields of an object that is made, straight as the text of `fieldsV1`: what [`super::compare`] says of the object and of
//! nothing, without the sets between, whose tree costs more than all else that a create does.
//!
//! Where there is nothing, a field that is always written stands there with its zero value ([`Child::zero`]); `old` is that, or absent.

use super::{
    element,
    owned::{Reach, SERVER_METADATA},
};
use crate::{
    json,
    schema::{Child, Elements, Shape, View},
};
use serde_json::{Map, Value};

/// A value has another shape than the zero value of its field: only the sets can tell what that means.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mixed;

type Written = Result<(), Mixed>;

/// The fields of a new object that are within reach, as JSON; `{}` when there are none.
///
/// # Errors
/// [`Mixed`].
pub(super) fn fields(view: View<'_>, reach: Reach, object: &Map<String, Value>) -> Result<Vec<u8>, Mixed> {
    let mut text = Text(Vec::with_capacity(2048));
    text.place(false, |text| {
        for (name, value) in object.iter().filter(|(name, _)| !reach.excludes(name)) {
            match value {
                Value::Object(metadata) if name == "metadata" => {
                    let view = view.child(name).map_or(View::Untyped, |child| child.view);
                    text.step(name, |text| text.metadata(view, metadata))?;
                }
                _ if name == "metadata" => {}
                _ => text.field(view, name, Some(value), true)?,
            }
        }
        Ok(())
    })?;
    if text.0.is_empty() {
        text.0.extend_from_slice(b"{}");
    }
    Ok(text.0)
}

/// The text so far. Whatever writes a place writes nothing when nothing of it is in the set.
struct Text(Vec<u8>);

impl Text {
    /// A place: whether it is itself in the set, and what writes the steps below it.
    fn place(&mut self, member: bool, below: impl FnOnce(&mut Self) -> Written) -> Written {
        let start = self.0.len();
        self.0.extend_from_slice(if member { b"{\".\":{}" } else { b"{" });
        let empty = self.0.len();
        below(self)?;
        if self.0.len() > empty {
            self.0.push(b'}');
        } else {
            self.0.truncate(start);
            self.leaf(member);
        }
        Ok(())
    }

    /// A place with nothing below it.
    fn leaf(&mut self, member: bool) {
        self.0.extend_from_slice(if member { b"{}" } else { b"" });
    }

    /// The step to a field, and what writes the place there.
    fn step(&mut self, name: &str, place: impl FnOnce(&mut Self) -> Written) -> Written {
        let step = |out: &mut Vec<u8>| match json::is_plain(name) {
            true => [&b"\"f:"[..], name.as_bytes(), b"\""].iter().for_each(|part| out.extend_from_slice(part)),
            false => json::write_text(&element::field(name), out),
        };
        self.under(step, place)
    }

    fn under(&mut self, step: impl FnOnce(&mut Vec<u8>), place: impl FnOnce(&mut Self) -> Written) -> Written {
        let start = self.0.len();
        if self.0.last() != Some(&b'{') {
            self.0.push(b',');
        }
        step(&mut self.0);
        self.0.push(b':');
        let empty = self.0.len();
        place(self)?;
        if self.0.len() == empty {
            self.0.truncate(start);
        }
        Ok(())
    }

    fn metadata(&mut self, view: View<'_>, metadata: &Map<String, Value>) -> Written {
        let mut owned = metadata.iter().filter(|(name, _)| !SERVER_METADATA.contains(&name.as_str()));
        self.place(false, |text| owned.try_for_each(|(name, value)| text.field(view, name, Some(value), true)))
    }

    /// A field of a map. `zero`: the map was there before, with nothing in it.
    fn field(&mut self, view: View<'_>, name: &str, given: Option<&Value>, zero: bool) -> Written {
        let unknown = Child { view: View::Untyped, declared: false, zero: None };
        let child = view.child(name).unwrap_or(unknown);
        let new = match child.zero {
            None => given,
            Some(zero) => given.filter(|value| !value.is_null()).or(Some(zero)),
        };
        let Some(new) = new else { return Ok(()) };
        self.step(name, |text| text.value(child.view, child.zero.filter(|_| zero), new))
    }

    fn value(&mut self, view: View<'_>, old: Option<&Value>, new: &Value) -> Written {
        match (old.map(|old| view.shape(old)), view.shape(new)) {
            (None | Some(Shape::Map), Shape::Map) => self.map(view, old, new),
            (None | Some(Shape::List(_)), Shape::List(elements)) => self.list(elements, old, new),
            (None | Some(Shape::Leaf), Shape::Leaf) => {
                self.leaf(old != Some(new));
                Ok(())
            }
            _ => Err(Mixed),
        }
    }

    fn map(&mut self, view: View<'_>, old: Option<&Value>, value: &Value) -> Written {
        let Some(map) = value.as_object().filter(|map| !map.is_empty()) else {
            // Null is as empty as a map can be.
            self.leaf(old.is_none() || matches!(view, View::Untyped) && old != Some(value));
            return Ok(());
        };
        let was_there = old.is_some();
        // With a map come the fields that always are there.
        let come = !old.is_some_and(Value::is_object);
        let mut others = view.always_there().filter(|name| come && !map.contains_key(*name)).peekable();
        self.place(!was_there, |text| {
            for (name, value) in map {
                while let Some(other) = others.next_if(|other| *other < name.as_str()) {
                    text.field(view, other, None, false)?;
                }
                text.field(view, name, Some(value), was_there)?;
            }
            others.try_for_each(|other| text.field(view, other, None, false))
        })
    }

    fn list(&mut self, elements: Elements<'_>, old: Option<&Value>, value: &Value) -> Written {
        let list = value.as_array().map_or(&[][..], Vec::as_slice);
        let steps = list.iter().map(|item| Ok((element::element(elements, item)?, item)));
        let steps = steps.collect::<Result<Vec<(String, &Value)>, &'static str>>();
        let mut steps = match steps {
            Ok(steps) if !list.is_empty() => steps,
            // Nothing in it, or elements that can't be told apart: the list is one value.
            steps => {
                self.leaf(old.is_none() || steps.is_err());
                return Ok(());
            }
        };
        steps.sort_by(|(a, _), (b, _)| a.cmp(b));
        self.place(old.is_none(), |text| {
            for same in steps.chunk_by(|(a, _), (b, _)| a == b) {
                let Some((step, item)) = same.first() else { continue };
                text.under(
                    |out| json::write_text(step, out),
                    |text| match same {
                        [_] => text.value(elements.view, None, item),
                        // Where a step has several elements, they are one value.
                        _ => {
                            text.leaf(true);
                            Ok(())
                        }
                    },
                )?;
            }
            Ok(())
        })
    }
}
