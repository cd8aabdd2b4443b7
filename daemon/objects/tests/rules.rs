//! What holds for the defaults and rules of every kind, over objects made from their types; and what they cost.
#![allow(clippy::unwrap_used, missing_docs, clippy::print_stderr)]

use proptest::prelude::*;
use reddwarf_objects::default::{prepare_create, prepare_update};
use reddwarf_objects::schema::{self, FieldType, SchemaOr, Type};
use reddwarf_objects::validate::{
    validate_ephemeral_containers, validate_replacement, validate_resize, validate_status, validate_update,
};
use reddwarf_objects::{Kind, Object, default, kinds, validate};
use serde_json::{Map, Value, json};
use std::hint::black_box;
use std::time::Instant;

/// A small generator: the same number makes the same object.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[usize::try_from(self.roll(of.len() as u64)).unwrap()]
    }

    fn text(&mut self) -> &'static str {
        self.pick(&[
            "",
            "a",
            "web",
            "Always",
            "Never",
            "None",
            "TCP",
            "In",
            "Exists",
            "A_b",
            "é…",
            "10.0.0.1",
            "::1/64",
            "-5",
            "http",
            "*/5 * * * *",
            "kubernetes.io/x",
            "RollingUpdate",
            "ClusterIP",
            "NodePort",
            "metadata.name",
            "/a/../b",
            "v1",
            "True",
        ])
    }

    fn value(&mut self, of: &FieldType, depth: u32) -> Value {
        if self.roll(30) == 0 {
            return Value::Null;
        }
        match of {
            FieldType::String => self.text().into(),
            FieldType::Int => [json!(0), json!(1), json!(-1), json!(80), json!(i32::MAX), json!(i32::MIN)]
                [usize::try_from(self.roll(6)).unwrap()]
            .clone(),
            FieldType::Int64 => [json!(0), json!(7), json!(-1), json!(i64::MAX), json!(i64::MIN)]
                [usize::try_from(self.roll(5)).unwrap()]
            .clone(),
            FieldType::Bool => (self.roll(2) == 0).into(),
            FieldType::Number => json!(1.5),
            FieldType::Quantity => self.pick(&["1", "1000m", "0.5Gi", "-1", "0", "1e3", "9Ei", "1n"]).into(),
            FieldType::IntOrString => match self.roll(2) {
                0 => json!(8080),
                _ => self.pick(&["http", "25%", "-1%", "", "1000%"]).into(),
            },
            FieldType::Time | FieldType::MicroTime => {
                self.pick(&["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.678901+02:00"]).into()
            }
            FieldType::Bytes => "aGk=".into(),
            FieldType::Any => json!({"any": [1, {}, null]}),
            FieldType::SchemaOr(SchemaOr::Bool) => json!(true),
            FieldType::SchemaOr(_) => json!([]),
            FieldType::Struct(index) => self.object(index.get(), depth),
            FieldType::Map(of, _) => {
                let keys = self.roll(3);
                (0..keys).map(|_| (self.text().to_owned(), self.value(of, depth))).collect::<Map<_, _>>().into()
            }
            FieldType::List(of, _) => {
                let length = self.roll(3);
                (0..length).map(|_| self.value(of, depth)).collect()
            }
        }
    }

    fn object(&mut self, of: &Type, depth: u32) -> Value {
        let mut map = Map::new();
        if depth == 0 {
            return map.into();
        }
        let likely = if of.fields.len() > 20 { 5 } else { 2 };
        for field in &of.fields {
            if self.roll(likely) == 0 {
                map.insert(field.name.to_owned(), self.value(&field.kind, depth - 1));
            }
        }
        map.into()
    }

    fn of_kind(&mut self, kind: &Kind) -> Object {
        let mut value = self.object(schema::of_kind(kind).unwrap(), 9);
        value["apiVersion"] = kind.api_version().into();
        value["kind"] = kind.kind.into();
        if !value["metadata"].is_object() {
            value["metadata"] = json!({});
        }
        value["metadata"]["name"] = "web".into();
        let mut object = Object::from_value(value).unwrap();
        object.set_uid("8f7e2a5c-0000-4000-8000-000000000001");
        object
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// For every kind: what is stored stays what it is when it is read and stored again, and no rule panics.
    #[test]
    fn defaults_settle_and_rules_never_panic(seed in any::<u64>()) {
        let mut dice = Dice(seed);
        for kind in kinds().iter().filter(|kind| !kind.is_virtual) {
            let raw = dice.of_kind(kind);
            let mut object = raw.clone();
            default(kind, &mut object);
            let mut again = object.clone();
            default(kind, &mut again);
            prop_assert_eq!(&object, &again, "{}: defaults twice", kind.kind);
            let mut stored = object.clone();
            prepare_create(kind, &mut stored);
            let errors = validate(kind, &stored);
            let mut read = Object::from_value(serde_json::from_str(&stored.value().to_string()).unwrap()).unwrap();
            default(kind, &mut read);
            prop_assert_eq!(&errors, &validate(kind, &read), "{}: rules after storing", kind.kind);
            let mut other = dice.of_kind(kind);
            default(kind, &mut other);
            prepare_update(kind, &stored, &mut other);
            let _ = (validate_update(kind, &stored, &other), validate_replacement(kind, &other));
            let _ = (validate_status(kind, &stored, &other), validate(kind, &raw));
            if kind.is_core("Pod") {
                let _ = (validate_ephemeral_containers(&stored, &other), validate_resize(&stored, &other));
            }
        }
    }
}

fn typical_pod() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "default", "labels": {"app": "web"}}, "spec": {
        "containers": [{"name": "web", "image": "nginx:1.27", "ports": [{"name": "http", "containerPort": 8080}],
            "env": [{"name": "A", "value": "b"}, {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
            "readinessProbe": {"httpGet": {"path": "/", "port": "http"}},
            "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
        "volumes": [{"name": "data", "emptyDir": {}}]}})
}

/// `cargo test --release -p reddwarf-objects --test rules -- --ignored --nocapture`: what a typical pod costs.
#[test]
#[ignore = "a measurement"]
#[expect(clippy::disallowed_methods, reason = "a measurement runs in real time")]
fn what_a_typical_pod_costs() {
    let object = Object::from_value(typical_pod()).unwrap();
    let kind = object.known_kind().unwrap();
    let (mut fill, mut check) = (Vec::new(), Vec::new());
    for _ in 0..20_000 {
        let mut object = object.clone();
        let start = Instant::now();
        default(kind, &mut object);
        prepare_create(kind, &mut object);
        let filled = start.elapsed();
        assert!(black_box(validate(kind, &object)).is_empty());
        fill.push(filled);
        check.push(start.elapsed() - filled);
    }
    for (what, mut took) in [("default", fill), ("validate", check)] {
        took.sort_unstable();
        eprintln!("{what}: {:?} at best, {:?} in the middle", took[0], took[took.len() / 2]);
    }
}
