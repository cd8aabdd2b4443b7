//! The text of a new object's owners says what the sets say, whatever the object is.

use super::*;
use crate::schema::{Field, FieldType, of_kind};
use proptest::prelude::*;
use serde_json::json;

/// Random choices from a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        // Numerical Recipes' generator: good enough for choices.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn text(&mut self) -> String {
        ["", "a", "b", "c/d", "e\"f", "TCP", "é"][self.roll(7) as usize].to_owned()
    }

    fn map(&mut self, fields: &[Field], depth: u32) -> Value {
        let mut map = Map::new();
        for field in fields {
            if self.roll(3) == 0 {
                map.insert(field.name.to_owned(), self.value(&field.kind, depth));
            }
        }
        if self.roll(12) == 0 {
            map.insert(self.text(), json!({"un": ["known"]}));
        }
        Value::Object(map)
    }

    fn value(&mut self, kind: &FieldType, depth: u32) -> Value {
        match (self.roll(24), kind) {
            (0, _) => Value::Null,
            (1, _) => json!({}),
            (2, _) => json!([]),
            (3, _) => json!("x"),
            (_, FieldType::Struct(index)) if depth > 0 => self.map(&index.get().fields, depth - 1),
            (_, FieldType::Map(element, _)) if depth > 0 => {
                let keys: Vec<String> = (0..self.roll(3)).map(|_| self.text()).collect();
                Value::Object(keys.into_iter().map(|key| (key, self.value(element, depth - 1))).collect())
            }
            (_, FieldType::List(element, _)) if depth > 0 => {
                (0..self.roll(4)).map(|_| self.value(element, depth - 1)).collect()
            }
            (_, FieldType::Struct(_) | FieldType::Map(..)) => json!({}),
            (_, FieldType::List(..)) => json!([]),
            (_, FieldType::Bool) => (self.roll(2) == 0).into(),
            (_, FieldType::Int | FieldType::Int64 | FieldType::Number) => self.roll(3).into(),
            (_, FieldType::Any | FieldType::SchemaOr(_)) => json!({"a": [1], "b": {}}),
            _ => self.text().into(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, ..ProptestConfig::default() })]

    #[test]
    fn the_text_is_the_sets(seed in any::<u64>(), chosen in any::<prop::sample::Index>(), pods: bool, defaults: bool) {
        let all: Vec<&Kind> = kinds().iter().filter(|kind| !pods || kind.is_core("Pod")).collect();
        let kind = chosen.get(&all);
        let mut dice = Dice(seed);
        let Some(structure) = of_kind(kind) else { return Ok(()) };
        let Value::Object(mut map) = dice.map(&structure.fields, 7) else { unreachable!() };
        map.insert("apiVersion".into(), kind.api_version().into());
        map.insert("kind".into(), kind.kind.into());
        if !map.get("metadata").is_some_and(Value::is_object) {
            map.insert("metadata".into(), json!({}));
        }
        let mut object = Object::from_value(Value::Object(map)).unwrap();
        if defaults {
            crate::default(kind, &mut object);
        }
        let manager = FieldManager { name: "m\"", subresource: None };
        let mut tracked = object.clone();
        track(kind, None, &mut tracked, &manager, at(7));
        let list = managed::take_list(&mut tracked);
        let text = made(kind, &mut object, &manager, at(7)).map(|text| String::from_utf8(text).unwrap());
        prop_assert_eq!(text, list.map(|list| list.to_string()));
        prop_assert_eq!(object, tracked);
    }
}

/// Whole pods and Deployments must not need the sets.
#[test]
fn what_is_well_formed_needs_no_sets() {
    for (api_version, name, spec) in [
        ("v1", "Pod", json!({"containers": [{"name": "a", "ports": [{"containerPort": 1}], "env": [{"name": "X"}]}]})),
        (
            "apps/v1",
            "Deployment",
            json!({"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": {"spec": {}}}),
        ),
        ("v1", "Service", json!({"ports": [{"port": 1}]})),
    ] {
        let kind = kind(api_version, name);
        let object = json!({"apiVersion": api_version, "kind": name, "metadata": {"name": "x", "labels": {"a": "b"}}, "spec": spec});
        let mut object = Object::from_value(object).unwrap();
        crate::default(kind, &mut object);
        let fields = super::super::made::fields(View::of_kind(kind), Reach::of(kind, None), object.map()).unwrap();
        assert!(
            String::from_utf8(fields)
                .unwrap()
                .starts_with(r#"{"f:metadata":{"f:labels":{".":{},"f:a":{}}},"f:spec":{"#)
        );
    }
}
