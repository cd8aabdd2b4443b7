//! Reading `schema/types.txt`. Everything borrows from the text in the binary, so the parsed table is small.

use std::sync::LazyLock;

/// The structure of a map with known fields.
#[derive(Debug)]
pub struct Type {
    /// For example `core.Container`.
    pub name: &'static str,
    /// Is it replaced as a whole when applied?
    pub atomic: bool,
    /// In order of name.
    pub fields: Box<[Field]>,
}

impl Type {
    /// Is it a kind's, which says so itself? (Others have fields of the same names about other objects.)
    pub fn is_kind(&self) -> bool {
        let outside = |name: &str| self.field(name).is_some_and(|field| field.number.path[0] == 0);
        outside("apiVersion") && outside("kind")
    }

    /// The field of this name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.binary_search_by(|field| field.name.cmp(name)).ok().map(|index| &self.fields[index])
    }
}

/// One field of a [`Type`].
#[derive(Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: FieldType,
    /// Must it be given?
    pub required: bool,
    /// Does the reference document it as required? (It is content without many of these.)
    pub listed_required: bool,
    /// How a strategic merge patch treats it.
    pub patch: Patch,
    /// Where Kubernetes' protobuf messages have it.
    pub number: FieldNumber,
    /// The values that the reference documents, `|` between them.
    pub values: Option<&'static str>,
    /// The default that the reference documents, in JSON.
    pub default: Option<&'static str>,
    /// Whether it is written when it holds nothing.
    pub presence: Presence,
}

/// Where a field stands in Kubernetes' protobuf messages: its number, after those of the messages that JSON flattens into this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FieldNumber {
    /// Numbers from the outermost message to the field; zeros follow. All zero: it is in no message.
    pub path: [u8; 3],
    /// Is a zero value (0, the empty text, false) on the wire as good as any other? Else it stands for an absent field.
    pub zero_counts: bool,
}

/// Whether a field is written when it holds nothing, as `schema/presence.txt` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Presence {
    /// Left out.
    #[default]
    Filled,
    /// Written when it was given.
    Optional,
    /// Always written.
    Always,
    /// Always written, as null when it is missing.
    Null,
}

impl Presence {
    /// Is it written whatever it holds?
    pub(super) fn is_always(self) -> bool {
        matches!(self, Self::Always | Self::Null)
    }
}

/// How a strategic merge patch treats a field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patch {
    /// Elements of this list are merged (else the list is replaced).
    pub merge: bool,
    /// By this key, when elements are maps.
    pub key: Option<&'static str>,
    /// Keys that the patch leaves out are removed.
    pub retain_keys: bool,
}

/// What a field holds.
#[derive(Debug)]
pub enum FieldType {
    /// Text.
    String,
    /// A whole number of 32 bits.
    Int,
    /// A whole number of 64 bits.
    Int64,
    /// True or false.
    Bool,
    /// Any number.
    Number,
    /// A quantity: text or a number.
    Quantity,
    /// A whole number or a text.
    IntOrString,
    /// An RFC 3339 time.
    Time,
    /// An RFC 3339 time with microseconds.
    MicroTime,
    /// Bytes in base64.
    Bytes,
    /// Anything.
    Any,
    /// A JSON schema or something simpler, in custom resource definitions.
    SchemaOr(SchemaOr),
    /// A map with known fields: an index into [`TypeTable`].
    Struct(TypeIndex),
    /// A map with free keys; atomic when the flag is set.
    Map(Box<FieldType>, bool),
    /// A list.
    List(Box<FieldType>, ListKind),
}

/// What may stand where a JSON schema could.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchemaOr {
    /// True or false.
    Bool,
    /// A list of schemas.
    List,
    /// A list of texts.
    Strings,
}

/// Which type of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeIndex(u16);

impl TypeIndex {
    /// The type.
    pub fn get(self) -> &'static Type {
        // The index was made while parsing this very table.
        &types().0[usize::from(self.0)]
    }
}

/// How the elements of a list are told apart.
#[derive(Debug)]
pub enum ListKind {
    /// They are not: the list is one value.
    Atomic,
    /// They are distinct scalars.
    Set,
    /// By these fields; the flag allows equal ones.
    Keyed(Box<[&'static str]>, bool),
}

/// All types.
#[derive(Debug)]
pub struct TypeTable(Box<[Type]>);

impl TypeTable {
    /// The type of this name.
    pub fn by_name(&self, name: &str) -> Option<&Type> {
        self.0.binary_search_by(|t| t.name.cmp(name)).ok().map(|index| &self.0[index])
    }

    /// All types.
    pub fn iter(&self) -> impl Iterator<Item = &Type> {
        self.0.iter()
    }
}

/// The table of types.
pub fn types() -> &'static TypeTable {
    static TABLE: LazyLock<TypeTable> = LazyLock::new(|| parse(include_str!("../../schema/types.txt")));
    &TABLE
}

fn parse(text: &'static str) -> TypeTable {
    let headers = || text.lines().filter(|line| !line.starts_with([' ', '#']) && !line.is_empty());
    let mut names: Vec<&str> = headers().filter_map(|line| line.split(' ').next()).collect();
    names.sort_unstable();
    let mut types: Vec<Type> = Vec::with_capacity(names.len());
    let mut fields = Vec::new();
    for line in text.lines().rev().filter(|line| !line.starts_with('#')) {
        if let Some(line) = line.strip_prefix(' ') {
            fields.extend(parse_field(line, &names));
        } else if let Some(name) = line.split(' ').next().filter(|name| !name.is_empty()) {
            fields.sort_unstable_by_key(|field: &Field| field.name);
            types.push(Type { name, atomic: line.ends_with(" atomic"), fields: std::mem::take(&mut fields).into() });
        }
    }
    types.sort_unstable_by_key(|t| t.name);
    mark_presence(&mut types, include_str!("../../schema/presence.txt"));
    TypeTable(types.into())
}

fn mark_presence(types: &mut [Type], text: &str) {
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split(' ');
        let Some(name) = words.next() else { continue };
        let Ok(index) = types.binary_search_by(|t| t.name.cmp(name)) else { continue };
        for word in words {
            let (presence, field) = match word.split_at_checked(1) {
                Some(("+", field)) => (Presence::Always, field),
                Some(("-", field)) => (Presence::Null, field),
                _ => (Presence::Optional, word.trim_start_matches('*')),
            };
            if let Ok(at) = types[index].fields.binary_search_by(|f| f.name.cmp(field)) {
                types[index].fields[at].presence = presence;
            }
        }
    }
}

fn parse_field(line: &'static str, names: &[&str]) -> Option<Field> {
    let (name, rest) = line.split_once(' ')?;
    let (number, rest) = rest.split_once(' ')?;
    let (rest, default) = split_optional(rest, " :=");
    let (rest, values) = split_optional(rest, " {");
    let (kind, patch) = rest.split_once(" ~").unwrap_or((rest, ""));
    let (strategy, key) = patch.split_once('=').map_or((patch, None), |(s, k)| (s, Some(k)));
    let has = |wanted: &str| strategy.split(',').any(|s| s == wanted);
    Some(Field {
        name: name.trim_end_matches(['!', '+']),
        kind: parse_type(kind, names)?,
        required: name.ends_with('!'),
        listed_required: name.ends_with(['!', '+']),
        patch: Patch { merge: has("merge"), key, retain_keys: has("retainKeys") },
        number: parse_number(number)?,
        values: values.map(|v| v.trim_end_matches('}')),
        default,
        presence: Presence::default(),
    })
}

fn split_optional(text: &'static str, at: &str) -> (&'static str, Option<&'static str>) {
    text.split_once(at).map_or((text, None), |(before, after)| (before, Some(after)))
}

/// `-`, `2`, `2.1` or `2*`.
fn parse_number(text: &str) -> Option<FieldNumber> {
    let mut path = [0; 3];
    if text != "-" {
        for (index, number) in text.trim_end_matches('*').split('.').enumerate() {
            *path.get_mut(index)? = number.parse().ok()?;
        }
    }
    Some(FieldNumber { path, zero_counts: text.ends_with('*') })
}

fn parse_type(text: &'static str, names: &[&str]) -> Option<FieldType> {
    let scalar = match text {
        "string" => FieldType::String,
        "int" => FieldType::Int,
        "int64" => FieldType::Int64,
        "bool" => FieldType::Bool,
        "number" => FieldType::Number,
        "quantity" => FieldType::Quantity,
        "intOrString" => FieldType::IntOrString,
        "time" => FieldType::Time,
        "microTime" => FieldType::MicroTime,
        "bytes" => FieldType::Bytes,
        "any" => FieldType::Any,
        "schemaOrBool" => FieldType::SchemaOr(SchemaOr::Bool),
        "schemaOrList" => FieldType::SchemaOr(SchemaOr::List),
        "schemaOrStrings" => FieldType::SchemaOr(SchemaOr::Strings),
        _ => {
            if let Some((container, element)) = text.split_once(' ') {
                return parse_container(container, Box::new(parse_type(element, names)?));
            }
            let index = names.binary_search(&text).ok()?;
            FieldType::Struct(TypeIndex(u16::try_from(index).ok()?))
        }
    };
    Some(scalar)
}

fn parse_container(text: &'static str, element: Box<FieldType>) -> Option<FieldType> {
    let keys = |open: &str| -> Option<Box<[&'static str]>> {
        Some(text.strip_prefix(open)?.strip_suffix(')')?.split(',').collect())
    };
    Some(match text {
        "map" => FieldType::Map(element, false),
        "atomicmap" => FieldType::Map(element, true),
        "list" => FieldType::List(element, ListKind::Atomic),
        "set" => FieldType::List(element, ListKind::Set),
        _ => match (keys("keyed("), keys("loose(")) {
            (Some(keys), _) => FieldType::List(element, ListKind::Keyed(keys, false)),
            (None, keys) => FieldType::List(element, ListKind::Keyed(keys?, true)),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::kinds;

    #[test]
    fn every_line_is_understood() {
        let lines = include_str!("../../schema/types.txt").lines().filter(|l| l.starts_with(' ')).count();
        assert_eq!(types().iter().map(|t| t.fields.len()).sum::<usize>(), lines);
    }

    #[test]
    fn every_presence_is_that_of_a_field() {
        for line in include_str!("../../schema/presence.txt").lines().filter(|l| !l.starts_with('#')) {
            let (name, fields) = line.split_once(' ').unwrap();
            let found = types().by_name(name).unwrap_or_else(|| panic!("{name}"));
            for field in fields.split(' ') {
                let field = found.field(&field[1..]);
                assert!(field.is_some_and(|f| f.presence != Presence::Filled), "{line}");
            }
        }
    }

    #[test]
    fn every_kind_has_a_structure_with_metadata() {
        for kind in kinds().iter() {
            let of_kind = super::super::of_kind(kind);
            assert!(of_kind.is_some_and(|t| t.field("metadata").is_some()), "{} {}", kind.api_version(), kind.kind);
        }
    }

    #[test]
    fn fields_have_numbers_values_and_defaults() {
        let port = types().by_name("core.ContainerPort").unwrap();
        let protocol = port.field("protocol").unwrap();
        assert_eq!((protocol.values, protocol.default), (Some("SCTP|TCP|UDP"), Some("\"TCP\"")));
        assert_eq!(protocol.number, FieldNumber { path: [4, 0, 0], zero_counts: false });
        assert!(port.field("containerPort").unwrap().number.zero_counts);
        let volume = types().by_name("core.Volume").unwrap();
        assert_eq!(volume.field("emptyDir").unwrap().number.path, [2, 2, 0]);
        for t in types().iter() {
            let mut numbers: Vec<[u8; 3]> = t.fields.iter().map(|f| f.number.path).filter(|p| p[0] != 0).collect();
            let all = numbers.len();
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), all, "{}: two fields with one number", t.name);
        }
    }

    #[test]
    fn lists_have_their_keys() {
        let spec = types().by_name("core.PodSpec").unwrap();
        let containers = spec.field("containers").unwrap();
        assert!(containers.required && containers.patch.merge);
        assert_eq!(containers.patch.key, Some("name"));
        assert!(matches!(&containers.kind, FieldType::List(_, ListKind::Keyed(keys, false)) if **keys == ["name"]));
    }
}
