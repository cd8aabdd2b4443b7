//! Does an applied configuration fit the schema? Texts are the reference's.

use super::element;
use crate::patch::{go_text as go, go_type};
use crate::schema::{Container, Scalar, Shape, View};
use serde_json::{Map, Value};
use std::collections::HashSet;

/// Every way in which a configuration does not fit, as one text; none when it fits. A list may not have an element twice.
pub(super) fn problems(view: View<'_>, config: &Map<String, Value>) -> Option<String> {
    let mut walk = Walk { path: String::new(), found: Vec::new() };
    walk.map(view, config);
    match walk.found.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        several => {
            let lines = several.iter().map(|problem| format!("  {problem}"));
            Some(std::iter::once("errors:".to_owned()).chain(lines).collect::<Vec<_>>().join("\n"))
        }
    }
}

struct Walk {
    path: String,
    found: Vec<String>,
}

impl Walk {
    fn problem(&mut self, text: &str) {
        let path = &self.path;
        self.found.push(if path.is_empty() { text.to_owned() } else { format!("{path}: {text}") });
    }

    fn within(&mut self, step: &str, visit: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        self.path.push_str(step);
        visit(self);
        self.path.truncate(length);
    }

    fn map(&mut self, view: View<'_>, map: &Map<String, Value>) {
        for (key, value) in map {
            let length = self.path.len();
            self.path.push('.');
            self.path.push_str(key);
            match view.child(key) {
                Some(child) => self.value(child.view, value),
                None => self.problem("field not declared in schema"),
            }
            self.path.truncate(length);
        }
    }

    fn value(&mut self, view: View<'_>, value: &Value) {
        match (view.container(), value) {
            (_, Value::Null) => {}
            (Some(Container::Map), Value::Object(map)) => self.map(view, map),
            (Some(Container::List), Value::Array(list)) => self.list(view, list, value),
            (Some(Container::Map), other) => self.problem(&format!("expected map, got &{{{}}}", go(other))),
            (Some(Container::List), other) => self.problem(&format!("expected list, got &{{{}}}", go(other))),
            (None, _) => self.scalar(view, value),
        }
    }

    fn list(&mut self, view: View<'_>, list: &[Value], value: &Value) {
        let Shape::List(elements) = view.shape(value) else {
            for (index, value) in list.iter().enumerate() {
                self.within(&format!("[{index}]"), |walk| walk.value(view.element(), value));
            }
            return;
        };
        let mut seen = HashSet::with_capacity(list.len());
        for (index, value) in list.iter().enumerate() {
            match element::element(elements, value) {
                Err(why) => return self.problem(&format!("element {index}: {why}")),
                Ok(step) => {
                    let printed = element::print(&step);
                    if !seen.insert(step) {
                        self.problem(&format!("duplicate entries for key {printed}"));
                    }
                    self.within(&printed, |walk| walk.value(elements.view, value));
                }
            }
        }
    }

    fn scalar(&mut self, view: View<'_>, value: &Value) {
        let is_scalar = !matches!(value, Value::Object(_) | Value::Array(_));
        let text = match view.scalar() {
            Some(Scalar::String) if !value.is_string() => {
                format!("expected string, got &value.valueUnstructured{{Value:{}}}", go(value))
            }
            Some(Scalar::Numeric) if !value.is_number() => {
                format!("expected numeric (int or float), got {}", go_type(value))
            }
            Some(Scalar::Boolean) if !value.is_boolean() => format!("expected boolean, got &{{{}}}", go(value)),
            Some(Scalar::Any) if !is_scalar => format!("expected any scalar, got &{{{}}}", go(value)),
            _ => return,
        };
        self.problem(&text);
    }
}
