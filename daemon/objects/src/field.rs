//! Where a problem is ([`FieldPath`]) and what it is ([`FieldError`]), with the reference's wording.
//!
//! Source of the wording: Kubernetes' `Status.details.causes` as recorded from kube-apiserver 1.36.

use serde_json::Value;
use std::fmt;

/// One step of a [`FieldPath`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Segment {
    /// A field of an object, printed `.name`.
    Key(String),
    /// An element of a list, counted from 0, printed `[3]`.
    Index(usize),
    /// A key of a free map (`data`, `limits`), printed `[key]`. In a document it is looked up exactly like [`Segment::Key`].
    MapKey(String),
}

impl Segment {
    /// The object key this segment names, for both kinds of key.
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Key(key) | Self::MapKey(key) => Some(key),
            Self::Index(_) => None,
        }
    }
}

/// A place inside an object, printed as Kubernetes prints it: `spec.containers[0].image`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldPath(Vec<Segment>);

impl FieldPath {
    /// The whole object; prints as nothing.
    pub fn root() -> Self {
        Self::default()
    }

    /// A path of the field names in `dotted`, for example `"spec.containers"`. No indices: see [`FieldPath::index`].
    pub fn of(dotted: &str) -> Self {
        Self(dotted.split('.').filter(|s| !s.is_empty()).map(|s| Segment::Key(s.to_owned())).collect())
    }

    /// A path of these segments.
    pub fn from_segments(segments: Vec<Segment>) -> Self {
        Self(segments)
    }

    /// Parses an RFC 6901 JSON pointer. All-digit tokens become indices; anything without a leading `/` is the root.
    pub fn from_pointer(pointer: &str) -> Self {
        let token = |t: &str| match t.parse::<usize>() {
            Ok(index) if t == "0" || !t.starts_with('0') => Segment::Index(index),
            _ => Segment::Key(t.replace("~1", "/").replace("~0", "~")),
        };
        Self(pointer.split('/').skip(1).map(token).collect())
    }

    /// The RFC 6901 JSON pointer to the same place.
    pub fn to_pointer(&self) -> String {
        let mut out = String::new();
        for segment in &self.0 {
            out.push('/');
            match segment {
                Segment::Key(key) | Segment::MapKey(key) => out.push_str(&key.replace('~', "~0").replace('/', "~1")),
                Segment::Index(index) => out.push_str(&index.to_string()),
            }
        }
        out
    }

    /// This path and a field below it.
    #[must_use]
    pub fn child(&self, name: impl Into<String>) -> Self {
        self.push(Segment::Key(name.into()))
    }

    /// This path and a list element below it.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.push(Segment::Index(index))
    }

    /// This path and a key of a free map below it.
    #[must_use]
    pub fn map_key(&self, key: impl Into<String>) -> Self {
        self.push(Segment::MapKey(key.into()))
    }

    fn push(&self, segment: Segment) -> Self {
        let mut segments = Vec::with_capacity(self.0.len() + 1);
        segments.extend_from_slice(&self.0);
        segments.push(segment);
        Self(segments)
    }

    /// The path without its last segment; `None` at the root.
    pub fn parent(&self) -> Option<Self> {
        self.0.split_last().map(|(_, rest)| Self(rest.to_vec()))
    }

    /// The steps from the root.
    pub fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// Is this the whole object?
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The value at this place in `value`.
    pub fn lookup<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        self.0.iter().try_fold(value, |at, segment| match segment {
            Segment::Key(key) | Segment::MapKey(key) => at.get(key.as_str()),
            Segment::Index(index) => at.get(*index),
        })
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Key(key) if position == 0 => f.write_str(key)?,
                Segment::Key(key) => write!(f, ".{key}")?,
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::MapKey(key) => write!(f, "[{key}]")?,
            }
        }
        Ok(())
    }
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FieldReason {
    /// A value must be given.
    Required,
    /// The value breaks a rule.
    Invalid,
    /// The value is not one of the allowed ones.
    NotSupported,
    /// A value may not be given or changed here.
    Forbidden,
    /// The same value or list key occurs twice.
    Duplicate,
    /// The value names something that is not there.
    NotFound,
    /// The value has the wrong JSON type.
    TypeInvalid,
    /// The schema has no such field.
    Unknown,
    /// The text has too many bytes.
    TooLong,
    /// The list has too many items.
    TooMany,
}

impl FieldReason {
    /// The machine-readable `reason` of a Kubernetes Status cause.
    pub fn cause(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::Duplicate => "FieldValueDuplicate",
            Self::NotFound => "FieldValueNotFound",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::Unknown => "FieldValueInvalid",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::Duplicate => "Duplicate value",
            Self::NotFound => "Not found",
            Self::Unknown => "unknown field",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
        }
    }
}

/// One problem of one field. Prints as kube-apiserver does: `spec.containers[0].image: Required value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Where.
    pub path: FieldPath,
    /// What, for programs.
    pub reason: FieldReason,
    /// The offending value as it is shown: JSON, so text is in quotes.
    pub value: Option<String>,
    /// What, for people; may be empty where the reason says it all.
    pub message: String,
    /// How to mend it, where we know (`did you mean "containers"?`).
    pub help: Option<String>,
}

impl FieldError {
    fn new(path: &FieldPath, reason: FieldReason, value: Option<String>, message: impl Into<String>) -> Self {
        Self { path: path.clone(), reason, value, message: message.into(), help: None }
    }

    /// A value must be given; `message` may be empty.
    pub fn required(path: &FieldPath, message: impl Into<String>) -> Self {
        Self::new(path, FieldReason::Required, None, message)
    }

    /// `value` breaks the rule in `message`.
    pub fn invalid(path: &FieldPath, value: impl Into<Value>, message: impl Into<String>) -> Self {
        Self::new(path, FieldReason::Invalid, Some(value.into().to_string()), message)
    }

    /// `value` is none of `allowed`.
    pub fn not_supported(path: &FieldPath, value: &str, allowed: &[&str]) -> Self {
        let list: Vec<String> = allowed.iter().map(|a| Value::from(*a).to_string()).collect();
        let mut error = Self::new(
            path,
            FieldReason::NotSupported,
            Some(Value::from(value).to_string()),
            format!("supported values: {}", list.join(", ")),
        );
        error.help = crate::names::did_you_mean(value, allowed.iter().copied()).map(|s| format!("did you mean `{s}`?"));
        error
    }

    /// A value may not be given or changed here.
    pub fn forbidden(path: &FieldPath, message: impl Into<String>) -> Self {
        Self::new(path, FieldReason::Forbidden, None, message)
    }

    /// `value` occurs twice.
    pub fn duplicate(path: &FieldPath, value: impl Into<Value>) -> Self {
        Self::new(path, FieldReason::Duplicate, Some(value.into().to_string()), "")
    }

    /// `value` names something that is not there.
    pub fn not_found(path: &FieldPath, value: impl Into<Value>) -> Self {
        Self::new(path, FieldReason::NotFound, Some(value.into().to_string()), "")
    }

    /// The JSON type is not the wanted one.
    pub fn type_invalid(path: &FieldPath, value: &Value, wanted: &str) -> Self {
        let message = format!("must be {wanted}, found {}", json_type(value));
        Self::new(path, FieldReason::TypeInvalid, Some(shorten(value)), message)
    }

    /// No such field; `known` are the fields there are.
    pub fn unknown<'a>(path: &FieldPath, known: impl Iterator<Item = &'a str>) -> Self {
        let mut error = Self::new(path, FieldReason::Unknown, None, "");
        if let Some(key) = path.segments().last().and_then(Segment::key) {
            error.help = crate::names::did_you_mean(key, known).map(|s| format!("did you mean `{s}`?"));
        }
        error
    }

    /// The text has more than `max` bytes.
    pub fn too_long(path: &FieldPath, max: usize) -> Self {
        Self::new(path, FieldReason::TooLong, None, format!("may not be more than {max} bytes"))
    }

    /// The list has `found` items, more than `max`.
    pub fn too_many(path: &FieldPath, found: usize, max: usize) -> Self {
        let items = if max == 1 { "item" } else { "items" };
        Self::new(path, FieldReason::TooMany, Some(found.to_string()), format!("must have at most {max} {items}"))
    }

    /// The same problem with advice on how to mend it.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The text without the path, as in a Status cause's `message`: `Invalid value: "x": must be ...`.
    pub fn body(&self) -> String {
        let mut out = self.reason.words().to_owned();
        if let Some(value) = &self.value {
            out.push_str(": ");
            out.push_str(value);
        }
        if !self.message.is_empty() {
            out.push_str(": ");
            out.push_str(&self.message);
        }
        out
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_root() { f.write_str(&self.body()) } else { write!(f, "{}: {}", self.path, self.body()) }
    }
}

impl std::error::Error for FieldError {}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

/// A value for a message: long ones are cut, so that one bad field can't fill a log.
fn shorten(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((cut, _)) => format!("{}...", &text[..cut]),
        None => text,
    }
}
