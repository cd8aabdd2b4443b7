//! OpenAPI 2 as protobuf, in the messages of gnostic (`openapi.v2`), which kubectl asks for. Field numbers are facts of
//! `OpenAPIv2.proto`.

use serde_json::{Map, Value};

/// A message that is being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            // The lowest seven bits.
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn bytes(&mut self, tag: u64, content: &[u8]) {
        self.varint(tag << 3 | 2);
        self.varint(content.len() as u64);
        self.0.extend_from_slice(content);
    }

    fn message(&mut self, tag: u64, content: Message) {
        self.bytes(tag, &content.0);
    }

    /// A text, when there is one.
    fn text(&mut self, tag: u64, value: Option<&Value>) {
        if let Some(text) = value.and_then(Value::as_str).filter(|text| !text.is_empty()) {
            self.bytes(tag, text.as_bytes());
        }
    }

    fn texts(&mut self, tag: u64, value: Option<&Value>) {
        for text in value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            self.bytes(tag, text.as_bytes());
        }
    }

    fn flag(&mut self, tag: u64, value: Option<&Value>) {
        if value.and_then(Value::as_bool) == Some(true) {
            self.varint(tag << 3);
            self.varint(1);
        }
    }

    /// `Any`: a value as YAML, of which JSON is a form.
    fn any(&mut self, tag: u64, value: &Value) {
        let mut any = Self::default();
        any.bytes(2, value.to_string().as_bytes());
        self.message(tag, any);
    }

    /// A pair of a name and a message.
    fn named(&mut self, tag: u64, name: &str, value: Message) {
        let mut pair = Self::default();
        pair.bytes(1, name.as_bytes());
        pair.message(2, value);
        self.message(tag, pair);
    }

    /// Vendor extensions: what begins with `x-`.
    fn extensions(&mut self, tag: u64, map: &Map<String, Value>) {
        for (name, value) in map.iter().filter(|(name, _)| name.starts_with("x-")) {
            let mut any = Self::default();
            any.bytes(2, value.to_string().as_bytes());
            self.named(tag, name, any);
        }
    }
}

/// The whole document.
pub(super) fn document<'a>(
    info: &Value,
    paths: impl Iterator<Item = (&'a str, &'a Value)>,
    definitions: impl Iterator<Item = (&'a str, Value)>,
) -> Vec<u8> {
    let mut document = Message(Vec::with_capacity(1 << 20));
    document.bytes(1, b"2.0");
    let mut about = Message::default();
    about.text(1, info.get("title"));
    about.text(2, info.get("version"));
    document.message(2, about);
    let mut all = Message::default();
    for (path, item) in paths {
        all.named(2, path, path_item(item));
    }
    document.message(8, all);
    let mut all = Message::default();
    for (name, definition) in definitions {
        all.named(1, name, schema(&definition));
    }
    document.message(9, all);
    document.0
}

fn path_item(item: &Value) -> Message {
    let mut out = Message::default();
    for (tag, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
        if let Some(operation) = item.get(method) {
            out.message(tag, self::operation(operation));
        }
    }
    parameters(&mut out, 9, item.get("parameters"));
    out
}

fn operation(operation: &Value) -> Message {
    let mut out = Message::default();
    out.texts(1, operation.get("tags"));
    out.text(3, operation.get("description"));
    out.text(5, operation.get("operationId"));
    out.texts(6, operation.get("produces"));
    out.texts(7, operation.get("consumes"));
    parameters(&mut out, 8, operation.get("parameters"));
    let mut responses = Message::default();
    for (code, response) in operation.get("responses").and_then(Value::as_object).into_iter().flatten() {
        let mut written = Message::default();
        written.text(1, response.get("description"));
        if let Some(of_response) = response.get("schema") {
            let mut item = Message::default();
            item.message(1, schema(of_response));
            written.message(2, item);
        }
        let mut value = Message::default();
        value.message(1, written);
        responses.named(1, code, value);
    }
    out.message(9, responses);
    if let Some(map) = operation.as_object() {
        out.extensions(13, map);
    }
    out
}

fn parameters(out: &mut Message, tag: u64, list: Option<&Value>) {
    for parameter in list.and_then(Value::as_array).into_iter().flatten() {
        let place = parameter.get("in").and_then(Value::as_str).unwrap_or_default();
        let mut either = Message::default();
        if place == "body" {
            let mut body = Message::default();
            body.text(2, parameter.get("name"));
            body.text(3, parameter.get("in"));
            body.flag(4, parameter.get("required"));
            if let Some(of_body) = parameter.get("schema") {
                body.message(5, schema(of_body));
            }
            either.message(1, body);
        } else {
            // The two forms differ in where the type stands.
            let (form, kind, unique) = if place == "path" { (4, 5, 19) } else { (3, 6, 20) };
            let mut written = Message::default();
            written.flag(1, parameter.get("required"));
            written.text(2, parameter.get("in"));
            written.text(3, parameter.get("description"));
            written.text(4, parameter.get("name"));
            written.text(kind, parameter.get("type"));
            written.flag(unique, parameter.get("uniqueItems"));
            let mut other = Message::default();
            other.message(form, written);
            either.message(2, other);
        }
        let mut item = Message::default();
        item.message(1, either);
        out.message(tag, item);
    }
}

fn schema(schema: &Value) -> Message {
    let mut out = Message::default();
    let Some(map) = schema.as_object() else { return out };
    out.text(1, map.get("$ref"));
    out.text(2, map.get("format"));
    out.text(4, map.get("description"));
    if let Some(default) = map.get("default") {
        out.any(5, default);
    }
    out.texts(19, map.get("required"));
    for value in map.get("enum").and_then(Value::as_array).into_iter().flatten() {
        out.any(20, value);
    }
    if let Some(additional) = map.get("additionalProperties") {
        let mut item = Message::default();
        item.message(1, self::schema(additional));
        out.message(21, item);
    }
    if let Some(kind) = map.get("type").and_then(Value::as_str) {
        let mut item = Message::default();
        item.bytes(1, kind.as_bytes());
        out.message(22, item);
    }
    if let Some(items) = map.get("items") {
        let mut item = Message::default();
        item.message(1, self::schema(items));
        out.message(23, item);
    }
    if let Some(properties) = map.get("properties").and_then(Value::as_object) {
        let mut all = Message::default();
        for (name, property) in properties {
            all.named(1, name, self::schema(property));
        }
        out.message(25, all);
    }
    out.extensions(31, map);
    out
}
