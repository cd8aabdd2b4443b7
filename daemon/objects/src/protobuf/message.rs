//! Messages by the table of types.

use super::wire::{Raw, Reader};
use super::{Decoded, MAX_DEPTH, ProtobufError};
use crate::object::{micro_timestamp, timestamp};
use crate::schema::{Field, FieldType, SchemaOr, Type, types};
use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::DateTime;
use serde_json::{Map, Number, Value};

/// How many unknown fields are named; more only make the answer longer.
const MAX_UNKNOWN: usize = 64;

pub(super) fn decode(structure: &Type, bytes: &[u8]) -> Result<Decoded, ProtobufError> {
    let mut walk = Walk::default();
    let mut fields = Map::new();
    walk.message(structure, [0; 3], bytes, &mut fields)?;
    Ok(Decoded { fields, unknown: walk.unknown })
}

#[derive(Default)]
struct Walk {
    at: Vec<String>,
    depth: usize,
    unknown: Vec<String>,
}

/// Where a tag leads inside a message.
enum Target<'a> {
    Field(&'a Field),
    /// Into a message that JSON flattens into the outer one.
    Embedded([u8; 3]),
    Unknown,
}

/// The field `tag` below the embedded messages `prefix`.
fn target(structure: &Type, prefix: [u8; 3], tag: u64) -> Target<'_> {
    let Ok(tag) = u8::try_from(tag) else { return Target::Unknown };
    let Some(depth) = prefix.iter().position(|n| *n == 0) else { return Target::Unknown };
    let mut path = prefix;
    if let Some(last) = path.get_mut(depth) {
        *last = tag;
    }
    if let Some(field) = structure.fields.iter().find(|f| f.number.path == path) {
        return Target::Field(field);
    }
    let inside = |f: &&Field| f.number.path.iter().zip(&path).take(depth + 1).all(|(a, b)| a == b);
    match structure.fields.iter().find(inside) {
        Some(_) => Target::Embedded(path),
        None => Target::Unknown,
    }
}

impl Walk {
    fn path(&self) -> String {
        let mut path = String::new();
        for step in &self.at {
            if !path.is_empty() && !step.starts_with('[') {
                path.push('.');
            }
            path.push_str(step);
        }
        path
    }

    fn deeper(&mut self) -> Result<(), ProtobufError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err(ProtobufError::TooDeep) } else { Ok(()) }
    }

    fn wrong(&self, raw: Raw<'_>) -> ProtobufError {
        ProtobufError::WireType { path: self.path(), wire_type: raw.wire_type() }
    }

    fn bytes<'a>(&self, raw: Raw<'a>) -> Result<&'a [u8], ProtobufError> {
        match raw {
            Raw::Bytes(bytes) => Ok(bytes),
            other => Err(self.wrong(other)),
        }
    }

    fn text<'a>(&self, raw: Raw<'a>) -> Result<&'a str, ProtobufError> {
        std::str::from_utf8(self.bytes(raw)?).map_err(|_| ProtobufError::Utf8 { path: self.path() })
    }

    /// Reads a message's fields into `map`; one that occurs again is merged or replaced, as protobuf says.
    fn message(
        &mut self,
        structure: &Type,
        prefix: [u8; 3],
        bytes: &[u8],
        map: &mut Map<String, Value>,
    ) -> Result<(), ProtobufError> {
        self.deeper()?;
        let mut reader = Reader::new(bytes);
        while let Some((tag, raw)) = reader.next()? {
            match target(structure, prefix, tag) {
                Target::Field(field) => {
                    self.at.push(field.name.to_owned());
                    self.field(field, raw, map)?;
                    self.at.pop();
                }
                Target::Embedded(path) => {
                    let inner = self.bytes(raw)?;
                    self.message(structure, path, inner, map)?;
                }
                Target::Unknown if self.unknown.len() < MAX_UNKNOWN => {
                    self.at.push(format!("#{tag}"));
                    let path = self.path();
                    if !self.unknown.contains(&path) {
                        self.unknown.push(path);
                    }
                    self.at.pop();
                }
                Target::Unknown => {}
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn field(&mut self, field: &Field, raw: Raw<'_>, map: &mut Map<String, Value>) -> Result<(), ProtobufError> {
        match &field.kind {
            FieldType::List(element, _) => {
                let list = map.entry(field.name).or_insert_with(|| Value::Array(Vec::new()));
                let Value::Array(list) = list else { return Ok(()) };
                self.elements(element, raw, list)
            }
            FieldType::Map(element, _) => {
                let inner = map.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
                let Value::Object(inner) = inner else { return Ok(()) };
                self.entry(element, self.bytes(raw)?, inner)
            }
            FieldType::Struct(index) => {
                let inner = map.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
                let Value::Object(inner) = inner else { return Ok(()) };
                self.message(index.get(), [0; 3], self.bytes(raw)?, inner)
            }
            kind => {
                let value = self.scalar(kind, raw)?;
                if value.is_null() || (!field.number.zero_counts && is_zero(&value)) {
                    map.remove(field.name);
                } else {
                    map.insert(field.name.to_owned(), value);
                }
                Ok(())
            }
        }
    }

    /// One more element, or several numbers packed into one value.
    fn elements(&mut self, element: &FieldType, raw: Raw<'_>, list: &mut Vec<Value>) -> Result<(), ProtobufError> {
        let packs = matches!(element, FieldType::Int | FieldType::Int64 | FieldType::Bool);
        if let (true, Raw::Bytes(bytes)) = (packs, raw) {
            let mut reader = Reader::new(bytes);
            while !reader.is_empty() {
                let number = reader.varint()?;
                list.push(self.scalar(element, Raw::Varint(number))?);
            }
            return Ok(());
        }
        self.at.push(format!("[{}]", list.len()));
        list.push(self.value(element, raw)?);
        self.at.pop();
        Ok(())
    }

    /// One entry of a map: a message with a key and a value, both of which may be left out when they are zero.
    fn entry(&mut self, element: &FieldType, bytes: &[u8], map: &mut Map<String, Value>) -> Result<(), ProtobufError> {
        // A map of anything is an empty message in the reference: it is there, and nothing is in it.
        if bytes.is_empty() && matches!(element, FieldType::Any) {
            return Ok(());
        }
        let (mut key, mut value) = (String::new(), None);
        let mut reader = Reader::new(bytes);
        while let Some((tag, raw)) = reader.next()? {
            match tag {
                1 => key = self.text(raw)?.to_owned(),
                2 => value = Some(raw),
                _ => {}
            }
        }
        self.at.push(key.clone());
        let value = match value {
            Some(raw) => self.value(element, raw)?,
            None => self.zero(element)?,
        };
        self.at.pop();
        map.insert(key, value);
        Ok(())
    }

    /// The value that protobuf leaves out.
    fn zero(&mut self, kind: &FieldType) -> Result<Value, ProtobufError> {
        match kind {
            FieldType::Int | FieldType::Int64 | FieldType::Bool => self.scalar(kind, Raw::Varint(0)),
            FieldType::Number => Ok(Value::from(0)),
            _ => self.value(kind, Raw::Bytes(&[])),
        }
    }

    /// A value that stands alone: an element of a list or a map.
    fn value(&mut self, kind: &FieldType, raw: Raw<'_>) -> Result<Value, ProtobufError> {
        match kind {
            FieldType::Struct(index) => {
                let mut map = Map::new();
                self.message(index.get(), [0; 3], self.bytes(raw)?, &mut map)?;
                Ok(Value::Object(map))
            }
            // A list inside a map or list is wrapped into a message of one field.
            FieldType::List(element, _) => {
                let mut list = Vec::new();
                self.deeper()?;
                let mut reader = Reader::new(self.bytes(raw)?);
                while let Some((tag, raw)) = reader.next()? {
                    if tag == 1 {
                        self.elements(element, raw, &mut list)?;
                    }
                }
                self.depth -= 1;
                Ok(Value::Array(list))
            }
            FieldType::Map(element, _) => {
                let mut map = Map::new();
                self.deeper()?;
                self.entry(element, self.bytes(raw)?, &mut map)?;
                self.depth -= 1;
                Ok(Value::Object(map))
            }
            kind => self.scalar(kind, raw),
        }
    }

    /// A value that is neither a known message nor a container; null where the reference would write null.
    fn scalar(&mut self, kind: &FieldType, raw: Raw<'_>) -> Result<Value, ProtobufError> {
        Ok(match kind {
            FieldType::String => Value::from(self.text(raw)?),
            FieldType::Bytes => Value::from(BASE64_STANDARD.encode(self.bytes(raw)?)),
            FieldType::Int => Value::from(self.number(raw)? as i32),
            FieldType::Int64 => Value::from(self.number(raw)?),
            FieldType::Bool => Value::from(self.number(raw)? != 0),
            FieldType::Number => match raw {
                Raw::Fixed64(bits) => double(f64::from_bits(bits)),
                other => return Err(self.wrong(other)),
            },
            FieldType::Quantity => self.quantity(raw)?,
            FieldType::IntOrString => self.int_or_string(raw)?,
            FieldType::Time | FieldType::MicroTime => self.time(raw, matches!(kind, FieldType::MicroTime))?,
            FieldType::Any => self.json(raw)?,
            FieldType::SchemaOr(or) => self.schema_or(*or, raw)?,
            FieldType::Struct(_) | FieldType::Map(..) | FieldType::List(..) => Value::Null,
        })
    }

    /// Protobuf writes negative numbers as the 64 bits of their two's complement.
    fn number(&self, raw: Raw<'_>) -> Result<i64, ProtobufError> {
        match raw {
            Raw::Varint(number) => Ok(number as i64),
            other => Err(self.wrong(other)),
        }
    }

    /// resource.Quantity: its text in field 1.
    fn quantity(&self, raw: Raw<'_>) -> Result<Value, ProtobufError> {
        let mut text = "";
        let mut reader = Reader::new(self.bytes(raw)?);
        while let Some((tag, raw)) = reader.next()? {
            if tag == 1 {
                text = self.text(raw)?;
            }
        }
        Ok(Value::from(if text.is_empty() { "0" } else { text }))
    }

    /// intstr.IntOrString: 1 says which, 2 is the number, 3 the text.
    fn int_or_string(&self, raw: Raw<'_>) -> Result<Value, ProtobufError> {
        let (mut is_text, mut number, mut text) = (false, 0, "");
        let mut reader = Reader::new(self.bytes(raw)?);
        while let Some((tag, raw)) = reader.next()? {
            match tag {
                1 => is_text = self.number(raw)? == 1,
                2 => number = self.number(raw)? as i32,
                3 => text = self.text(raw)?,
                _ => {}
            }
        }
        Ok(if is_text { Value::from(text) } else { Value::from(number) })
    }

    /// meta.Time and meta.MicroTime: seconds and nanoseconds since 1970; nothing at all is no time.
    fn time(&self, raw: Raw<'_>, micro: bool) -> Result<Value, ProtobufError> {
        let (mut seconds, mut nanos) = (0, 0);
        let mut reader = Reader::new(self.bytes(raw)?);
        if reader.is_empty() {
            return Ok(Value::Null);
        }
        while let Some((tag, raw)) = reader.next()? {
            match tag {
                1 => seconds = self.number(raw)?,
                2 => nanos = self.number(raw)?,
                _ => {}
            }
        }
        let nanos = u32::try_from(nanos).unwrap_or(0);
        let print = if micro { micro_timestamp } else { timestamp };
        Ok(DateTime::from_timestamp(seconds, nanos).map_or(Value::Null, |time| Value::from(print(time))))
    }

    /// runtime.RawExtension, meta.FieldsV1 and JSON values: JSON text in field 1.
    fn json(&self, raw: Raw<'_>) -> Result<Value, ProtobufError> {
        let mut text: &[u8] = &[];
        let mut reader = Reader::new(self.bytes(raw)?);
        while let Some((tag, raw)) = reader.next()? {
            if tag == 1 {
                text = self.bytes(raw)?;
            }
        }
        if text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(text).map_err(|e| ProtobufError::Json { path: self.path(), why: e.to_string() })
    }

    /// The places of a custom resource definition where a schema or something simpler may stand.
    fn schema_or(&mut self, or: SchemaOr, raw: Raw<'_>) -> Result<Value, ProtobufError> {
        let (schema_tag, other_tag) = if or == SchemaOr::Bool { (2, 1) } else { (1, 2) };
        let Some(structure) = types().by_name("apiextensions.JSONSchemaProps") else { return Ok(Value::Null) };
        let (mut schema, mut allows, mut list) = (None, false, Vec::new());
        let mut reader = Reader::new(self.bytes(raw)?);
        while let Some((tag, raw)) = reader.next()? {
            if tag == schema_tag {
                let inner = schema.get_or_insert_with(Map::new);
                self.message(structure, [0; 3], self.bytes(raw)?, inner)?;
            } else if tag == other_tag {
                match or {
                    SchemaOr::Bool => allows = self.number(raw)? != 0,
                    SchemaOr::Strings => list.push(Value::from(self.text(raw)?)),
                    SchemaOr::List => {
                        let mut inner = Map::new();
                        self.message(structure, [0; 3], self.bytes(raw)?, &mut inner)?;
                        list.push(Value::Object(inner));
                    }
                }
            }
        }
        Ok(match (schema, or) {
            (Some(schema), _) => Value::Object(schema),
            (None, SchemaOr::Bool) => Value::Bool(allows),
            (None, _) => Value::Array(list),
        })
    }
}

/// JSON has whole numbers without a fraction, as the reference writes them.
fn double(number: f64) -> Value {
    let whole = number.trunc() == number && number.abs() < 9_007_199_254_740_992.0;
    if whole { Value::from(number as i64) } else { Number::from_f64(number).map_or(Value::Null, Value::Number) }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}
